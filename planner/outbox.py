"""What people are to be told of, and whether they were: one row for each event and recipient, in the ledger.

Events of runs are append-only and numbered, so each becomes a row once, whoever looks and however often. A row is
claimed before it is sent; one whose sender was killed at that very moment is sent again after its delay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Literal

from planner.database import Book
from planner.runs import FINAL, RunState, utc_text
from providers.errors import TuneplanError

Kind = Literal[
    "started", "recovered", "preempted", "cap_80", "cap_reached", "deadline", "finished", "failed", "cancelled",
    "stray", "notice",
]  # fmt: skip
_BAD: frozenset[str] = frozenset(
    {"preempted", "cap_80", "cap_reached", "deadline", "failed", "stray", "notice"}
)
#: The first delay is longer than a sender waits for an answer: nobody else sends meanwhile.
_FIRST_DELAY_S, _LONGEST_DELAY_S, _MOST_TRIES = 30.0, 900.0, 30
_UP: frozenset[RunState] = frozenset({"running", "syncing"})
_AWAY: frozenset[RunState] = frozenset({"preempted", "recovering"})
_ENDS: dict[RunState, Kind] = {
    "succeeded": "finished",
    "failed": "failed",
    "capped": "cap_reached",
    "cancelled": "cancelled",
}
_TITLES: dict[Kind, str] = {
    "started": "has started",
    "recovered": "goes on after it was taken away",
    "preempted": "was taken away",
    "cap_80": "nears its cap",
    "cap_reached": "stopped at its cap or time limit",
    "deadline": "may miss its deadline",
    "finished": "has finished",
    "failed": "failed",
    "cancelled": "was cancelled",
    "stray": "had a stray",
}
#: Sends title and text to a recipient; raises TuneplanError if it was not taken.
Send = Callable[[str, str, str, bool], None]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one recipient.

    Attributes:
        source: "event:12" or "notice:3".
        recipient: Name of the environment variable with the address.
        run_id: None for what is about no run.
        tries: How often it was sent.
        next_try_at: When it is sent next, None if it never will be again.
        sent_at: When it was taken, None if it was not yet.
        error: Why it was not taken the last time.
    """

    source: str
    recipient: str
    run_id: str | None
    kind: Kind
    title: str
    text: str
    at: str
    tries: int = 0
    next_try_at: str | None = None
    sent_at: str | None = None
    error: str | None = None

    @property
    def is_given_up(self) -> bool:
        """Nobody tries any more."""
        return self.sent_at is None and self.next_try_at is None


_COLUMNS = ", ".join(field.name for field in fields(Delivery))


class Outbox(Book):
    """The messages of a ledger."""

    def collect(self, everybody: tuple[str, ...]) -> int:
        """Turn what happened since the last time into messages; how many.

        Args:
            everybody: Recipients of what is about no run, and of runs that name none.
        """
        with self._db.writing():
            events, last = self._since("events", "event")
            rows: list[tuple[object, ...]] = []
            for event, run_id, at, kind, state, reason, attempt in events:
                told = self._told(run_id, event, kind, state, attempt)
                if told is not None:
                    title = f"run {run_id} {_TITLES[told]}"
                    names = self._recipients(run_id) or everybody
                    rows += [
                        (f"event:{event}", name, run_id, told, title, reason or state, at) for name in names
                    ]
            notices, last_notice = self._since("notices", "notice")
            for notice, at, subject, text, _ in notices:
                rows += [(f"notice:{notice}", name, None, "notice", subject, text, at) for name in everybody]
            self._mark("events", last)
            self._mark("notices", last_notice)
            for row in rows:
                self._db.execute(
                    f"INSERT INTO deliveries ({_COLUMNS})"  # noqa: S608
                    " VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, NULL, NULL) ON CONFLICT DO NOTHING",
                    (*row, row[-1]),
                )
        return len(rows)

    def deliver(self, send: Send, now: Callable[[], str]) -> list[Delivery]:
        """Send what is due; those that were tried, as they are now."""
        tried = []
        for row in self._read("WHERE next_try_at <= ? ORDER BY at, source", (now(),)):
            if not self._claim(row, now()):
                continue  # another process is at it
            error = None
            try:
                send(row.recipient, row.title, row.text, row.kind in _BAD)
            except TuneplanError as failure:
                error = failure.message
            self._settle(row, error, now())
            tried += self._read("WHERE source = ? AND recipient = ?", (row.source, row.recipient))
        return tried

    def undelivered(self, run_id: str | None = None) -> list[Delivery]:
        """Messages that were tried in vain, of one run or of all, oldest first."""
        where = "WHERE sent_at IS NULL AND error IS NOT NULL"
        if run_id is None:
            return self._read(f"{where} ORDER BY at, source")
        return self._read(f"{where} AND run_id = ? ORDER BY at, source", (run_id,))

    def recent(self, limit: int) -> list[Delivery]:
        """Newest messages first, whatever became of them."""
        return self._read("ORDER BY at DESC, source DESC LIMIT ?", (limit,))

    def _since(self, table: str, key: str) -> tuple[list[tuple[object, ...]], int]:
        """Rows of a table that were not looked at, and the number of the last one."""
        found = self._db.execute("SELECT last FROM delivery_marks WHERE source = ?", (table,)).fetchone()
        last = 0 if found is None else int(found[0])
        rows = self._db.execute(
            f"SELECT * FROM {table} WHERE {key} > ? ORDER BY {key}",  # noqa: S608
            (last,),
        ).fetchall()
        return rows, int(rows[-1][0]) if rows else last

    def _mark(self, table: str, last: int) -> None:
        self._db.execute(
            "INSERT INTO delivery_marks (source, last) VALUES (?, ?)"
            " ON CONFLICT (source) DO UPDATE SET last = excluded.last",
            (table, last),
        )

    def _told(
        self, run_id: object, event: object, kind: object, state: object, attempt: object
    ) -> Kind | None:
        """What an event is to a person, None if it is no news."""
        before = self._db.execute(
            "SELECT state, attempt FROM events WHERE run_id = ? AND event < ? ORDER BY event", (run_id, event)
        ).fetchall()
        return news(str(kind), str(state), int(str(attempt)), before)

    def _recipients(self, run_id: object) -> tuple[str, ...]:
        found = self._db.execute("SELECT notify FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return tuple(json.loads(found[0])) if found else ()

    def _claim(self, row: Delivery, now: str) -> bool:
        """Count the try and put the next one off, before anything is sent."""
        tries = row.tries + 1
        next_try_at = None if tries >= _MOST_TRIES else _later(now, delay_s(tries))
        with self._db.writing():
            claimed = self._db.execute(
                "UPDATE deliveries SET tries = ?, next_try_at = ?"
                " WHERE source = ? AND recipient = ? AND tries = ? AND sent_at IS NULL",
                (tries, next_try_at, row.source, row.recipient, row.tries),
            )
        return claimed.rowcount == 1

    def _settle(self, row: Delivery, error: str | None, now: str) -> None:
        key = (row.source, row.recipient)
        with self._db.writing():
            if error is None:
                self._db.execute(
                    "UPDATE deliveries SET sent_at = ?, next_try_at = NULL, error = NULL"
                    " WHERE source = ? AND recipient = ?",
                    (now, *key),
                )
            else:
                self._db.execute(
                    "UPDATE deliveries SET error = ? WHERE source = ? AND recipient = ? AND sent_at IS NULL",
                    (error, *key),
                )

    def _read(self, where: str, values: tuple[object, ...] = ()) -> list[Delivery]:
        with self._db.reading():
            found = self._db.execute(f"SELECT {_COLUMNS} FROM deliveries {where}", values)  # noqa: S608
            return [Delivery(*row) for row in found]


def news(kind: str, state: str, attempt: int, before: Iterable[tuple[str, int]]) -> Kind | None:
    """What an event of a run is to a person, None if it is no news.

    Args:
        kind: Of the event.
        state: That the run was in after it.
        attempt: Newest attempt then.
        before: State and attempt of all earlier events, oldest first.
    """
    if kind in ("cap_warning", "move_refused"):
        return "cap_80"
    if kind == "refused":  # nothing was taken away, and it is asked for again
        return None
    if kind in ("reap", "not_released"):
        return "stray"
    if kind.startswith("deadline"):
        return "deadline"
    earlier = list(before)
    last = earlier[-1][0] if earlier else ""
    if state in FINAL:
        return None if state == last else _ENDS[state]
    if state in _AWAY:
        return None if last in _AWAY else "preempted"
    if state in _UP and not any(one in _UP and number == attempt for one, number in earlier):
        return "recovered" if any(one in _UP for one, _ in earlier) else "started"
    return None


def delay_s(tries: int) -> float:
    """Seconds until the next try after so many: doubled each time, a quarter of an hour at most.

    >>> [delay_s(tries) for tries in (1, 2, 3, 20)]
    [30.0, 60.0, 120.0, 900.0]
    """
    return float(min(_FIRST_DELAY_S * 2 ** (tries - 1), _LONGEST_DELAY_S))


def _later(now: str, seconds: float) -> str:
    return utc_text(datetime.fromisoformat(now) + timedelta(seconds=seconds))
