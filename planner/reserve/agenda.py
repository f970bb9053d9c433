"""What a scheduler does: all that is due now, once; and whether there is anything, which costs next to nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from planner.reserve.book import Notice, ReservationBook
from planner.reserve.children import launch, notify
from planner.reserve.firing import Firer, Started, tick
from planner.reserve.lock import buying
from planner.reserve.provisioned import other_machine
from planner.reserve.purchase import Buyer, advance
from planner.reserve.reservations import NOT_STARTED, Reservation
from planner.reserve.schedules import Firing
from planner.runs import utc_text
from planner.schema_sql import MIGRATIONS
from providers.errors import TuneplanError
from providers.offers import Offer

_OPEN_RESERVATIONS = (
    "SELECT count(*) FROM reservations WHERE state NOT IN ('ended','missed','failed','cancelled')"
)
_DUE = (
    "SELECT (SELECT count(*) FROM schedules WHERE state = 'active' AND next_at <= ?)"
    " + (SELECT count(*) FROM firings WHERE state IN ('due', 'starting'))"
    " + (SELECT count(*) FROM notices WHERE told_at IS NULL)"
)
#: Times at which a reservation must be looked at, however recently that was done.
_TIMES = (
    "SELECT count(*) FROM reservations WHERE state NOT IN ('ended','missed','failed','cancelled')"
    " AND (decide_by_at BETWEEN ? AND ? OR not_before_at BETWEEN ? AND ?)"
)


#: Until the run's machine was looked at.
_STARTED = "its run was started"


@dataclass(frozen=True, slots=True)
class Done:
    """What a tick did.

    Attributes:
        firings: Those that changed.
        reservations: Those that changed.
        errors: What could not be done now and is tried again.
        told: Notices that were passed on.
    """

    firings: tuple[Firing, ...]
    reservations: tuple[Reservation, ...]
    errors: tuple[str, ...]
    told: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Office:
    """What it takes to do all that is due.

    Attributes:
        ledger: The ledger's file.
        buyer: Buys; holds the reservations.
        firer: Starts what schedules say; holds them.
        hook: The user's program that passes notices on.
        start: Launches the run of a reservation: spec, infra, run id, cap, reservation id.
        machine: What the backend gave the run of a reservation, None while that is not known.
    """

    ledger: Path
    buyer: Buyer
    firer: Firer
    hook: Path
    start: Callable[[Reservation], Started]
    machine: Callable[[Reservation], Offer | None] = lambda _: None


def is_due(ledger: Path, now: datetime, looked_at: datetime | None, every_s: float) -> bool:
    """Whether a tick would have something to do.

    Args:
        ledger: The ledger's file; nothing is due without one.
        now: UTC.
        looked_at: When reservations were last looked at, None if never.
        every_s: How often those that are open are looked at.
    """
    if not ledger.exists():
        return False
    at, before = utc_text(now), utc_text(looked_at or datetime.fromisoformat("1970-01-01T00:00:00+00:00"))
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)) as db:
        if db.execute("PRAGMA user_version").fetchone()[0] < len(MIGRATIONS):
            return True  # written by an older tuneplan: the tick brings it up to date
        if db.execute(_DUE, (at,)).fetchone()[0]:
            return True
        if not db.execute(_OPEN_RESERVATIONS).fetchone()[0]:
            return False
        is_time = bool(db.execute(_TIMES, (before, at, before, at)).fetchone()[0])
    return is_time or looked_at is None or not 0 <= (now - looked_at).total_seconds() < every_s


def do_all(office: Office) -> Done:
    """Everything that is due now; what fails is said and does not stand in the way of the rest."""
    errors: list[str] = []
    reservations = _reservations(office, errors)
    firings: list[Firing] = []
    try:
        firings = tick(office.firer)
    except TuneplanError as error:
        errors.append(f"schedules: {error.message}")
    return Done(tuple(firings), tuple(reservations), tuple(errors), tuple(_tell(office)))


def _reservations(office: Office, errors: list[str]) -> list[Reservation]:
    changed = []
    book = office.buyer.book
    rows = book.open()
    if not rows:
        return []
    try:
        with buying(office.ledger):
            for row in rows:
                after = _one(office, row, errors)
                changed += [after] if after.revision != row.revision else []
    except TuneplanError as error:  # another process is at it
        errors.append(f"reservations: {error.message}")
    return changed


def _one(office: Office, row: Reservation, errors: list[str]) -> Reservation:
    """Buy or look, and start the run if it is time."""
    try:
        row = advance(office.buyer, row.reservation_id)
        return _verified(office, _started(office, row, errors))
    except TuneplanError as error:
        errors.append(f"reservation {row.reservation_id}: {error.message}")
        return office.buyer.book.get(row.reservation_id)


def _started(office: Office, row: Reservation, errors: list[str]) -> Reservation:
    """The run starts once, when the capacity is there."""
    if row.state != "active" or row.launch is None or row.run_id is not None:
        return row
    done = office.start(row)
    if done.exit_code != 0:
        text = f"{NOT_STARTED}: exit {done.exit_code}: {done.message}"
        errors.append(f"reservation {row.reservation_id}: {text}")
        moved = office.buyer.book.move(row, row.state, row.state_reason, office.buyer.at, warning=text)
    else:
        moved = office.buyer.book.move(
            row, row.state, _STARTED, office.buyer.at, run_id=row.launch.run_id, warning=None
        )
    return moved or office.buyer.book.get(row.reservation_id)


def _verified(office: Office, row: Reservation) -> Reservation:
    """Once the run has its machine: is it what was bought?"""
    if row.state_reason != _STARTED or row.state != "active" or row.offer is None:
        return row
    got = office.machine(row)
    if got is None:
        return row
    wrong = other_machine(row.offer, got)
    reason = (
        wrong or f"its run has what was bought: {got.instance_type or got.gpu} in {got.zone or got.region}"
    )
    moved = office.buyer.book.move(row, row.state, reason, office.buyer.at, warning=wrong)
    return moved or office.buyer.book.get(row.reservation_id)


def start_in(ledger: Path, row: Reservation) -> Started:
    """Launch the run of a reservation with `plan launch`."""
    plan = row.launch
    if plan is None:
        return Started(2, "no run was named")
    cap = None if plan.cap_usd is None else float(plan.cap_usd)
    return launch(ledger, plan.spec, plan.infra, plan.run_id, cap, reservation=row.reservation_id)


def _tell(office: Office) -> list[Notice]:
    """Pass notices on, each at least once."""
    book: ReservationBook = office.buyer.book
    told = []
    for notice in book.untold():
        if notify(office.hook, notice.subject, notice.text, notice.at):
            book.told([notice], office.buyer.at)
            told.append(notice)
    return told
