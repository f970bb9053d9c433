"""The ledger: our intent and the history of every run, in one SQLite file.

A row is written before the outside world is touched, a transaction never waits for anything outside, and
whoever writes says which revision was read: of two writers one wins and the other reads again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from planner.database import Database
from planner.offer_document import offer_document
from planner.run_rows import offers_of, runs_of, terms_row
from planner.runs import (
    FINAL,
    Attempt,
    MonitorBeat,
    PolicyDecision,
    Run,
    RunEvent,
    RunState,
    RunTerms,
    Stopping,
    check_move,
)
from providers.errors import UsageError
from providers.offers import Offer

_ATTEMPT_COLUMNS = tuple(field.name for field in fields(Attempt))
_CHANGING = tuple(
    name
    for name in _ATTEMPT_COLUMNS
    if name not in ("attempt", "intent_at", "micro_usd_per_hour", "recovery")
)
#: The machine that was got may have another price than the one asked for first; from its start on it is fixed.
_SET_PRICE = "micro_usd_per_hour = CASE WHEN started_at IS NULL THEN ? ELSE micro_usd_per_hour END"
_OF_RUNS = tuple(
    field.name
    for field in fields(Run)
    if field.name not in ("terms", "attempts", "observed_at", "progress_json")
)
_RUN_QUERY = "SELECT * FROM runs JOIN observations USING (run_id)"


@dataclass(frozen=True, slots=True)
class Change:
    """What an observation or a command changes about a run.

    Attributes:
        attempt: The newest attempt as it is now.
        progress_json: None leaves what is stored.
        kind: Of the event that is written if the state or its reason changed.
        began_at: When a new state began, as far as anybody says; None leaves the time at which it was seen.
        opened: Attempts that the backend began by itself since the newest one, oldest first.
    """

    state: RunState
    reason: str
    attempt: Attempt
    observed_at: str
    next_try_at: str | None = None
    progress_json: str | None = None
    kind: str = "observed"
    began_at: str | None = None
    opened: tuple[Attempt, ...] = ()


class Store:
    """One open ledger; use it as a context manager."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """Open the file, making or migrating it if need be; `shared` may be closed by another thread.

        Raises:
            UsageError: A newer tuneplan wrote it (then it is left as it is), or it lies on a network disk.
            StorageError: It cannot be opened or written.
            CorruptDataError: It is no ledger, or damaged.
        """
        self.path = path
        self._db = Database(path, shared=shared)

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was written is on disk already."""
        self._db.close()

    def create(self, run_id: str, terms: RunTerms, attempt: Attempt) -> bool:
        """Record a run and the intent to start it; False if the id exists already, which changes nothing."""
        with self._db.writing():
            if self._db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
                return False
            row = {
                **terms_row(terms),
                "run_id": run_id,
                "created_at": attempt.intent_at,
                "state": "queued",
                "state_reason": "launch is being asked for",
                "state_since_at": attempt.intent_at,
            }
            self._db.insert("runs", row)
            self._db.insert("observations", {"run_id": run_id, "observed_at": attempt.intent_at})
            self._insert_attempt(run_id, attempt)
            self._log(
                run_id, attempt.intent_at, "launch", "queued", "launch is being asked for", attempt.attempt
            )
        return True

    def adopt(self, run: Run, how: str, at: str, *, instead: Run | None = None) -> bool:
        """Record a run that another ledger launched, as it was there; False if the id exists already.

        With `instead` that takes the place of what is on record; False if somebody changed that since it was read.
        """
        row = {name: getattr(run, name) for name in _OF_RUNS} | terms_row(run.terms)
        with self._db.writing():
            if instead is not None:
                settings = ", ".join(f"{name} = ?" for name in row)
                key = (run.run_id, instead.revision)
                put = f"UPDATE runs SET {settings} WHERE run_id = ? AND revision = ?"  # noqa: S608
                if self._db.execute(put, (*row.values(), *key)).rowcount == 0:
                    return False
                self._db.execute("DELETE FROM attempts WHERE run_id = ?", (run.run_id,))
            elif self._db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run.run_id,)).fetchone():
                return False
            else:
                self._db.insert("runs", row)
                self._db.insert("observations", {"run_id": run.run_id, "observed_at": run.observed_at})
            for attempt in run.attempts:
                self._insert_attempt(run.run_id, attempt)
            self._log(run.run_id, at, "adopt", run.state, how, run.current.attempt)
        return True

    def add_attempt(
        self,
        run: Run,
        attempt: Attempt,
        *,
        cap_micro_usd: int | None,
        max_duration_s: float | None,
        candidate_json: str | None = None,
    ) -> bool:
        """Record the intent to resume a run; False if somebody changed the run since it was read.

        Without a `candidate_json` its machines keep their prices.
        """
        terms = replace(
            run.terms,
            cap_micro_usd=cap_micro_usd,
            max_duration_s=max_duration_s,
            candidate_json=candidate_json or run.terms.candidate_json,
        )
        return self.launch_again(run, attempt, terms, "resume")

    def launch_again(self, run: Run, attempt: Attempt, terms: RunTerms, kind: str = "launch") -> bool:
        """Record the intent to start a run once more, under these terms; False as for `add_attempt`.

        Args:
            run: As read from the ledger.
            attempt: The next one.
            terms: They take the place of those that it had.
            kind: Of the event, and how the state's reason names it.
        """
        check_move(run.state, "queued")
        row, reason = terms_row(terms), f"{kind} is being asked for"
        settings = ", ".join(f"{name} = ?" for name in row)
        with self._db.writing():
            moved = self._db.execute(
                "UPDATE runs SET state = 'queued', state_reason = ?, state_since_at = ?, next_try_at = NULL,"  # noqa: S608
                f" stopping = NULL, {settings}, revision = revision + 1 WHERE run_id = ? AND revision = ?",
                (reason, attempt.intent_at, *row.values(), run.run_id, run.revision),
            )
            if moved.rowcount == 0:
                return False
            self._insert_attempt(run.run_id, attempt)
            self._log(run.run_id, attempt.intent_at, kind, "queued", reason, attempt.attempt)
        return True

    def apply(self, run: Run, change: Change) -> bool:
        """Write a change of a run; False if somebody changed the run since it was read.

        Raises:
            TuneplanError: The move of its state is illegal.
        """
        check_move(run.state, change.state)
        moved = (run.state, run.state_reason) != (change.state, change.reason)
        since = _since(run, change)
        with self._db.writing():
            updated = self._db.execute(
                "UPDATE runs SET state = ?, state_reason = ?, state_since_at = ?, next_try_at = ?,"
                " revision = revision + 1 WHERE run_id = ? AND revision = ?",
                (change.state, change.reason, since, change.next_try_at, run.run_id, run.revision),
            )
            if updated.rowcount == 0:
                return False
            self._update_attempt(run.run_id, change.attempt)
            for attempt in change.opened:
                self._insert_attempt(run.run_id, attempt)
            self._db.execute(
                "UPDATE observations SET observed_at = ?, progress_json = coalesce(?, progress_json)"
                " WHERE run_id = ?",
                (change.observed_at, change.progress_json, run.run_id),
            )
            if moved:
                number = change.attempt.attempt + len(change.opened)
                self._log(run.run_id, change.observed_at, change.kind, change.state, change.reason, number)
        return True

    def ask_stop(
        self, run: Run, by: Stopping, reason: str, at: str, *, next_try_at: str | None = None
    ) -> bool:
        """Record that a run shall end, before its backend is asked; False if it was changed since it was read.

        Args:
            run: As read from the ledger.
            by: Who wants it.
            reason: For a person.
            at: RFC 3339 UTC.
            next_try_at: Until when its worker has time, and the backend is asked at the latest; None is at once.
        """
        check_move(run.state, "cancelling")
        with self._db.writing():
            moved = self._db.execute(
                "UPDATE runs SET state = 'cancelling', stopping = ?, state_reason = ?, state_since_at = ?,"
                " next_try_at = ?, revision = revision + 1 WHERE run_id = ? AND revision = ?",
                (by, reason, at, next_try_at, run.run_id, run.revision),
            )
            if moved.rowcount == 0:
                return False
            self._log(run.run_id, at, "stop", "cancelling", reason, run.current.attempt)
        return True

    def note(self, run: Run, kind: str, text: str, at: str) -> bool:
        """Add a line to a run's history that changes nothing; False if the very same one is there already."""
        with self._db.writing():
            same = "SELECT 1 FROM events WHERE run_id = ? AND kind = ? AND reason = ?"
            if self._db.execute(same, (run.run_id, kind, text)).fetchone():
                return False
            self._log(run.run_id, at, kind, run.state, text, run.current.attempt)
        return True

    def record_asking(self, run: Run, offers: Sequence[Offer], at: str) -> tuple[Offer, ...]:
        """Write down in which order the newest launch asks for machines, once.

        Returns:
            The order on record: a launch that is repeated asks as it did before.
        """
        key = (run.run_id, run.launches)
        text = json.dumps([offer_document(offer) for offer in offers])
        with self._db.writing():
            row = {"run_id": run.run_id, "launch": run.launches, "at": at, "offers_json": text}
            kept = "SELECT offers_json FROM askings WHERE run_id = ? AND launch = ?"
            known = self._db.execute(kept, key).fetchone()
            if known is None:
                self._db.insert("askings", row)
        return tuple(offers) if known is None else offers_of(known[0])

    def askings(self) -> dict[tuple[str, int], tuple[Offer, ...]]:
        """Machines that each launch asked for, in that order, by run and launch."""
        with self._db.reading():
            rows = self._db.execute("SELECT run_id, launch, offers_json FROM askings").fetchall()
        return {(run_id, launch): offers_of(text) for run_id, launch, text in rows}

    def record_decision(self, run_id: str, decision: PolicyDecision) -> bool:
        """Record what the moving policy has decided; False if a decision of a later tick is on record."""
        later = "SELECT 1 FROM decisions WHERE run_id = ? AND tick > ?"
        with self._db.writing():
            if self._db.execute(later, (run_id, decision.tick)).fetchone():
                return False
            self._db.insert("decisions", {"run_id": run_id, **asdict(decision)})
        return True

    def decisions(self, run_id: str, *, newest: int | None = None) -> list[PolicyDecision]:
        """What the moving policy has decided for a run, oldest first; only the `newest` so many of them."""
        names = ", ".join(field.name for field in fields(PolicyDecision))
        with self._db.reading():
            rows = self._db.execute(
                f"SELECT {names} FROM decisions WHERE run_id = ? ORDER BY decision DESC LIMIT ?",  # noqa: S608
                (run_id, -1 if newest is None else newest),
            ).fetchall()
        return [PolicyDecision(*row) for row in reversed(rows)]

    def get(self, run_id: str) -> Run | None:
        """One run with its attempts."""
        return next(iter(self._runs("WHERE run_id = ?", (run_id,))), None)

    def find(self, text: str) -> Run:
        """A run by its id or the beginning of it, if that is unique.

        Raises:
            UsageError: No run, or more than one, begins like this.
        """
        exact = self.get(text)
        if exact is not None:
            return exact
        found = self._runs(
            "WHERE substr(run_id, 1, ?) = ? ORDER BY created_at DESC LIMIT 6", (len(text), text)
        )
        if text and len(found) == 1:
            return found[0]
        if text and found:
            ids = ", ".join(run.run_id for run in found[:5])
            raise UsageError(f"more than one run begins with {text}: {ids}", code="run_ambiguous")
        raise UsageError(f"there is no run {text!r}", hint="`plan runs` lists them", code="run_unknown")

    def all_runs(self) -> list[Run]:
        """All runs, newest first."""
        return self._runs("ORDER BY created_at DESC, run_id", ())

    def active_runs(self) -> list[Run]:
        """Runs that are not over, oldest first."""
        states = ", ".join("?" * len(FINAL))
        return self._runs(f"WHERE state NOT IN ({states}) ORDER BY created_at, run_id", tuple(sorted(FINAL)))

    def beat(self, beat: MonitorBeat) -> None:
        """Record that a monitor is at work, or has ended."""
        with self._db.writing():
            self._db.execute("DELETE FROM monitors WHERE monitor = ?", (beat.monitor,))
            self._db.insert("monitors", asdict(beat))

    def monitor(self) -> MonitorBeat | None:
        """The monitor that was at work last, None if there never was one."""
        names = ", ".join(field.name for field in fields(MonitorBeat))
        with self._db.reading():
            row = self._db.execute(
                f"SELECT {names} FROM monitors ORDER BY beat_at DESC LIMIT 1"  # noqa: S608
            ).fetchone()
        return None if row is None else MonitorBeat(*row)

    def pending(self, plan_hash: str) -> Run | None:
        """A run of this plan whose first launch was recorded and never confirmed."""
        where = "WHERE plan_hash = ? AND state = 'queued' ORDER BY created_at DESC"
        found = self._runs(where, (plan_hash,))
        return next(
            (run for run in found if run.attempts[-1].backend_id is None and len(run.attempts) == 1), None
        )

    def events(self, run_id: str) -> list[RunEvent]:
        """History of a run, oldest first."""
        with self._db.reading():
            rows = self._db.execute(
                "SELECT at, kind, state, reason, attempt FROM events WHERE run_id = ? ORDER BY event",
                (run_id,),
            )
            return [RunEvent(*row) for row in rows]

    def _insert_attempt(self, run_id: str, attempt: Attempt) -> None:
        self._db.insert("attempts", {"run_id": run_id, **asdict(attempt)})

    def _update_attempt(self, run_id: str, attempt: Attempt) -> None:
        row = asdict(attempt)
        settings = ", ".join(f"{name} = ?" for name in _CHANGING)
        self._db.execute(
            f"UPDATE attempts SET {_SET_PRICE}, {settings} WHERE run_id = ? AND attempt = ?",  # noqa: S608
            (attempt.micro_usd_per_hour, *(row[name] for name in _CHANGING), run_id, attempt.attempt),
        )

    def _log(self, run_id: str, at: str, kind: str, state: RunState, reason: str, attempt: int) -> None:
        row = {"run_id": run_id, "at": at, "kind": kind, "state": state, "reason": reason, "attempt": attempt}
        self._db.insert("events", row)

    def _runs(self, where: str, values: tuple[object, ...]) -> list[Run]:
        """Runs with their attempts, from one consistent view of the file."""
        columns = ", ".join(("run_id", *_ATTEMPT_COLUMNS))
        with self._db.reading():
            found = self._db.execute(f"{_RUN_QUERY} {where}", values)
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found]
            one = (rows[0]["run_id"],) if len(rows) == 1 else ()
            only = "WHERE run_id = ?" if one else ""
            attempts = self._db.execute(
                f"SELECT {columns} FROM attempts {only} ORDER BY run_id, attempt",  # noqa: S608
                one,
            ).fetchall()
        return runs_of(rows, attempts)


def _since(run: Run, change: Change) -> str:
    """When the state began: a new one not before the one that it follows, nor later than it was seen."""
    if run.state == change.state:
        return run.state_since_at
    return min(max(change.began_at or change.observed_at, run.state_since_at), change.observed_at)
