"""Compares the ledger with what the backend and the worker say, and brings it up to date.

`decide` is pure; `observe` reads the outside world, asks `decide`, and writes only if nobody else wrote
meanwhile. It may run any number of times, in any number of processes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from jobs.progress import Progress, read_progress
from planner import rented
from planner.ledger import cost_micro_usd
from planner.money import micro_usd
from planner.offer_document import offer_document
from planner.runs import Attempt, Outcome, Run, RunState, seconds_between
from planner.store import Change, Store
from providers.errors import StorageError, TuneplanError
from providers.launcher import BackendStatus, Launcher
from providers.stores import open_store

_ROUNDS = 8
_DONE, _PREEMPTED, _PREEMPTED_UNSAVED, _CAPPED = 0, 75, 76, 77
_KILLED = {129: "SIGHUP", 130: "SIGINT", 137: "SIGKILL (by hand, or out of memory)", 143: "SIGTERM"}
_CODES = {"capped": _CAPPED, "preempted": _PREEMPTED}
_SYNCING = ("saving", "syncing")
_PASSING: dict[str, RunState] = {
    "queued": "queued",
    "provisioning": "provisioning",
    "recovering": "recovering",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence says of the newest attempt."""

    state: RunState
    reason: str
    outcome: Outcome


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
    for _ in range(_ROUNDS):
        if run.final:
            return run
        if run.state == "cancelling":
            launcher.cancel(
                run.run_id
            )  # again: whoever asked may have been killed before the backend heard it
        status = launcher.status(run.run_id)
        change = decide(run, status, _progress_of(run), now)
        if change is None or store.apply(run, change):
            return store.get(run.run_id) or run
        run = store.get(run.run_id) or run
    return run


def decide(run: Run, status: BackendStatus, progress: Progress | None, now: str) -> Change | None:
    """What to write down; None if the ledger says all there is.

    Args:
        run: As the ledger has it.
        status: What the backend says now.
        progress: What the worker last said, of any attempt.
        now: RFC 3339 UTC.
    """
    if run.final or (run.current.ended_at is not None and run.state != "unknown"):
        return None
    own = progress if progress is not None and _is_of_attempt(progress, status) else None
    verdict = judge(run, status, own)
    attempt = _attempt_now(_on_machine(run, status), status, own, verdict, now)
    progress_json = None if progress is None else progress.to_json()
    return Change(verdict.state, verdict.reason, attempt, now, progress_json=progress_json)


def judge(run: Run, status: BackendStatus, progress: Progress | None) -> Verdict:
    """State, reason and outcome of the newest attempt from the evidence.

    Args:
        run: As the ledger has it.
        status: What the backend says now.
        progress: What this attempt's worker last said.
    """
    if status.attempt < run.current.attempt:
        return _not_started(run)
    if status.ended_at is None:
        return _under_way(run, status, progress)
    if (status.stopped_by == "cancel" or run.state == "cancelling") and status.exit_code != _DONE:
        return Verdict("cancelled", _cancelled_reason(status.exit_code), "cancelled")
    if status.state == "vanished":
        return Verdict("preempted", status.reason, "preempted")
    if status.stopped_by == "max_duration" and status.exit_code != _DONE:
        return Verdict("capped", "the machine reached its maximum duration or cap", "capped")
    return _ended(status, progress)


def _not_started(run: Run) -> Verdict:
    """The backend has not heard of the newest attempt."""
    if run.current.started_at is not None:
        return Verdict("unknown", "the backend knows nothing of this run any more", "running")
    return Verdict("queued", "asked for, not confirmed; `plan resume` asks again", "running")


def _under_way(run: Run, status: BackendStatus, progress: Progress | None) -> Verdict:
    if run.state == "cancelling":
        return Verdict("cancelling", run.state_reason, "running")
    if status.state != "running":
        return Verdict(_PASSING.get(status.state, "unknown"), status.reason, "running")
    stage = "starting" if progress is None else progress.state.replace("_", " ")
    syncing = progress is not None and progress.state in _SYNCING
    return Verdict("syncing" if syncing else "running", stage, "running")


def _ended(status: BackendStatus, progress: Progress | None) -> Verdict:
    """Exit codes of `jobs.train`, or the signal that ended it."""
    said = progress.exit_reason if progress is not None and progress.exit_reason else ""
    code = status.exit_code
    if code is None and progress is not None:  # a backend that does not tell
        code = _CODES.get(progress.state)
    if code == _DONE:
        return Verdict("succeeded", "", "done")
    if code == _CAPPED:
        return Verdict("capped", said or "cap or time limit reached", "capped")
    if code in (_PREEMPTED, _PREEMPTED_UNSAVED):
        saved = "after a committed checkpoint" if code == _PREEMPTED else "without a new checkpoint"
        return Verdict("preempted", f"stopped {saved}: {said or 'told to stop'}", "preempted")
    if code in _KILLED:
        return Verdict("preempted", f"worker killed by {_KILLED[code]}", "preempted")
    return Verdict("failed", said or status.reason or f"worker ended with exit code {code}", "failed")


def _cancelled_reason(exit_code: int | None) -> str:
    saved = exit_code == _PREEMPTED
    return "cancelled by the user, " + (
        "after a committed checkpoint" if saved else "without a new checkpoint"
    )


def _attempt_now(
    attempt: Attempt, status: BackendStatus, progress: Progress | None, verdict: Verdict, now: str
) -> Attempt:
    """The attempt with what is known of it now; its cost runs up to its end, or up to now."""
    if status.attempt < attempt.attempt:
        return attempt
    started_at = attempt.started_at or status.started_at
    ended_at = status.ended_at
    if started_at is not None and ended_at is not None:
        ended_at = max(started_at, ended_at)
    seconds = 0.0 if started_at is None else seconds_between(started_at, ended_at or now)
    first, last = _steps(attempt, progress)
    return replace(
        attempt,
        backend_id=status.backend_id,
        started_at=started_at,
        ended_at=ended_at,
        outcome=verdict.outcome,
        first_step=first,
        last_step=last,
        exit_code=status.exit_code,
        cost_micro_usd=cost_micro_usd(attempt.micro_usd_per_hour, seconds),
    )


def _on_machine(run: Run, status: BackendStatus) -> Attempt:
    """The attempt with the machine that the backend got, of those that were asked for, and its price."""
    candidate = json.loads(run.terms.candidate_json)
    got = rented.machine_got(candidate, status.offer)
    if got is None or run.current.started_at is not None:  # its price is fixed once it has started
        return run.current
    price = got.price_usd_per_hour
    micro = None if price is None else micro_usd(price) * candidate["nodes"]
    return replace(run.current, offer_json=json.dumps(offer_document(got)), micro_usd_per_hour=micro)


def _steps(attempt: Attempt, progress: Progress | None) -> tuple[int | None, int | None]:
    """First and last step; a worker that has not restored its checkpoint yet says nothing of them."""
    if progress is None or progress.state in ("starting", "loading"):
        return attempt.first_step, attempt.last_step
    return progress.resumed_from_step or 0, max(progress.step, attempt.last_step or 0)


def _is_of_attempt(progress: Progress, status: BackendStatus) -> bool:
    """Whether the document was written by the attempt that the backend speaks of."""
    if progress.started_at is None or status.started_at is None:
        return False
    return progress.started_at >= status.started_at


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
