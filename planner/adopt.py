"""Takes a run into this ledger that it does not know: its own that was lost, or another ledger's.

The record in the run's prefix says what it was launched with and what each attempt cost; the backend says what its
machines do now, and the object store how far the training is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from jobs.committed import read_head
from jobs.progress import Progress, read_progress
from planner.adoption_book import AdoptionBook
from planner.launch import Desk
from planner.ledger import cost_micro_usd
from planner.ledger_identity import identity_of
from planner.monitor import observe, was_let_go
from planner.record import Record, claim, is_own, read_record
from planner.register import take
from planner.runs import Attempt, Outcome, Run, RunState, seconds_between
from planner.store import Change, Store
from providers.errors import StorageError, TuneplanError, UsageError
from providers.launcher import BackendStatus
from providers.object_store import ObjectStore
from providers.stores import open_store

#: A worker that its backend does not know and that has said nothing for so long is taken for lost.
SILENT_S = 300.0
#: An adoption takes seconds; one that was begun so long ago has died.
_CUT_OFF_S = 120.0
_SAID: dict[str, tuple[RunState, Outcome]] = {
    "done": ("succeeded", "done"),
    "failed": ("failed", "failed"),
    "capped": ("capped", "capped"),
    "preempted": ("preempted", "preempted"),
}


def adopt(desk: Desk, store: ObjectStore) -> Run:
    """Make the run of a prefix this ledger's own, and bring it up to date; if it was cut off a monitor goes on with it.

    Args:
        desk: With the launcher of the run.
        store: The run's prefix.

    Raises:
        UsageError: There is no record, or the ledger knows the run and has not let it go.
        StorageError, CorruptDataError: The record cannot be read or written.
    """
    with AdoptionBook(desk.store.path) as book:
        is_resumed = store.uri in book.begun()
        book.begin(store.uri, desk.now())
        try:
            run = _adopted(desk, store, is_resumed=is_resumed)
        except UsageError:
            book.end(store.uri)
            raise
        book.end(store.uri)
    return run


def finish(desk_of: Callable[[str], Desk], desk: Desk, tell: Callable[[str], None]) -> None:
    """Go on with adoptions that were cut off; trouble with one is told and tried again at the next call.

    One that had not got as far as the run's record is left: its owner watches it as before.

    Args:
        desk_of: Ledger and launcher for an infra.
        desk: Any desk of the same ledger.
        tell: Gets a line for each.
    """
    for uri in cut_off(desk.store, desk.now()):
        try:
            store = open_store(uri)
            record = read_record(store)
            if record is None or not is_own(record, identity_of(desk.store.path)):
                _leave(desk, record, uri)
                continue
            run = adopt(desk_of(record.run.terms.infra), store)
            tell(f"{run.run_id}: {run.state}, its adoption had been cut off")
        except TuneplanError as error:
            tell(f"adoption of {uri}: {error.message}")


def _leave(desk: Desk, record: Record | None, uri: str) -> None:
    """Let its owner have a run whose record was not ours yet, or is not any more: it is watched there."""
    if record is not None:
        _take_id(desk, record.run, record.ledger)
    with AdoptionBook(desk.store.path) as book:
        book.end(uri)


def cut_off(store: Store, now: str) -> list[str]:
    """Prefixes whose adoption was begun a while ago and has not ended."""
    with AdoptionBook(store.path) as book:
        return [uri for uri, at in book.begun().items() if seconds_between(at, now) >= _CUT_OFF_S]


def _adopted(desk: Desk, store: ObjectStore, *, is_resumed: bool) -> Run:
    token = identity_of(desk.store.path).token
    found = read_record(store)
    if found is not None:  # first, so that the former owner does not book the end of what it only lets go
        _take_id(desk, found.run, token)
    record = claim(store, token, desk.now())
    run = record.run
    _take_id(desk, run, token)
    status = desk.launcher.status(run.run_id)
    run = _with_later_launches(run, status, desk.now())
    how = f"adopted from {store.uri}, as of {record.written_at}"
    if not desk.store.adopt(run, how, desk.now()):
        _take_back(desk, run, how, is_resumed=is_resumed)
    run = desk.store.find(run.run_id)
    if status.attempt < run.launches and status.state == "absent" and not run.final:
        return _settled(desk, run, store)
    return observe(desk.store, desk.launcher, run, desk.now())


def _take_id(desk: Desk, run: Run, token: str) -> None:
    """Make its id in the register that ledger's."""
    terms = run.terms
    if terms.register_uri is not None:
        take(open_store(terms.register_uri), run.run_id, terms.project, terms.owner, token, desk.now())


def check_place(record: Record, uri: str) -> None:
    """Refuse a prefix that the record was copied to: its worker would go on writing to the first one.

    Raises:
        UsageError: It is another place than the run's own.
    """
    own = record.run.terms.checkpoint_uri
    if own.partition("?")[0].rstrip("/") != uri.partition("?")[0].rstrip("/"):
        raise UsageError(
            f"the run of this record keeps its checkpoints in {own}",
            hint=f"plan runs adopt '{own}'",
            path=uri,
        )


def _take_back(desk: Desk, run: Run, how: str, *, is_resumed: bool) -> None:
    """Go on with a run that this ledger had let go, as its record has it; any other that it knows is refused.

    One whose adoption was cut off after it was recorded here is as it should be.
    """
    known = desk.store.find(run.run_id)
    if not was_let_go(desk.store, known):
        if is_resumed:
            return
        raise UsageError(f"this ledger knows run {run.run_id} already", hint=f"`plan status {run.run_id}`")
    newer = tuple(one for one in known.attempts if one.attempt > run.current.attempt)
    ours = replace(run, attempts=(*run.attempts, *newer), revision=known.revision + 1)
    desk.store.adopt(ours, how, desk.now(), instead=known)


def _with_later_launches(run: Run, status: BackendStatus, now: str) -> Run:
    """With attempts that the backend knows and the record does not: its last write was lost."""
    attempts = list(run.attempts)
    for _ in range(run.launches, status.attempt):
        last = attempts[-1]
        at = status.started_at or now
        attempts[-1] = replace(last, ended_at=last.ended_at or (at if last.started_at else None))
        attempts.append(Attempt(last.attempt + 1, last.offer_json, last.micro_usd_per_hour, at))
    if len(attempts) == len(run.attempts):
        return run
    return replace(run, state="queued", state_reason="found at its backend", attempts=tuple(attempts))


def _settled(desk: Desk, run: Run, store: ObjectStore) -> Run:
    """The end of a run whose backend knows nothing of it any more, from what its worker said last."""
    progress, now = read_progress(store), desk.now()
    if progress is None:  # it never got as far as its worker
        return run
    ending = _ending(progress, store, now)
    if ending is None:
        return run
    (state, outcome), reason = ending
    change = Change(
        state,
        reason,
        _ended(run.current, progress, outcome),
        now,
        progress_json=progress.to_json(),
        kind="adopt",
    )
    desk.store.apply(run, change)
    return desk.store.find(run.run_id)


def _ending(progress: Progress, store: ObjectStore, now: str) -> tuple[tuple[RunState, Outcome], str] | None:
    """How it ended and why, None while its worker may still be at work somewhere."""
    if progress.state in _SAID:
        return _SAID[progress.state], progress.exit_reason or ""
    try:
        head = read_head(store)
    except StorageError:
        head = None
    if head is not None and head.output is not None:
        return _SAID["done"], ""
    seen_at = progress.heartbeat_at or progress.started_at
    if seen_at is not None and seconds_between(seen_at, now) < SILENT_S:
        return None
    return _SAID["preempted"], f"its machine is gone, last sign of life at {seen_at or 'an unknown time'}"


def _ended(attempt: Attempt, progress: Progress, outcome: Outcome) -> Attempt:
    """The attempt on record, over when its worker was last heard of."""
    started_at = attempt.started_at or progress.started_at
    ended_at = attempt.ended_at or progress.heartbeat_at or started_at
    if started_at is None or ended_at is None:
        return replace(attempt, outcome=outcome)
    ended_at = max(started_at, ended_at)
    return replace(
        attempt,
        started_at=started_at,
        ended_at=ended_at,
        outcome=outcome,
        cost_micro_usd=cost_micro_usd(attempt.micro_usd_per_hour, seconds_between(started_at, ended_at)),
        first_step=progress.resumed_from_step or 0,
        last_step=progress.step,
    )
