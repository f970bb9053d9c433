"""`python -m jobs.train job.json`: trains one job here, resuming from its last committed checkpoint.

Several processes train it together when each is started with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT, as `jobs.ranks`, torchrun and `accelerate launch` do. The document is the same for any number of them,
and so are the rows of an optimizer step: `micro_batch x grad_accum x processes` of the document. Rank 0 alone
takes the run over, commits and reports; all stop at the same step with the same exit code. Checkpoints are gathered
into whole files, with the random state of every process beside them, so that a run goes on with another number of
processes: from the same rows, but then not bit by bit as it would have.

Exit codes: 0 done, 75 preempted after a committed checkpoint of the last step, 76 preempted without one (both also
where the store stayed away or another machine of the group is gone; after both, start it again), 77 stopped at the
cap or time limit, or asked to end by whoever watches the run (a person decides, or the watcher), 78 the job document
or the data is wrong, 79 done and committed, but worse on the general hold-out than the guard allows, 1 anything else,
also a newer attempt having taken over.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import MutableMapping
from contextlib import nullcontext
from pathlib import Path

from jobs import peers
from jobs.attempt import Attempt
from jobs.console import say
from jobs.fine_tune import copy_finished, fine_tune
from jobs.group import Group
from jobs.machine import keeper_directory, place
from jobs.machine import started_s as started_here_s
from jobs.notices import NoticeWatch, metadata_servers
from jobs.preemption import Stopped, StopSignal
from jobs.run_log import RunLog
from jobs.spec import JobSpec
from jobs.stop_request import heeding
from providers.errors import TuneplanError, UsageError
from providers.object_store import ObjectStore
from providers.stores import open_store

DONE, CRASHED, PREEMPTED, PREEMPTED_UNSAVED, CAPPED, BAD_JOB, REGRESSED = 0, 1, 75, 76, 77, 78, 79

_LOG_EVERY_S = 10.0
_GROWING_SEGMENTS = ("PYTORCH_ALLOC_CONF", "expandable_segments:True")
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the job that a document describes; the exit code."""
    started_s = started_here_s(keeper_directory(Path.home())) or time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m jobs.train", description="Train one job.")
    parser.add_argument("job", type=Path, help="job.json; relative paths in it start from its directory")
    parser.add_argument("--work", type=Path, help="scratch directory, default: work beside the job")
    options = parser.parse_args(arguments)
    set_defaults(os.environ)
    log = RunLog.of(os.environ)
    log.tee()
    try:
        job = JobSpec.load(options.job)
        stop = StopSignal(job.limits.priced_at(place(os.environ)), started_s)
        stop.listen()
        if job.checkpoints.hazard_per_h is not None:
            NoticeWatch(stop.take, metadata_servers())
        base = options.job.resolve().parent
        code = run(job, base, options.work or base / "work", stop, log)
        stop.ignore()
        return code
    except TuneplanError as error:
        return failed(error)
    except Stopped as stopped:  # before the run was taken over
        say(f"{stopped.kind}: {stopped.reason}")
        return _code(stopped)
    finally:
        log.close()


def set_defaults(environ: MutableMapping[str, str]) -> None:
    """Let the libraries neither chat nor phone home, unless the user said otherwise, nor waste a GPU's memory.

    Rows of many lengths leave blocks of many sizes behind, none of which fits the next: segments that grow are used
    again (notes on CUDA semantics in torch's manual).

    A process that trains alone sees one GPU: transformers would spread its batches over all, and TRL refuses that.
    """
    for name, value in _QUIET.items():
        environ.setdefault(name, value)
    if "PYTORCH_CUDA_ALLOC_CONF" not in environ:  # the older name of the same
        environ.setdefault(*_GROWING_SEGMENTS)
    if environ.get("WORLD_SIZE", "1") == "1":
        environ.setdefault("CUDA_VISIBLE_DEVICES", "0")


def run(job: JobSpec, base: Path, work: Path, stop: StopSignal, log: RunLog | None = None) -> int:
    """Train, or find that it is done.

    Args:
        job: What to do.
        base: Directory that relative paths in the job start from.
        work: Scratch directory of this machine.
        stop: Tells when to end early.
        log: What this process writes, to be kept in the store too.

    Returns:
        The exit code.

    Raises:
        TuneplanError: Before the run was taken over; later ones become exit codes.
        Stopped: Likewise.
    """
    group = Group.join(os.environ, alone=job.train.is_spread(1))
    limit = job.checkpoints.upload_limit_bytes_per_s
    if limit is not None and job.train.sharding != "none":
        limit /= group.size  # each process sends its shards
    store = open_store(job.checkpoints.uri, upload_limit_bytes_per_s=limit)
    with heeding(stop.ask, store, job) if group.leads else nullcontext():
        return _train(job, base, work, stop, log, store, group)


def _train(
    job: JobSpec,
    base: Path,
    work: Path,
    stop: StopSignal,
    log: RunLog | None,
    store: ObjectStore,
    group: Group,
) -> int:
    """An attempt in its store and group; the exit code."""
    attempt = Attempt.begin(job, base, work, store, stop, group)
    if log is not None and group.leads:
        log.attach(store, attempt.checkpoints.head.fence, every_s=_LOG_EVERY_S)
    try:
        if attempt.checkpoints.head.output is not None:
            say("this run is finished already")
            copy_finished(attempt)
            return _done(attempt, "finished by an earlier attempt")
        code = _done(attempt, fine_tune(attempt))
        group.leave()
        return code
    except Stopped as stopped:
        return _stopped(attempt, stopped)
    except Exception as error:
        try:
            return _failed(attempt, error)
        except Stopped as stopped:
            return _stopped(attempt, stopped)


def _done(attempt: Attempt, reason: str | None) -> int:
    """Say that it is done, and whether what came of it may be used."""
    guard = attempt.progress.document.guard
    if guard is None or guard.passed:
        attempt.finish("done", reason)
        return DONE
    what = f"{guard.metric} of the general hold-out went from {guard.base:.4g} to {guard.tuned:.4g}"
    attempt.finish("regressed", f"{what}, allowed is {guard.at_most_worse:g} worse")
    return REGRESSED


def _stopped(attempt: Attempt, stopped: Stopped) -> int:
    attempt.finish("capped" if stopped.kind == "capped" else "preempted", stopped.reason)
    return _code(stopped)


def _failed(attempt: Attempt, error: Exception) -> int:
    """Say why it failed, to the others of the group too; the exit code.

    Raises:
        Stopped: It is not this training that failed: a machine of the group was taken away.
    """
    known: Exception = _out_of_memory(error) or error
    fence = attempt.checkpoints.head.fence
    if attempt.group.size > 1 and peers.is_lost(error):
        told = peers.failure(attempt.store, fence, attempt.stop)
        if told is None:
            raise Stopped("preempted", peers.LOST, committed=attempt.is_committed()) from error
        known = told
    elif attempt.group.size > 1:
        peers.tell(attempt.store, fence, attempt.group.rank, _text(known))
    attempt.finish("failed", _text(known))
    return failed(known)


def _code(stopped: Stopped) -> int:
    if stopped.kind in ("capped", "asked"):
        return CAPPED
    return PREEMPTED if stopped.committed else PREEMPTED_UNSAVED


def failed(error: Exception) -> int:
    """Tell of an error on stderr; the exit code."""
    if isinstance(error, TuneplanError):
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
    else:
        traceback.print_exception(error)
    return BAD_JOB if isinstance(error, UsageError) else CRASHED


def _out_of_memory(error: Exception) -> TuneplanError | None:
    """The error of a GPU that is too small, in our words; told by its name, as torch may not be loaded."""
    if type(error).__name__ != "OutOfMemoryError":
        return None
    hint = "lower train.micro_batch or train.sequence_length, or take a larger GPU"
    return TuneplanError(f"out of GPU memory: {error}"[:500], hint=hint, code="oom")


def _text(error: Exception) -> str:
    return error.message if isinstance(error, TuneplanError) else f"{type(error).__name__}: {error}"[:500]


if __name__ == "__main__":
    sys.exit(main())
