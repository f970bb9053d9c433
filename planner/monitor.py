"""Compares the ledger with what the backend and the worker say, and brings it up to date.

`decide` is pure; `observe` reads the outside world, asks `decide`, and writes only if nobody else wrote
meanwhile. It may run any number of times, in any number of processes.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from jobs.progress import Progress, read_progress
from planner import lease
from planner.launch_lock import is_launching
from planner.ledger_identity import identity_of
from planner.limits import cap_warning, deadline_passed, hopeless, late_start, limit_grace_s, limit_reached
from planner.machines import attempts_now, newest_start
from planner.places import Places
from planner.record import OtherLedgerError, keep
from planner.runs import FINAL, WAITING, WORKING, Attempt, Run, utc_text
from planner.stop_grace import grace_ends_at, told
from planner.store import Change, Store
from planner.verdict import Verdict, judge
from providers.errors import StorageError, TuneplanError
from providers.launcher import BackendStatus, Launcher
from providers.stores import open_store

_ROUNDS = 8


def observe(store: Store, launcher: Launcher, run: Run, now: str) -> Run:
    """Bring one run up to date and return it.

    Args:
        store: The ledger.
        launcher: The run's backend.
        run: As read from the ledger.
        now: RFC 3339 UTC.

    Raises:
        StorageError: The ledger cannot be written.
    """
    run = _reminded(store, run, now)
    for _ in range(_ROUNDS):
        if run.final:
            return run
        # asked before the backend is: what it does not know while nobody launches it will not come
        launching = run.state == "cancelling" and _is_being_launched(store, run)
        status = _asked(launcher, run, now)
        if launching and status.attempt < run.launches:
            return run  # who launches it finds the stop in the ledger
        change = decide(run, status, _progress_of(run), now)
        if change is None:
            return store.get(run.run_id) or run
        if store.apply(run, change):
            return _recorded(store, run, store.get(run.run_id) or run, now)
        run = store.get(run.run_id) or run
    return run


def _asked(launcher: Launcher, run: Run, now: str) -> BackendStatus:
    """What the backend says, once it has been asked to end what shall end and has had its time."""
    status = launcher.status(run.run_id)
    heard = status.ended_at is not None or status.stopped_by is not None
    if run.state != "cancelling" or heard or told(run, _progress_of(run), now):
        return status
    return launcher.cancel(
        run.run_id
    )  # again: whoever asked may have been killed before the backend heard it


def _is_being_launched(store: Store, run: Run) -> bool:
    return run.current.backend_id is None and is_launching(Places(store.path.parent), run.run_id)


def _reminded(store: Store, run: Run, now: str) -> Run:
    """With the stop that its state had lost: a backend that knew nothing of the run once did that."""
    if run.stopping is None or run.state in ("cancelling", "preempted") or run.final:
        return run
    asked = [event.reason for event in store.events(run.run_id) if event.kind == "stop"]
    store.ask_stop(run, run.stopping, asked[-1] if asked else run.state_reason, now)
    return store.get(run.run_id) or run


def _recorded(store: Store, before: Run, run: Run, now: str) -> Run:
    """The run, once a change that matters is in its record; one that another ledger has adopted is let go."""
    if _gist(before) == _gist(run):
        return run
    return keep_record(store, run, now)


def keep_record(store: Store, run: Run, now: str, *, create: bool = False) -> Run:
    """Bring the record in the run's prefix up to date.

    Returns:
        The run; cancelled if another ledger has adopted it, which does not touch its machines.

    Raises:
        StorageError: The ledger cannot be written; a record that cannot be is told in the run's history.
    """
    ledger = identity_of(store.path)
    try:
        keep(open_store(run.terms.checkpoint_uri), ledger, lambda: store.get(run.run_id), now, create=create)
    except OtherLedgerError as error:
        return _let_go(store, run, error, now)
    except (StorageError, TuneplanError) as error:
        store.note(run, "record", f"the run's record cannot be written: {error.message}", now)
    return run


def _let_go(store: Store, run: Run, error: OtherLedgerError, now: str) -> Run:
    """The run, which another ledger has, as over here; whoever looked at it meanwhile."""
    found: Run | None = run
    while found is not None and not found.final:
        run = found
        ended = replace(run.current, outcome="cancelled")
        store.apply(run, Change("cancelled", error.message, ended, now, kind="adopted"))
        found = store.get(run.run_id)
    return found or run


def was_let_go(store: Store, run: Run) -> bool:
    """Whether a run is over here only because another ledger has it; its machines may go on."""
    last = [event.kind for event in store.events(run.run_id) if event.reason == run.state_reason]
    return run.final and last[-1:] == ["adopted"]


def _gist(run: Run) -> tuple[object, ...]:
    """What the record must not miss: states and machines, not how costs grow while one runs."""
    machines = [(attempt.started_at, attempt.ended_at, attempt.backend_id) for attempt in run.attempts]
    return run.state, run.state_reason if run.final else None, machines


def tend(store: Store, launcher: Launcher, run: Run, now: str) -> Run:
    """Bring one run up to date, warn of cap and deadline, and ask it to checkpoint and end before it passes a limit.

    Raises:
        StorageError: The ledger cannot be written.
    """
    leased = lease.is_due(run, now)
    run = observe(store, launcher, run, now)
    if leased and not run.final:
        lease.renew(run, now)
    warning = cap_warning(run)
    if warning is not None:
        store.note(run, "cap_warning", warning, now)
    late = late_start(run, now) or deadline_passed(run, now)
    if late is not None:
        store.note(run, "deadline", late, now)
    over = run.final or run.state == "cancelling"
    reached = None if over else limit_reached(run, now) or hopeless(run, now)
    if reached is None:
        return run
    store.ask_stop(run, "limit", reached, now, next_try_at=grace_ends_at(run, now, limit_grace_s(run)))
    return observe(store, launcher, store.get(run.run_id) or run, now)


def decide(run: Run, status: BackendStatus, progress: Progress | None, now: str) -> Change | None:
    """What to write down; None if the ledger says all there is.

    Args:
        run: As the ledger has it.
        status: What the backend says now.
        progress: What the worker last said, of any attempt.
        now: RFC 3339 UTC.
    """
    if run.final or run.resting:
        return None
    started_at = newest_start(run, status)
    own = progress if progress is not None and _is_since(progress, started_at) else None
    verdict = judge(run, status, own)
    attempt, *opened = attempts_now(run, status, own, verdict.outcome, now)
    progress_json = None if progress is None else progress.to_json()
    return Change(
        verdict.state,
        verdict.reason,
        attempt,
        now,
        progress_json=progress_json,
        next_try_at=_next_try(run, verdict, status, now),
        kind="refused" if verdict.outcome == "stock_out" else "observed",
        began_at=_began_at(run, verdict, opened[-1] if opened else attempt),
        opened=tuple(opened),
    )


def _began_at(run: Run, verdict: Verdict, newest: Attempt) -> str | None:
    """When a state began that nobody need have seen begin; None if it is not told."""
    if verdict.state in FINAL or verdict.state == "preempted":
        return newest.ended_at
    if verdict.state in WORKING and run.state not in (*WORKING, "unknown"):
        return newest.started_at
    return None


def _next_try(run: Run, verdict: Verdict, status: BackendStatus, now: str) -> str | None:
    """When something is tried next at the latest: as it was told, until that has passed or something has changed."""
    said = run.next_try_at
    if said is not None and said > now and (run.state, run.state_reason) == (verdict.state, verdict.reason):
        return said
    if status.retry_within_s is None or verdict.state not in WAITING:
        return None
    return utc_text(datetime.fromisoformat(now) + timedelta(seconds=status.retry_within_s))


def _is_since(progress: Progress, started_at: str | None) -> bool:
    """Whether the document was written on the newest machines."""
    return progress.started_at is not None and started_at is not None and progress.started_at >= started_at


def _progress_of(run: Run) -> Progress | None:
    """The worker's document; what cannot be read now is read next time."""
    try:
        return read_progress(open_store(run.terms.checkpoint_uri))
    except (StorageError, TuneplanError):
        return None


def lost_steps(run: Run) -> int:
    """Steps that were computed and had to be computed again, over all attempts."""
    worked = [attempt for attempt in run.attempts if attempt.first_step is not None]
    reached = 0
    lost = 0
    for attempt in worked:
        lost += max(reached - (attempt.first_step or 0), 0)
        reached = max(attempt.last_step or 0, attempt.first_step or 0)
    return lost
