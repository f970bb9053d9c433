"""When the metric is measured in a run: before, now and then during, and after training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from jobs.attempt import Attempt
from jobs.codec import Mismatch, decode, encode
from jobs.console import say
from jobs.evaluate import HIGHER_IS_BETTER, Scores, evaluate
from jobs.progress import MetricResult
from jobs.training import Training
from providers.errors import CorruptDataError

BASE_SCORES_KEY = "base-scores.json"
GOAL_KEY = "goal-met.json"


class Scoring:
    """Measures one training's model on its held-out rows; without such rows, does nothing.

    Args:
        attempt: Told of what was measured.
        training: The model, wherever its training stands.
        metric: Name of the job's metric.
    """

    def __init__(self, attempt: Attempt, training: Training, metric: str) -> None:
        """Nothing is measured yet."""
        self._attempt = attempt
        self._training = training
        self._metric = metric
        self._scored_s = time.monotonic()

    def score_base(self) -> Scores | None:
        """Scores of the untrained model: measured once in a run, then kept in the store.

        Raises:
            CorruptDataError: What the store kept is damaged.
        """
        if self._training.eval_rows is None:
            return None
        group = self._attempt.group
        found = group.share(self._attempt.store.get(BASE_SCORES_KEY) if group.leads else None)
        if found is not None:
            return _read(found[0])
        with self._attempt.stage("evaluate", "evaluating_base"):
            scores = self._measure(self._attempt.check)
        if group.leads:
            self._attempt.store.put_if_absent(BASE_SCORES_KEY, encode(scores).encode())
        say(f"base: {self._metric} {scores.values[self._metric]:.4f} on {scores.n} held-out rows")
        return scores

    def meets_goal(self, scores: Scores | None) -> bool:
        """Whether the job has a goal and the scores reach it."""
        goal = self._attempt.job.evaluate.goal
        return goal is not None and scores is not None and scores.values[self._metric] >= goal

    def end_at_base(self, base: Scores) -> str:
        """Report a run that need not be trained; why."""
        results = tuple(
            MetricResult(name, "eval", base.n, base.values[name], None, HIGHER_IS_BETTER[name])
            for name in self._names(base)
        )
        self._attempt.progress.update(metrics=results)
        goal = self._attempt.job.evaluate.goal
        return f"the base model meets the goal: {self._metric} {results[0].base:.4g}, wanted {goal:g}"

    def goal_was_met_at(self, step: int) -> bool:
        """Whether an earlier attempt ended its training at this step, and was stopped before it handed over."""
        group, store = self._attempt.group, self._attempt.store
        found = group.share(store.get(GOAL_KEY) if group.leads else None)
        return found is not None and found[0] == str(step).encode()

    def score_if_due(self, step: int) -> bool:
        """Measure during training, as often as the job asks for; whether the goal is met."""
        every, now_s = self._attempt.job.evaluate, time.monotonic()
        due = every.every_steps is not None and step % every.every_steps == 0
        if every.every_s is not None:
            due = self._attempt.group.share(due or now_s - self._scored_s >= every.every_s)
        if not due or self._training.eval_rows is None:
            return False
        with self._attempt.clock.stage("evaluate"):
            scores = self._measure(lambda: None)  # a stop waits until the step is saved
        self._scored_s = time.monotonic()
        say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.values.items()))
        if not self.meets_goal(scores):
            return False
        say(f"step {step}: the goal is met, {self._metric} {scores.values[self._metric]:.4f}")
        if self._attempt.group.leads:
            self._attempt.store.put(GOAL_KEY, str(step).encode())
        return True

    def score_tuned(self, base: Scores | None) -> tuple[MetricResult, ...]:
        """Scores of the trained model beside those of the base, the job's metric first."""
        if self._training.eval_rows is None:
            say("no held-out rows, so nothing is measured")
            return ()
        with self._attempt.stage("evaluate", "evaluating"):
            tuned = self._measure(self._attempt.check)
        before = base.values if base else {}
        results = tuple(
            MetricResult(name, "eval", tuned.n, before.get(name), tuned.values[name], HIGHER_IS_BETTER[name])
            for name in self._names(tuned)
        )
        self._attempt.progress.update(metrics=results)
        compared = f", base {before[self._metric]:.4f}" if self._metric in before else ""
        say(f"tuned: {self._metric} {results[0].tuned:.4f} on {tuned.n} held-out rows{compared}")
        return results

    def _names(self, scores: Scores) -> list[str]:
        """Metrics, the job's first."""
        return [self._metric, *(name for name in scores.values if name != self._metric)]

    def _measure(self, check: Callable[[], None]) -> Scores:
        of = self._training
        context: Callable[[], AbstractContextManager[None]] = of.trainer.compute_loss_context_manager
        return evaluate(
            of.trainer.model, of.eval_rows, of.collate, of.measure, context, check, self._attempt.group
        )


def _read(body: bytes) -> Scores:
    try:
        return decode(Scores, json.loads(body), strict=False)
    except (ValueError, Mismatch) as error:
        raise CorruptDataError(f"{BASE_SCORES_KEY} is damaged: {error}", path=BASE_SCORES_KEY) from error
