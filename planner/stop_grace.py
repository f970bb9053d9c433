"""Gives a worker on rented machines time to commit before their backend is asked to end them.

Until when it has is recorded with the stop (`Run.next_try_at`), so that whoever looks at the run goes on from there.
The worker is told through the run's prefix (`jobs.stop_request`). One that is too old to look there, or does not
answer, is ended when its time is over. On this machine the backend itself tells the worker, and waits.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from jobs.progress import Progress
from jobs.stop_request import KEY, stop_request
from planner.runs import Run, seconds_between, utc_text
from providers.errors import TuneplanError
from providers.stores import open_store

USUAL_S = 60.0
#: What is lost if it ends without a word; before, all there is lies in the last checkpoint.
_AT_WORK = frozenset({"training", "saving", "evaluating", "syncing"})
#: After these the machine only costs; who is done ends by itself, and is not taken for cancelled.
_ENDED = frozenset({"preempted", "capped", "failed"})
#: A worker says something every ten seconds; of one that is silent for so long nothing more is to be had.
_SILENT_S = 120.0
#: By so much a clock is put right now and then without anybody noticing.
_CLOCK_S = 5.0


def grace_ends_at(run: Run, now: str, grace_s: float = USUAL_S) -> str | None:
    """Until when a worker has time to commit and end, None where there is none that would hear of it.

    Args:
        run: As just observed.
        now: RFC 3339 UTC.
        grace_s: At most.
    """
    if run.terms.infra == "local" or grace_s <= 0 or run.progress_json is None or _has_no_machine(run):
        return None
    said = Progress.from_json(run.progress_json)
    silent = said.heartbeat_at is None or seconds_between(said.heartbeat_at, now) > _SILENT_S
    if said.launch != run.launches or said.state not in _AT_WORK or silent:
        return None
    return utc_text(datetime.fromisoformat(now) + timedelta(seconds=grace_s))


def told(run: Run, progress: Progress | None, now: str) -> bool:
    """Tell the worker of a run that is being stopped, while it has time; False once its backend is to be asked.

    Args:
        run: As read from the ledger.
        progress: What the worker last said.
        now: RFC 3339 UTC.
    """
    if run.next_try_at is None or run.next_try_at <= now or _has_no_machine(run):
        return False
    # a clock that was set back since would let it last so much longer
    if seconds_between(now, run.state_since_at) > _CLOCK_S:
        return False
    if progress is not None and progress.launch == run.launches and progress.state in _ENDED:
        return False
    try:
        open_store(run.terms.checkpoint_uri).put(KEY, stop_request(run.run_id, run.launches, run.launched_at))
    except TuneplanError:  # who cannot be told is not waited for
        return False
    return True


def _has_no_machine(run: Run) -> bool:
    return run.current.started_at is None or run.current.ended_at is not None
