"""How long the reserved capacity that a run was launched in is still there.

SkyPilot starts machines at the on-demand price where the reservation that it is told of is not there any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from planner import rented
from planner.reserve.book import ReservationBook
from planner.reserve.reservations import Reservation
from planner.runs import Run

#: The worker gets this long to commit a checkpoint before machines are ended.
CHECKPOINT_S = 600.0


def left_of(row: Reservation, now: datetime) -> float:
    """Seconds for a job in a reservation: until machines are ended, less what a checkpoint takes."""
    if row.offer is None or row.state not in ("bought", "active"):
        return 0.0
    return (row.offer.usable_until - now).total_seconds() - CHECKPOINT_S


def runs_in(row: Reservation, runs: Iterable[Run]) -> list[Run]:
    """Those of the runs whose machines are in a reservation, or that were started in it by schedule."""
    return [
        run
        for run in runs
        if run.run_id == row.run_id or row.provider_ref in rented.reservations(run.terms.candidate_json)
    ]


def reserved_left_s(ledger: Path, run: Run, now: str) -> float | None:
    """The same for a run, None if it is in no reservation that this ledger knows.

    Raises:
        StorageError: The ledger cannot be read.
    """
    references = rented.reservations(run.terms.candidate_json)
    if not references:
        return None
    with ReservationBook(ledger) as book:
        rows = [row for row in book.all() if row.provider_ref in references]
    return min((left_of(row, datetime.fromisoformat(now)) for row in rows), default=None)
