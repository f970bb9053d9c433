"""Reservations in the ledger: every move is conditional on what was read, and is kept for good."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from planner.database import Book
from planner.reserve.reservations import (
    FINAL,
    LaunchPlan,
    Reservation,
    ReservationEvent,
    ReservationState,
    Want,
    check_move,
)
from providers.errors import UsageError
from providers.reservations import CapacityOffer, ProviderName

#: States that somebody who does not look every day has to hear of.
_WORTH_TELLING = frozenset({"bought", "missed", "failed", "unknown", "cancelled"})


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person has to hear of; told at least once."""

    notice: int
    at: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What a reservation is recorded with; see `Reservation`."""

    reservation_id: str
    provider: ProviderName
    token: str
    want: Want
    price_cap_micro_usd: int
    not_before_at: str
    decide_by_at: str
    launch: LaunchPlan | None = None


class ReservationBook(Book):
    """The reservations of one ledger; use it as a context manager."""

    def record(self, terms: Terms, at: str, reason: str) -> bool:
        """Write down what shall be bought; False if the id exists already, which changes nothing."""
        row = asdict(terms)
        row["want_json"] = json.dumps(terms.want.document())
        row["launch_json"] = None if terms.launch is None else json.dumps(asdict(terms.launch))
        del row["want"], row["launch"]
        with self._db.writing():
            taken = self._db.execute(
                "SELECT 1 FROM reservations WHERE reservation_id = ?", (terms.reservation_id,)
            )
            if taken.fetchone():
                return False
            state = {"state": "planned", "state_reason": reason, "state_since_at": at}
            self._db.insert("reservations", {**row, "created_at": at, **state})
            self._log(terms.reservation_id, at, "planned", reason)
        return True

    def move(
        self, reservation: Reservation, state: ReservationState, reason: str, at: str, **changes: object
    ) -> Reservation | None:
        """Write a step; None, and nothing written, if somebody changed the reservation since it was read.

        Args:
            reservation: As it was read.
            state: The new state, or the same.
            reason: Why, for a person.
            at: RFC 3339 UTC.
            changes: Columns with their new values; `offer` is a CapacityOffer.

        Raises:
            TuneplanError: An illegal move, or one that the ledger refuses (above the cap, bought twice).
        """
        check_move(reservation.state, state)
        offer = changes.pop("offer", None)
        if isinstance(offer, CapacityOffer):
            changes["offer_json"] = json.dumps(offer.document())
        is_new = (reservation.state, reservation.state_reason) != (state, reason)
        since = at if reservation.state != state else reservation.state_since_at
        row = {"state": state, "state_reason": reason, "state_since_at": since, **changes}
        settings = ", ".join(f"{name} = ?" for name in row)
        with self._db.writing():
            updated = self._db.execute(
                f"UPDATE reservations SET {settings}, revision = revision + 1"  # noqa: S608
                " WHERE reservation_id = ? AND revision = ?",
                (*row.values(), reservation.reservation_id, reservation.revision),
            )
            if updated.rowcount == 0:
                return None
            if is_new:
                self._log(reservation.reservation_id, at, state, reason)
            warning = row.get("warning")
            bought = state == "active" and reservation.state not in ("bought", "active")  # it began at once
            if (
                bought
                or (reservation.state != state and state in _WORTH_TELLING)
                or (warning and warning != reservation.warning)
            ):
                self._tell(reservation.reservation_id, at, f"{state}: {reason}", warning)
        return self.get(reservation.reservation_id)

    def get(self, reservation_id: str) -> Reservation:
        """One reservation.

        Raises:
            UsageError: There is none with this id.
        """
        found = self._read("WHERE reservation_id = ?", (reservation_id,))
        if not found:
            hint = "`plan reserve list` lists them"
            raise UsageError(
                f"there is no reservation {reservation_id!r}", hint=hint, code="reservation_unknown"
            )
        return found[0]

    def exists(self, reservation_id: str) -> bool:
        """Whether the id is taken."""
        return bool(self._read("WHERE reservation_id = ?", (reservation_id,)))

    def all(self) -> list[Reservation]:
        """All of them, newest first."""
        return self._read("ORDER BY created_at DESC, reservation_id")

    def open(self) -> list[Reservation]:
        """Those that may still change; what may have been sent comes first, so that it is cleared up first."""
        places = ", ".join("?" * len(FINAL))
        found = self._read(
            f"WHERE state NOT IN ({places}) ORDER BY created_at, reservation_id", tuple(sorted(FINAL))
        )
        return sorted(found, key=lambda row: row.state not in ("intent", "unknown"))

    def events(self, reservation_id: str) -> list[ReservationEvent]:
        """History of a reservation, oldest first."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT at, state, reason FROM reservation_events WHERE reservation_id = ? ORDER BY event",
                (reservation_id,),
            ).fetchall()
        return [ReservationEvent(*row) for row in rows]

    def histories(self) -> dict[str, list[ReservationEvent]]:
        """Histories of all reservations."""
        found: dict[str, list[ReservationEvent]] = {}
        with self._db.reading():
            rows = self._db.execute(
                "SELECT reservation_id, at, state, reason FROM reservation_events ORDER BY event"
            ).fetchall()
        for reservation_id, *event in rows:
            found.setdefault(reservation_id, []).append(ReservationEvent(*event))
        return found

    def untold(self) -> list[Notice]:
        """Notices that nobody has been told of yet, oldest first."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT notice, at, subject, text FROM notices WHERE told_at IS NULL ORDER BY notice"
            ).fetchall()
        return [Notice(*row) for row in rows]

    def told(self, notices: Iterable[Notice], at: str) -> None:
        """Mark notices as told."""
        with self._db.writing():
            for notice in notices:
                self._db.execute("UPDATE notices SET told_at = ? WHERE notice = ?", (at, notice.notice))

    def _log(self, reservation_id: str, at: str, state: ReservationState, reason: str) -> None:
        row = {"reservation_id": reservation_id, "at": at, "state": state, "reason": reason}
        self._db.insert("reservation_events", row)

    def _tell(self, reservation_id: str, at: str, text: str, warning: object) -> None:
        whole = text if not warning else f"{text}; {warning}"
        self._db.insert("notices", {"at": at, "subject": f"reservation {reservation_id}", "text": whole})

    def _read(self, where: str, values: tuple[object, ...] = ()) -> list[Reservation]:
        with self._db.reading():
            found = self._db.execute(f"SELECT * FROM reservations {where}", values)  # noqa: S608
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found]
        return [_reservation(row) for row in rows]


def _reservation(row: dict[str, Any]) -> Reservation:
    want, launch, offer = (row.pop(name) for name in ("want_json", "launch_json", "offer_json"))
    return Reservation(
        want=Want.from_document(json.loads(want)),
        launch=None if launch is None else LaunchPlan(**json.loads(launch)),
        offer=None if offer is None else CapacityOffer.from_document(json.loads(offer)),
        **row,
    )
