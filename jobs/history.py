"""What was measured while a run trained: losses and evaluations; from them alone follows whether it goes on.

The document lies in every checkpoint, so an attempt that resumes decides as the one before it would have.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.codec import Mismatch, decode, encode
from jobs.evaluate import HIGHER_IS_BETTER
from jobs.spec import EvaluateJob
from providers.errors import CorruptDataError

FILE_NAME = "history.json"
_MOST_LOSSES = 2000


@dataclass(frozen=True, slots=True)
class Loss:
    """The trainer's mean loss over the steps since the last report."""

    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every metric at one step.

    Attributes:
        n: Held-out rows.
        values: By metric.
        guard_n: Rows of the general hold-out, 0 if there is none.
        guard_values: On those rows.
    """

    step: int
    n: int
    values: dict[str, float]
    guard_n: int = 0
    guard_values: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Losses and evaluations up to a step, oldest first.

    Attributes:
        loss_every: Reports that each loss stands for: a long run keeps every second, fourth, ... one.
        reports: Losses reported so far.
        unmeasured: Step whose evaluation was left for a stop; whoever goes on from it measures it first.
    """

    losses: tuple[Loss, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    loss_every: int = 1
    reports: int = 0
    unmeasured: int | None = None
    schema: str = "tuneplan/history"
    schema_version: int = 1

    def with_loss(self, step: int, loss: float) -> History:
        """With one more loss; of very many, every second one goes."""
        reports = self.reports + 1
        if self.reports % self.loss_every:
            return replace(self, reports=reports)
        losses, every = (*self.losses, Loss(step, loss)), self.loss_every
        if len(losses) > _MOST_LOSSES:
            losses, every = losses[::2], 2 * every
        return replace(self, losses=losses, loss_every=every, reports=reports)

    def with_evaluation(self, evaluation: Evaluation) -> History:
        """With one more evaluation."""
        return replace(self, evaluations=(*self.evaluations, evaluation), unmeasured=None)

    def at(self, step: int) -> Evaluation | None:
        """What was measured at a step, None if nothing was."""
        return next((one for one in reversed(self.evaluations) if one.step == step), None)

    def write(self, directory: Path) -> None:
        """Put the document into a checkpoint."""
        (directory / FILE_NAME).write_text(encode(self), encoding="utf-8")

    @classmethod
    def parse(cls, body: bytes) -> History:
        """Read a document.

        Raises:
            CorruptDataError: It is none.
        """
        try:
            return decode(cls, json.loads(body), strict=False)
        except (ValueError, RecursionError, Mismatch) as error:
            raise CorruptDataError(f"{FILE_NAME} is damaged: {error}", path=FILE_NAME) from error

    @classmethod
    def read(cls, directory: Path) -> History:
        """The document of a checkpoint; of one without it, an empty one.

        Raises:
            CorruptDataError: It is damaged.
        """
        path = directory / FILE_NAME
        return cls.parse(path.read_bytes()) if path.exists() else cls()


@dataclass(frozen=True, slots=True)
class Standing:
    """What the evaluations so far mean.

    Attributes:
        best: The evaluation with the best value that the guard has nothing against, None before the first.
        stale: Evaluations since the value was last better by more than the least change.
        ended: Why training ends here, None to go on.
    """

    best: Evaluation | None
    stale: int
    ended: str | None


def standing(
    history: History, metric: str, job: EvaluateJob, guard_base: dict[str, float] | None = None
) -> Standing:
    """Find the best evaluation, and whether to go on; the same for the same history, whoever asks.

    Args:
        history: Evaluations, oldest first.
        metric: That decides.
        job: Goal, patience, least change and guard.
        guard_base: What the base model has on the general hold-out.
    """
    best = mark = last_allowed = None
    stale = 0
    for one in history.evaluations:
        stale += 1
        if is_regressed(one.guard_values, guard_base, metric, job):
            continue
        last_allowed = one
        if best is None or gain(metric, one, best) > 0:
            best = one
        if mark is None or gain(metric, one, mark) > job.min_change:
            mark, stale = one, 0
    if history.evaluations and last_allowed is history.evaluations[-1] and job.goal is not None:
        value = last_allowed.values[metric]
        if value >= job.goal:
            return Standing(best, stale, f"the goal is met, {metric} {value:.4g} at step {last_allowed.step}")
    return Standing(best, stale, _out_of_patience(metric, job, best, stale))


def gain(metric: str, one: Evaluation, other: Evaluation) -> float:
    """How much better one evaluation is than another, in the metric's unit; negative if it is worse.

    Any number is better than none (NaN).
    """
    if math.isnan(other.values[metric]) and not math.isnan(one.values[metric]):
        return math.inf
    difference = one.values[metric] - other.values[metric]
    return difference if HIGHER_IS_BETTER[metric] else -difference


def is_regressed(
    values: dict[str, float] | None, base: dict[str, float] | None, metric: str, job: EvaluateJob
) -> bool:
    """Whether the general hold-out is worse than the guard allows; False where it was not measured.

    Args:
        values: Of the tuned model on the general hold-out.
        base: Of the base model on the same rows.
        metric: The job's own, for a guard without one.
        job: With the guard.
    """
    if job.guard is None or values is None or base is None:
        return False
    name = guard_metric(metric, job)
    worse = base[name] - values[name] if HIGHER_IS_BETTER[name] else values[name] - base[name]
    return not worse <= job.guard.at_most_worse  # a value that is no number is a regression too


def guard_metric(metric: str, job: EvaluateJob) -> str:
    """The metric of the guard; auto is the job's own."""
    return metric if job.guard is None or job.guard.metric == "auto" else job.guard.metric


def _out_of_patience(metric: str, job: EvaluateJob, best: Evaluation | None, stale: int) -> str | None:
    if job.patience is None or stale < job.patience:
        return None
    if best is None:
        return f"{stale} evaluations were worse on the general hold-out than the guard allows"
    value = best.values[metric]
    return f"no better {metric} in {stale} evaluations, the best is {value:.4g} at step {best.step}"
