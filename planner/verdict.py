"""What the evidence says of a run's newest attempt: its state, why, and how it went. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.progress import Progress
from planner.runs import Outcome, Run, RunState
from providers.launcher import BackendStatus

_DONE, _PREEMPTED, _PREEMPTED_UNSAVED, _CAPPED, _REGRESSED = 0, 75, 76, 77, 79
_KILLED = {129: "SIGHUP", 130: "SIGINT", 137: "SIGKILL (by hand, or out of memory)", 143: "SIGTERM"}
_CODES = {"capped": _CAPPED, "preempted": _PREEMPTED, "regressed": _REGRESSED}
_LAST_WORDS = {"done": _DONE, "capped": _CAPPED, "regressed": _REGRESSED}
_SYNCING = ("saving", "syncing")
_PASSING: dict[str, RunState] = {
    "queued": "queued",
    "provisioning": "provisioning",
    "recovering": "recovering",
    "releasing": "running",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the evidence says of the newest attempt."""

    state: RunState
    reason: str
    outcome: Outcome


def judge(run: Run, status: BackendStatus, progress: Progress | None) -> Verdict:
    """State, reason and outcome of the newest attempt from the evidence.

    Args:
        run: As the ledger has it.
        status: What the backend says now.
        progress: What this attempt's worker last said.
    """
    if status.state == "unknown" and status.ended_at is None and run.state != "cancelling":
        return Verdict("unknown", status.reason, "running")
    if status.attempt < run.launches:
        return _not_started(run, status)
    if status.ended_at is None:
        return _under_way(run, status, progress)
    if (status.stopped_by == "cancel" or run.state == "cancelling") and status.exit_code != _DONE:
        saved = _saved(status, progress)
        return _stopped(run, "after a committed checkpoint" if saved else "without a new checkpoint")
    if status.refused and _is_started_again(run):
        had_some = status.started_at is not None
        return Verdict("preempted", status.reason, "preempted" if had_some else "stock_out")
    if status.state == "vanished" and not _had_finished(progress):
        return Verdict("preempted", status.reason, "preempted")
    if status.stopped_by == "max_duration" and status.exit_code != _DONE:
        told = progress is not None and progress.state == "capped"  # it was only slow to leave
        said = progress.exit_reason if progress is not None and told else None
        return Verdict("capped", said or "the machine reached its maximum duration or cap", "capped")
    return _ended(status, progress)


def _had_finished(progress: Progress | None) -> bool:
    """Whether the worker had said how it ended before its machine was gone, with nothing left to go on with."""
    return progress is not None and progress.state in _LAST_WORDS


def _is_started_again(run: Run) -> bool:
    """Whether somebody asks for machines again by itself: the monitor, or the policy that moves it."""
    return run.terms.monitor == "service" or run.terms.moving_json is not None


def _not_started(run: Run, status: BackendStatus) -> Verdict:
    """The backend has not heard of the newest attempt."""
    if run.state == "cancelling":
        heard = run.current.backend_id is not None or run.current.started_at is not None
        if not heard and (status.state == "absent" or status.ended_at is not None):
            return _stopped(run, "before it was started")
        return Verdict("cancelling", run.state_reason, "running")  # what it has forgotten may come back
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
        code = (_LAST_WORDS if status.state == "vanished" else _CODES).get(progress.state)
    if code == _DONE:
        return Verdict("succeeded", said, "done")
    if code == _REGRESSED:
        return Verdict("failed", f"regressed: {said or 'the guard was not kept'}", "failed")
    if code == _CAPPED:
        return Verdict("capped", said or "cap or time limit reached", "capped")
    if code in (_PREEMPTED, _PREEMPTED_UNSAVED):
        saved = "after a committed checkpoint" if code == _PREEMPTED else "without a new checkpoint"
        return Verdict("preempted", f"stopped {saved}: {said or 'told to stop'}", "preempted")
    if code in _KILLED:
        return Verdict("preempted", f"worker killed by {_KILLED[code]}", "preempted")
    return Verdict("failed", said or status.reason or f"worker ended with exit code {code}", "failed")


def _stopped(run: Run, how: str) -> Verdict:
    """Ended because it was asked to: by the user, at a limit, or to go on elsewhere."""
    if run.stopping == "limit":
        return Verdict("capped", f"{run.state_reason}, {how}", "capped")
    if run.stopping == "move":
        return Verdict("preempted", f"{run.state_reason}, {how}", "cancelled")
    return Verdict("cancelled", f"cancelled by the user, {how}", "cancelled")


def _saved(status: BackendStatus, progress: Progress | None) -> bool:
    """Whether the last step done is in a committed checkpoint, as far as anybody knows."""
    if (
        status.exit_code is not None and status.exit_code != _CAPPED
    ):  # which says nothing of what was committed
        return status.exit_code == _PREEMPTED
    last = None if progress is None else progress.last_checkpoint
    return progress is not None and last is not None and last.step >= progress.step > 0
