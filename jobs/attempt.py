"""One attempt at a run: who owns it, where it writes, how far it is."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from jobs.checkpoint import CheckpointStore
from jobs.console import mute, say
from jobs.group import ALONE, Group
from jobs.patience import Patience, insist
from jobs.preemption import Stopped, StopSignal
from jobs.progress import (
    Progress,
    ProgressWriter,
    SilentProgress,
    StageClock,
    WorkerState,
    read_progress,
    utc_now,
)
from jobs.spec import JobSpec
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore

_LOCAL_BEAT_S = 2.0
_REMOTE_BEAT_S = 10.0
_HURRY_S = 20.0
#: Below the scratch directory: the checkpoint that training goes on from.
RESTORED = "restored"
_OVER: tuple[WorkerState, ...] = ("done", "regressed", "failed")

T = TypeVar("T")

# What an attempt takes over from the one before it, and what more if that one finished the training.
_STANDING = ("last_checkpoint", "lost_steps", "max_steps")
_RESULT = (
    *_STANDING,
    *("step", "loss", "metrics", "guard", "output_manifest_sha256", "output_step"),
    *("tokens_per_s_total", "step_time_s"),
    *("tokens_trained", "tokens_padded", "peak_memory_gib", "host_rss_gib", "stage_seconds"),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What every stage needs.

    Attributes:
        base: Directory that relative paths in the job start from.
        work: Scratch directory of this attempt: another one may still live on the same disk.
        checkpoints: Owned by the process that leads; the others only read from it.
        earlier: What the attempt before this one last said, None if this is the first.
        group: The processes that train together.
    """

    job: JobSpec
    base: Path
    work: Path
    store: ObjectStore
    stop: StopSignal
    checkpoints: CheckpointStore
    progress: ProgressWriter | SilentProgress
    clock: StageClock
    earlier: Progress | None
    group: Group = ALONE

    @classmethod
    def begin(
        cls, job: JobSpec, base: Path, work: Path, store: ObjectStore, stop: StopSignal, group: Group = ALONE
    ) -> Attempt:
        """Take the run over from an earlier attempt, if there was one, and say so.

        Raises:
            StorageError: The store or the scratch directory cannot be used, or HEAD is damaged.
            Stopped: The store stayed away, or a limit was reached while it was.
        """
        if not group.leads:
            mute()
        earlier = group.share(insist(lambda: _earlier(store), stop) if group.leads else None)
        checkpoints = CheckpointStore(store, job.run_id, keep=job.checkpoints.keep)
        mine = insist(checkpoints.take_over, stop) if group.leads else checkpoints.head
        head = checkpoints.head = group.share(mine)
        own = work / f"attempt-{head.fence}"
        if group.leads_machine:  # only now: an earlier attempt can no longer commit what is deleted
            _prepare(work, own)
        group.wait()
        interval_s = _LOCAL_BEAT_S if store.uri.startswith("file:") else _REMOTE_BEAT_S
        if earlier is not None and earlier.launch == job.limits.launch:
            stop.carry_over(earlier.cost_usd, interval_s)
        first = Progress(
            job.run_id,
            head.fence,
            started_at=utc_now(),
            pid=os.getpid(),
            launch=job.limits.launch,
            cost_usd=stop.cost_usd(),
        )
        if earlier is not None:
            names = _RESULT if head.output else _STANDING
            first = replace(first, **{name: getattr(earlier, name) for name in names})
        if head.output is not None:  # the attempt that committed it may have died before it said so
            first = replace(first, output_manifest_sha256=head.output.sha256)
        say(f"run {job.run_id}, attempt {head.fence}, checkpoints in {store.uri}")
        progress: ProgressWriter | SilentProgress = SilentProgress(first)
        if group.leads:
            progress = ProgressWriter(first, work / "progress.json", store, interval_s=interval_s)
        return cls(job, base, own, store, stop, checkpoints, progress, StageClock(), earlier, group)

    @contextmanager
    def stage(self, name: str, state: WorkerState | None = None) -> Iterator[None]:
        """Name, time and report a stage; a stop asked for is obeyed before it."""
        self.check()
        if state is not None:
            self.progress.update(state=state)
        try:
            with self.clock.stage(name):
                yield
        finally:
            self.progress.update(stage_seconds=dict(self.clock.seconds))

    def check(self) -> None:
        """Obey a stop.

        Raises:
            Stopped: The machine is being taken away, or a limit is reached.
        """
        reason = self.group.first(self.stop.reason())
        if reason is not None:
            raise Stopped(*reason, committed=self.group.share(self.is_committed()))

    def insist(self, act: Callable[[], T]) -> T:
        """Do something with the store, waiting while it is away; `act` may be done twice.

        Raises:
            Stopped: It stayed away, or the worker was told to end meanwhile.
        """
        return insist(act, self.stop, committed=self.is_committed())

    def finish(self, state: WorkerState, reason: str | None) -> None:
        """Say how it ended, and clean up."""
        say(state if reason is None else f"{state}: {reason}")
        self.progress.update(state=state, exit_reason=reason, stage_seconds=dict(self.clock.seconds))
        patience = Patience(self.stop) if state in _OVER else Patience(limit_s=_HURRY_S)
        self.progress.close(patience.wait)
        if self.group.leads_machine:
            shutil.rmtree(self.work, ignore_errors=True)

    def is_committed(self) -> bool:
        """Whether the last step done is in a committed checkpoint."""
        newest = self.checkpoints.head.newest
        return newest is not None and newest.step >= self.progress.document.step


def _prepare(work: Path, own: Path) -> None:
    """A scratch directory of this attempt's own; those of attempts that are dead go.

    What one of them had restored, perhaps in part, is taken over: files that are whole are not downloaded again.
    """
    try:
        own.mkdir(parents=True)
        _hold(own)
        for old in work.glob("attempt-*"):
            if (held := _hold(old)) is not None:
                with suppress(OSError):  # there is none, or there is one already
                    (old / RESTORED).rename(own / RESTORED)
                shutil.rmtree(old, ignore_errors=True)
                os.close(held)
    except OSError as error:
        raise StorageError(f"cannot use the scratch directory {work}: {error}") from error


def _hold(directory: Path) -> int | None:
    """Lock a directory until this process ends, also by kill -9; None if another process holds it."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _earlier(store: ObjectStore) -> Progress | None:
    try:
        return read_progress(store)
    except CorruptDataError as error:
        say(f"what the attempt before said is lost: {error.message}")
        return None
