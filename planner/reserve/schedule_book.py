"""Schedules, their firings and the schedulers' heartbeats in the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from planner.database import Book
from planner.reserve.schedules import OPEN, REMOVED, Firing, FiringState, Schedule, ScheduleState
from planner.reserve.timing import Timing
from providers.errors import UsageError

#: Firings that somebody who does not look every day has to hear of.
_WORTH_TELLING = frozenset({"missed", "failed"})
_COLUMNS = tuple(field.name for field in fields(Schedule) if field.name != "timing")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A scheduler that runs, or ran."""

    scheduler: str
    pid: int
    host: str
    started_at: str
    beat_at: str
    every_s: float
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class Due:
    """Times of a schedule that have come.

    Attributes:
        schedule: As it was read.
        firings: What was due since.
        next_at: The next due time, None after the last.
        ended: Why the schedule is over, None if it goes on.
    """

    schedule: Schedule
    firings: list[Firing]
    next_at: str | None
    ended: str | None


class ScheduleBook(Book):
    """The schedules of one ledger; use it as a context manager."""

    def add(self, schedule: Schedule) -> None:
        """Write down a new schedule.

        Raises:
            UsageError: The id is taken.
        """
        row = asdict(schedule)
        del row["timing"]
        row["timing_json"] = json.dumps(schedule.timing.document())
        with self._db.writing():
            known = self._db.execute(
                "SELECT 1 FROM schedules WHERE schedule_id = ?", (schedule.schedule_id,)
            ).fetchone()
            if known:
                hint = "choose another --name, or `plan schedule rm` it first"
                raise UsageError(f"there is a schedule {schedule.schedule_id} already", hint=hint)
            self._db.insert("schedules", row)

    def change(
        self, schedule: Schedule, state: ScheduleState, reason: str, at: str, next_at: str | None
    ) -> bool:
        """Write a new state or next time; False if somebody changed the schedule since it was read."""
        with self._db.writing():
            return self._change(schedule, state, reason, at, next_at)

    def fire(self, dues: Iterable[Due], at: str) -> None:
        """Record due times and move their schedules on, all in one step; what somebody else has done stays.

        Args:
            dues: A schedule at most once.
            at: RFC 3339 UTC.
        """
        with self._db.writing():
            for due in dues:
                schedule, ended = due.schedule, due.ended
                state: ScheduleState = "ended" if ended else schedule.state
                if self._change(schedule, state, ended or schedule.state_reason, at, due.next_at):
                    for firing in due.firings:
                        self._insert(firing)

    def insert(self, firing: Firing) -> bool:
        """Record one firing that a person asked for; False if there is one at that time."""
        with self._db.writing():
            return self._insert(firing)

    def move(self, firing: Firing, state: FiringState, reason: str, at: str) -> Firing | None:
        """Write what became of a firing; None if somebody else did since it was read."""
        tries = firing.tries + (state == "starting")
        key = (firing.schedule_id, firing.due_at, firing.state, firing.tries)
        with self._db.writing():
            updated = self._db.execute(
                "UPDATE firings SET state = ?, reason = ?, at = ?, tries = ?"
                " WHERE schedule_id = ? AND due_at = ? AND state = ? AND tries = ?",
                (state, reason, at, tries, *key),
            )
            if updated.rowcount == 0:
                return None
            if state in _WORTH_TELLING:
                self._tell(firing, state, reason, at)
        return Firing(
            *(firing.schedule_id, firing.due_at, state, reason, at, firing.run_id, tries, firing.period_at)
        )

    def get(self, schedule_id: str) -> Schedule:
        """One schedule.

        Raises:
            UsageError: There is none with this id.
        """
        found = self._schedules("WHERE schedule_id = ?", (schedule_id,))
        if not found:
            hint = "`plan schedule list` lists them"
            raise UsageError(f"there is no schedule {schedule_id!r}", hint=hint, code="schedule_unknown")
        return found[0]

    def all(self) -> list[Schedule]:
        """All schedules, the next due first."""
        return self._schedules("ORDER BY next_at IS NULL, next_at, schedule_id")

    def due(self, now: str) -> list[Schedule]:
        """Active schedules whose time has come."""
        return self._schedules("WHERE state = 'active' AND next_at <= ? ORDER BY next_at", (now,))

    def open_firings(self) -> list[Firing]:
        """Firings that still have to be dealt with, oldest first."""
        places = ", ".join("?" * len(OPEN))
        return self._firings(f"WHERE state IN ({places}) ORDER BY due_at, schedule_id", OPEN)

    def firings(self, schedule_id: str) -> list[Firing]:
        """History of a schedule, newest first."""
        return self._firings("WHERE schedule_id = ? ORDER BY due_at DESC", (schedule_id,))

    def remove(self, schedule_id: str, at: str) -> None:
        """End a schedule and pass over what is due of it; its history stays.

        A launch that is under way may have started a run: whoever ticks next finds out.
        """
        ended = False
        while not ended:
            schedule = self.get(schedule_id)
            with self._db.writing():
                ended = self._change(schedule, "ended", REMOVED, at, None)
                if ended:
                    self._db.execute(
                        "UPDATE firings SET state = 'skipped', reason = ?, at = ?"
                        " WHERE schedule_id = ? AND state = 'due'",
                        (f"the schedule was {REMOVED}", at, schedule_id),
                    )

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that a scheduler lives, or has ended."""
        row = asdict(heartbeat)
        with self._db.writing():
            self._db.execute("DELETE FROM schedulers WHERE scheduler = ?", (heartbeat.scheduler,))
            self._db.insert("schedulers", row)

    def heartbeats(self) -> list[Heartbeat]:
        """Schedulers, the one that was last alive first."""
        with self._db.reading():
            rows = self._db.execute("SELECT * FROM schedulers ORDER BY beat_at DESC").fetchall()
        return [Heartbeat(*row) for row in rows]

    def _change(
        self, schedule: Schedule, state: ScheduleState, reason: str, at: str, next_at: str | None
    ) -> bool:
        since = at if schedule.state != state else schedule.state_since_at
        updated = self._db.execute(
            "UPDATE schedules SET state = ?, state_reason = ?, state_since_at = ?, next_at = ?,"
            " revision = revision + 1 WHERE schedule_id = ? AND revision = ?",
            (state, reason, since, next_at, schedule.schedule_id, schedule.revision),
        )
        return updated.rowcount > 0

    def _insert(self, firing: Firing) -> bool:
        """Whether there was none of that time yet: a person may have asked for one in this very second."""
        key = (firing.schedule_id, firing.due_at)
        if self._db.execute("SELECT 1 FROM firings WHERE schedule_id = ? AND due_at = ?", key).fetchone():
            return False
        self._db.insert("firings", asdict(firing))
        if firing.state in _WORTH_TELLING:
            self._tell(firing, firing.state, firing.reason, firing.at)
        return True

    def _tell(self, firing: Firing, state: str, reason: str, at: str) -> None:
        text = f"{state}: due at {firing.due_at}: {reason}"
        self._db.insert("notices", {"at": at, "subject": f"schedule {firing.schedule_id}", "text": text})

    def _schedules(self, where: str, values: tuple[object, ...] = ()) -> list[Schedule]:
        rows = self._rows(f"SELECT {', '.join(_COLUMNS)}, timing_json FROM schedules {where}", values)  # noqa: S608
        return [
            Schedule(
                timing=Timing.from_document(json.loads(row.pop("timing_json"))),
                skip_if_met=bool(row.pop("skip_if_met")),
                **row,
            )
            for row in rows
        ]

    def _firings(self, where: str, values: tuple[object, ...]) -> list[Firing]:
        return [Firing(**row) for row in self._rows(f"SELECT * FROM firings {where}", values)]  # noqa: S608

    def _rows(self, query: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
        with self._db.reading():
            found = self._db.execute(query, values)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found]
