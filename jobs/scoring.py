"""When the metric is measured in a run: before, now and then during, and after training."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from jobs.attempt import Attempt
from jobs.codec import Mismatch, decode, encode
from jobs.console import say
from jobs.evaluate import HIGHER_IS_BETTER, Scores, evaluate
from jobs.group import ALONE, Group
from jobs.history import Evaluation, History, Standing, guard_metric, is_regressed, standing
from jobs.progress import GuardResult, MetricResult
from jobs.training import Training
from providers.errors import CorruptDataError, TuneplanError

BASE_SCORES_KEYS = {"eval": "base-scores.json", "guard": "base-guard-scores.json"}

AllScores = dict[str, Scores]
"""Scores by split: eval, and guard where the job has one."""


class _Left(Exception):  # noqa: N818 - no error
    """An evaluation is left before its end."""


class Scoring:
    """Measures one training's model on its held-out rows; without such rows, does nothing.

    Args:
        attempt: Told of what was measured.
        training: The model, wherever its training stands.
        metric: Name of the job's metric.
    """

    def __init__(self, attempt: Attempt, training: Training, metric: str) -> None:
        """Nothing is measured yet."""
        self.history = History()
        self.standing = Standing(None, 0, None)
        self._attempt = attempt
        self._training = training
        self._metric = metric
        self._base: AllScores = {}
        self._scored_s = time.monotonic()

    def go_on(self, history: History) -> None:
        """Take over what was measured up to the checkpoint that training goes on from."""
        self.history = history
        self._judge()

    def score_base(self) -> None:
        """Scores of the untrained model: measured once in a run, then kept in the store.

        Raises:
            CorruptDataError: What the store kept is damaged.
        """
        for split in self._training.held_out:
            self._base[split] = self._known_base(split) or self._measured_base(split)

    def base_meets_goal(self) -> str | None:
        """Why nothing need be trained, after reporting that; None if it must."""
        goal, base = self._attempt.job.evaluate.goal, self._base.get("eval")
        if goal is None or base is None or base.values[self._metric] < goal:
            return None
        self._attempt.progress.update(metrics=self._results({}))
        return (
            f"the base model meets the goal: {self._metric} {base.values[self._metric]:.4g}, wanted {goal:g}"
        )

    def score_if_due(self, step: int, max_steps: int, must_stop: Callable[[], bool]) -> bool:
        """Measure during training, as often as the job asks for, and find out what it means.

        An evaluation may take longer than a machine's notice: it is left for a stop, so that the step is saved in time,
        and made up for by whoever goes on from there.

        Args:
            step: That is done.
            max_steps: Of the training.
            must_stop: Asked between batches; the same in all processes.

        Returns:
            Whether the training goes on as far as is known, False after a stop came meanwhile.

        Raises:
            TuneplanError: A score is no number.
        """
        every, now_s = self._attempt.job.evaluate, time.monotonic()
        due = every.every_steps is not None and step % every.every_steps == 0
        if every.every_s is not None:
            due = self._attempt.group.share(due or now_s - self._scored_s >= every.every_s)
        due = due or (every.choose == "best" and step >= max_steps)
        if not due or "eval" not in self._training.held_out:
            return True

        def check() -> None:
            if must_stop():
                raise _Left

        try:
            with self._attempt.clock.stage("evaluate"):
                scores = self._measure_all(check)
        except _Left:
            say(f"step {step}: not measured before the stop, but first of all when the training goes on")
            self.history = replace(self.history, unmeasured=step)
            return False
        self._take_in(step, scores)
        return not must_stop()

    def score_unmeasured(self) -> None:
        """Make up for the evaluation that the attempt before this one left for a stop.

        Its step is in a committed checkpoint that knows nothing of it: if it is the best, HEAD alone says so.

        Raises:
            Stopped: This attempt has to stop as well.
            TuneplanError: A score is no number, or the store failed.
        """
        attempt, step = self._attempt, self.history.unmeasured
        if step is None or "eval" not in self._training.held_out:
            return
        with attempt.stage("evaluate", "evaluating"):
            scores = self._measure_all(attempt.check)
        self._take_in(step, scores)
        if self.is_best(step) and attempt.group.leads:
            attempt.insist(lambda: attempt.checkpoints.mark_best(step))

    def is_best(self, step: int) -> bool:
        """Whether the step's checkpoint is the one to hand over, as far as is known now."""
        best = self.standing.best
        return self._attempt.job.evaluate.choose == "best" and best is not None and best.step == step

    def best_of(self, *steps: int) -> int:
        """The best of these steps by what was measured; the last of them if that does not tell."""
        measured = tuple(one for one in self.history.evaluations if one.step in steps)
        best = self._standing(replace(self.history, evaluations=measured)).best
        return steps[-1] if best is None else best.step

    def logged(self, step: int, loss: float) -> None:
        """Keep a loss."""
        self.history = self.history.with_loss(step, loss)

    def saved(self, directory: Path) -> None:
        """Put what was measured into a checkpoint."""
        if self._attempt.group.leads:
            self.history.write(directory)

    def score_tuned(self, step: int) -> tuple[MetricResult, ...]:
        """Scores of the model of this step beside those of the base, the job's metric first."""
        if not self._training.held_out:
            say("no held-out rows, so nothing is measured")
            return ()
        measured = self.history.at(step)
        if measured is not None:
            tuned = _scores_of(measured)
        else:
            with self._attempt.stage("evaluate", "evaluating"):
                tuned = self._measure_all(self._attempt.check)
            self._keep(step, tuned)
        results = self._results(tuned)
        self._attempt.progress.update(metrics=results, guard=self._guard(tuned))
        for split in tuned:
            self._tell(split, tuned[split])
        return results

    def _guard(self, tuned: AllScores) -> GuardResult | None:
        job = self._attempt.job.evaluate
        if job.guard is None or "guard" not in tuned or "guard" not in self._base:
            return None
        name, values, base = (
            guard_metric(self._metric, job),
            tuned["guard"].values,
            self._base["guard"].values,
        )
        passed = not is_regressed(values, base, self._metric, job)
        return GuardResult(name, job.guard.at_most_worse, base[name], values[name], passed)

    def _tell(self, split: str, tuned: Scores) -> None:
        name = self._metric if split == "eval" else guard_metric(self._metric, self._attempt.job.evaluate)
        base = self._base.get(split)
        compared = "" if base is None else f", base {base.values[name]:.4f}"
        rows = "held-out" if split == "eval" else "general held-out"
        say(f"tuned: {name} {tuned.values[name]:.4f} on {tuned.n} {rows} rows{compared}")

    def _keep(self, step: int, scores: AllScores) -> None:
        of, guard = scores["eval"], scores.get("guard")
        for name, value in [*of.values.items(), *(guard.values.items() if guard else ())]:
            if not math.isfinite(value):
                hint = "lower the learning rate, or check the held-out data for empty answers"
                raise TuneplanError(f"{name} is {value} at step {step}", hint=hint, code="metric_not_finite")
        one = Evaluation(step, of.n, dict(of.values))
        if guard is not None:
            one = Evaluation(step, of.n, dict(of.values), guard.n, dict(guard.values))
        self.history = self.history.with_evaluation(one)

    def _judge(self) -> None:
        self.standing = self._standing(self.history)

    def _standing(self, history: History) -> Standing:
        guard = self._base.get("guard")
        return standing(history, self._metric, self._attempt.job.evaluate, guard.values if guard else None)

    def _known_base(self, split: str) -> Scores | None:
        attempt, group, key = self._attempt, self._attempt.group, BASE_SCORES_KEYS[split]
        found = group.share(attempt.insist(lambda: attempt.store.get(key)) if group.leads else None)
        return _read(found[0], key) if found is not None else None

    def _measured_base(self, split: str) -> Scores:
        with self._attempt.stage("evaluate", "evaluating_base"):
            scores = measure_base(self._training, split, self._attempt.check, self._attempt.group)
        if self._attempt.group.leads:
            body = encode(scores).encode()
            self._attempt.insist(lambda: self._attempt.store.put_if_absent(BASE_SCORES_KEYS[split], body))
        name = self._metric if split == "eval" else guard_metric(self._metric, self._attempt.job.evaluate)
        rows = "held-out" if split == "eval" else "general held-out"
        say(f"base: {name} {scores.values[name]:.4f} on {scores.n} {rows} rows")
        return scores

    def _results(self, tuned: AllScores) -> tuple[MetricResult, ...]:
        return tuple(
            one
            for split in self._training.held_out
            for one in results_of(split, self._metric, self._base.get(split), tuned.get(split))
        )

    def _measure_all(self, check: Callable[[], None]) -> AllScores:
        group = self._attempt.group
        return {split: measure(self._training, split, check, group) for split in self._training.held_out}

    def _take_in(self, step: int, scores: AllScores) -> None:
        """Keep what was measured during training, and find out what it means."""
        self._scored_s = time.monotonic()
        self._keep(step, scores)
        values = scores["eval"].values
        say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        self._judge()
        if self.standing.ended is not None:
            say(f"step {step}: {self.standing.ended}")


def measure(training: Training, split: str, check: Callable[[], None], group: Group = ALONE) -> Scores:
    """Score the model, wherever its training stands, on the rows of a split."""
    context: Callable[[], AbstractContextManager[None]] = training.trainer.compute_loss_context_manager
    rows, trainer = training.held_out[split], training.trainer
    device = trainer.args.device  # weights may lie elsewhere
    return evaluate(trainer.model, rows, training.collate, training.measure, context, check, group, device)


def measure_base(training: Training, split: str, check: Callable[[], None], group: Group = ALONE) -> Scores:
    """Score the model before its training.

    Other adapters begin by changing nothing; learned tokens begin at random, and are not yet part of the base.
    """
    model = training.trainer.model
    learns_tokens = hasattr(model, "peft_config") and model.active_peft_config.is_prompt_learning
    with model.disable_adapter() if learns_tokens else nullcontext():
        return measure(training, split, check, group)


def results_of(
    split: str, metric: str, base: Scores | None, tuned: Scores | None
) -> tuple[MetricResult, ...]:
    """Every metric of base and tuned on the rows of a split, the job's first."""
    some = tuned or base
    if some is None:
        return ()
    names = [metric, *(name for name in some.values if name != metric)]
    return tuple(
        MetricResult(
            name,
            split,
            some.n,
            base.values.get(name) if base else None,
            tuned.values[name] if tuned else None,
            HIGHER_IS_BETTER[name],
        )
        for name in names
    )


def _scores_of(one: Evaluation) -> AllScores:
    scores = {"eval": Scores(one.n, one.values)}
    if one.guard_values is not None:
        scores["guard"] = Scores(one.guard_n, one.guard_values)
    return scores


def _read(body: bytes, key: str) -> Scores:
    try:
        return decode(Scores, json.loads(body), strict=False)
    except (ValueError, Mismatch) as error:
        raise CorruptDataError(f"{key} is damaged: {error}", path=key) from error
