"""What happens at the borders of a training step: count, report, save, stop."""

from __future__ import annotations

import math
import resource
import shutil
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.console import duration, say
from jobs.group import ALONE, Group
from jobs.interval import hazard_now_per_s, interval_s
from jobs.parts import PartSender
from jobs.preemption import StopKind, StopSignal
from jobs.progress import PeakMemory, ProgressWriter, SilentProgress, StepTimes
from jobs.spec import CheckpointsJob
from jobs.training import Counter
from jobs.uploader import Uploader
from providers.errors import TuneplanError

_DEFAULT_EVERY_S = 600.0
_RECENT_STEPS = 512
_SAY_EVERY_S = 5.0
_ETA_STEPS = 50
_LAST_STEPS = 8
_GIB = 1 << 30
_NOT_FINITE_HINT = "lower the learning rate, or check the data for empty answers"


class Pulse:
    """The hooks of one training, free of the trainer's own types.

    Args:
        every: When to save.
        stop: Asked at each step.
        progress: Told of each step.
        uploader: Receives each saved directory; None in a process that has no part in it.
        tokens: Counts what was trained on by this process.
        group: All processes; they agree at each step.
    """

    def __init__(
        self,
        every: CheckpointsJob,
        stop: StopSignal,
        progress: ProgressWriter | SilentProgress,
        uploader: Uploader | PartSender | None,
        tokens: Counter,
        group: Group = ALONE,
    ) -> None:
        """Time runs from `begin`."""
        self.stopped: tuple[StopKind, str] | None = None
        self.save_seconds = 0.0
        self._fits = True
        self._every = every
        self._stop = stop
        self._progress = progress
        self._uploader = uploader
        self._tokens = tokens
        self._group = group
        self._trained = self._padded = 0
        self._times: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._busy_s = 0.0
        self._said_s = -_SAY_EVERY_S
        self._reported = (0.0, 0)
        self._mark_s = self._saved_s = time.monotonic()
        self._save_started_s: float | None = None

    def begin(self, step: int, max_steps: int) -> None:
        """Training starts or goes on at this step."""
        self._mark_s = self._saved_s = time.monotonic()
        self._progress.update(state="training", step=step, max_steps=max_steps)
        say(f"training from step {step} to {max_steps}")

    def step_done(self, step: int, max_steps: int) -> tuple[bool, bool]:
        """A step is done: whether to save now, and whether to stop after that."""
        now_s = time.monotonic()
        self._times.append(now_s - self._mark_s)
        self._busy_s += now_s - self._mark_s
        self._stop.step_s = max(islice(reversed(self._times), _LAST_STEPS))
        due = self._agree(step, now_s)
        self._progress.update(step=step, step_time_s=step_quantiles(self._times), **self._counts())
        if self._uploader and self._uploader.over:
            raise self._uploader.over
        save = self._is_wanted(step, max_steps, due)
        self._save_started_s = now_s if save else None
        self._mark_s = time.monotonic()
        return save, self.stopped is not None

    def must_stop(self) -> bool:
        """Between two batches of an evaluation: whether to leave it; every process must call this."""
        return self._heed(self._group.gather((self._stop.reason(), self._stop.fits())))

    def may_save(self, step: int) -> bool:
        """Whether the training, which must stop, has time for a checkpoint of the step."""
        if not self._fits:
            say(f"no time for a checkpoint of step {step}: the last one committed stands")
        return self._fits

    def insist_on_numbers(self, step: int, finite: bool) -> None:
        """Before a save: every process tells whether its weights are finite.

        Raises:
            TuneplanError: They are not, in one of them: what would be saved is worth nothing.
        """
        if not all(self._group.gather(finite)):
            message = (
                f"the weights are no numbers any more at step {step}: the last committed checkpoint stands"
            )
            raise TuneplanError(message, hint=_NOT_FINITE_HINT, code="loss_not_finite")

    def saved(self, directory: Path, step: int, *, best: bool = False) -> None:
        """The trainer has written a checkpoint directory, perhaps of the best step so far."""
        self._saved_s = self._mark_s = time.monotonic()
        if self._save_started_s is not None:
            took_s = self._mark_s - self._save_started_s
            self.save_seconds += took_s
            self._stop.save_s = max(self._stop.save_s, took_s)
            self._save_started_s = None
        if self._uploader and not self._group.leads:
            self._uploader.submit(directory, step)  # before the leader can ask for it
        self._collect_random_states(directory)
        if self._uploader and self._group.leads:
            self._uploader.submit(directory, step, best=best)
        elif not self._uploader and self._group.leads_machine:
            shutil.rmtree(directory, ignore_errors=True)  # another machine commits it

    @property
    def is_saving(self) -> bool:
        """The trainer was told to save, and has not said that it did."""
        return self._save_started_s is not None

    def resume_clock(self, *, saving: bool) -> None:
        """Leave out of the times what happened since the last step (an evaluation, say); a save may follow."""
        self._mark_s = time.monotonic()
        self._save_started_s = self._mark_s if saving else None

    def logged(self, step: int, max_steps: int, loss: float) -> None:
        """The trainer reports its mean loss since the last report.

        Raises:
            TuneplanError: The loss is no number: going on would only cost money.
        """
        if not math.isfinite(loss):
            message = f"the loss is {loss} at step {step}"
            raise TuneplanError(message, hint=_NOT_FINITE_HINT, code="loss_not_finite")
        rate = self._tokens_per_s()
        self._progress.update(loss=loss, tokens_per_s_total=rate)
        recent_s = sorted(list(self._times)[-_ETA_STEPS:]) or [0.0]
        left = duration((max_steps - step) * recent_s[len(recent_s) // 2])
        if step < max_steps and time.monotonic() - self._said_s < _SAY_EVERY_S:
            return
        self._said_s = time.monotonic()
        say(f"step {step}/{max_steps} loss {loss:.4f} {rate or 0:,.0f} tokens/s, {left} left")

    def _agree(self, step: int, now_s: float) -> bool:
        """Whether to save, as the leader says; a reason to stop that one process has counts for all."""
        stop, tokens = self._stop, self._tokens
        due = self._is_due(step, now_s)
        mine = (stop.reason(), due, tokens.real, tokens.padded, stop.fits(), stop.take_warning())
        votes = self._group.gather(mine)
        self._heed([(vote[0], vote[4]) for vote in votes])
        self._trained, self._padded = sum(vote[2] for vote in votes), sum(vote[3] for vote in votes)
        return votes[0][1] or any(vote[5] for vote in votes)

    def _heed(self, votes: Sequence[tuple[tuple[StopKind, str] | None, bool]]) -> bool:
        """Whether to stop, for the first reason that a process has; a checkpoint must be in time for all."""
        self.stopped = next((reason for reason, _ in votes if reason is not None), None)
        self._fits = all(fits for _, fits in votes)
        return self.stopped is not None

    def _collect_random_states(self, directory: Path) -> None:
        """Each process writes its own, perhaps on another machine; also makes sure that all have written."""
        if self._group.size == 1:
            return
        mine = directory / f"rng_state_{self._group.rank}.pth"
        for rank, body in enumerate(self._group.gather(mine.read_bytes())):
            path = directory / f"rng_state_{rank}.pth"
            if self._group.leads and not path.exists():
                path.write_bytes(body)

    def _is_wanted(self, step: int, max_steps: int, due: bool) -> bool:
        if self.stopped is not None:
            return self.may_save(step)
        return step >= max_steps or due

    def _is_due(self, step: int, now_s: float) -> bool:
        every = self._every
        if every.every_steps is not None and step % every.every_steps == 0:
            return True
        every_s = every.every_s if every.every_s is not None or every.every_steps else self._best_interval_s()
        return every_s is not None and now_s - self._saved_s >= every_s

    def _best_interval_s(self) -> float:
        """For what is known now of hazard, save and upload."""
        prior_per_h = self._every.hazard_per_h
        if prior_per_h is None:
            return _DEFAULT_EVERY_S
        hazard_per_s = hazard_now_per_s(prior_per_h, self._stop.elapsed_s() / 3600)
        return interval_s(hazard_per_s, self._stop.save_s, self._stop.upload_s)

    def _counts(self) -> dict[str, Any]:
        return {
            "tokens_trained": self._trained,
            "tokens_padded": self._padded,
            "peak_memory_gib": gpu_peak(),
            "host_rss_gib": host_peak_gib(),
            "cost_usd": self._stop.cost_usd(),
        }

    def _tokens_per_s(self) -> float | None:
        """Real tokens a second since the last report, without saving and evaluating."""
        (last_s, last_tokens), self._reported = self._reported, (self._busy_s, self._trained)
        seconds = self._busy_s - last_s
        return (self._trained - last_tokens) / seconds if seconds > 0 else None


def step_quantiles(times_s: Iterable[float]) -> StepTimes | None:
    """Nearest-rank quantiles, None without a step.

    >>> step_quantiles([3.0, 1.0, 2.0])
    StepTimes(p10=1.0, p50=2.0, p90=3.0)
    """
    ordered = sorted(times_s)
    if not ordered:
        return None
    p10, p50, p90 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.1, 0.5, 0.9))
    return StepTimes(p10, p50, p90)


def host_peak_gib() -> float:
    """Peak resident memory of this process, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB


def gpu_peak() -> PeakMemory:
    """Peak of the first GPU so far; NVML's figure is what the device holds now, other processes included."""
    import torch

    if not torch.cuda.is_available():
        return PeakMemory()
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    return PeakMemory(
        torch.cuda.max_memory_allocated() / _GIB,
        torch.cuda.max_memory_reserved() / _GIB,
        (total_bytes - free_bytes) / _GIB,
    )
