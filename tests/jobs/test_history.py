"""What follows from evaluations: the best one, when to stop, and whether the general hold-out got worse."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.history import FILE_NAME, Evaluation, History, is_regressed, standing
from jobs.spec import EvaluateJob, GuardJob
from providers.errors import CorruptDataError


def history(*values: float, metric: str = "accuracy", guard: tuple[float, ...] = ()) -> History:
    """Evaluations at steps 10, 20, ..."""
    found = History()
    for index, value in enumerate(values):
        on_guard = {metric: guard[index]} if guard else None
        one = Evaluation(10 * (index + 1), 5, {metric: value}, 5 if guard else 0, on_guard)
        found = found.with_evaluation(one)
    return found


def best_step(
    found: History, job: EvaluateJob, metric: str = "accuracy", base: float | None = None
) -> object:
    best = standing(found, metric, job, None if base is None else {metric: base}).best
    return best and best.step


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("accuracy", (0.5, 0.7, 0.6), 20),
        ("accuracy", (0.5, 0.7, 0.7), 20),
        ("loss", (0.5, 0.7, 0.4, 0.9), 30),
        ("accuracy", (), None),
        ("loss", (math.nan, 0.7, math.nan, 0.8), 20),
    ],
)
def test_the_best_is_the_first_of_the_best_values(
    metric: str, values: tuple[float, ...], best: int | None
) -> None:
    assert best_step(history(*values, metric=metric), EvaluateJob(), metric) == best


@pytest.mark.parametrize(
    ("values", "patience", "min_change", "ended"),
    [
        ((0.5, 0.6, 0.6), 2, 0.0, False),
        ((0.5, 0.6, 0.6, 0.5), 2, 0.0, True),
        ((0.5, 0.6, 0.6, 0.7), 2, 0.0, False),
        ((0.5, 0.55, 0.58), 2, 0.1, True),
        # slowly better, together by more than the least change
        ((0.5, 0.58, 0.66, 0.7), 2, 0.1, False),
        ((0.5, 0.4, 0.3, 0.2), None, 0.0, False),
    ],
)
def test_patience(values: tuple[float, ...], patience: int | None, min_change: float, ended: bool) -> None:
    now = standing(history(*values), "accuracy", EvaluateJob(patience=patience, min_change=min_change))
    assert (now.ended is not None) is ended


def test_a_goal_ends_it_however_small_the_step_was() -> None:
    now = standing(history(0.79, 0.8), "accuracy", EvaluateJob(goal=0.8, min_change=0.1))
    assert now.ended == "the goal is met, accuracy 0.8 at step 20"


def test_an_evaluation_that_the_guard_refuses_is_never_the_best_nor_meets_the_goal() -> None:
    job = EvaluateJob(goal=0.8, guard=GuardJob("general.jsonl", at_most_worse=0.1))
    found = history(0.6, 0.9, 0.7, guard=(0.95, 0.5, 0.9))
    assert best_step(found, job, base=1.0) == 30
    assert standing(found, "accuracy", job, {"accuracy": 1.0}).ended is None
    refused = history(0.9, 0.9, guard=(0.1, 0.1))
    patient = EvaluateJob(patience=2, guard=job.guard)
    assert "guard allows" in (standing(refused, "accuracy", patient, {"accuracy": 1.0}).ended or "")


@pytest.mark.parametrize(
    ("metric", "base", "tuned", "regressed"),
    [
        ("loss", 1.0, 1.1, False),
        ("loss", 1.0, 1.21, True),
        ("accuracy", 0.9, 0.75, False),
        ("accuracy", 0.9, 0.6, True),
    ],
)
def test_worse_is_what_the_metric_says(metric: str, base: float, tuned: float, regressed: bool) -> None:
    job = EvaluateJob(guard=GuardJob("g", metric=metric, at_most_worse=0.2))  # type: ignore[arg-type]
    assert is_regressed({metric: tuned}, {metric: base}, "perplexity", job) is regressed
    assert is_regressed({metric: float("nan")}, {metric: base}, "perplexity", job)


def test_a_long_history_stays_small_and_whole(tmp_path: Path) -> None:
    found = history(0.5, 0.6)
    for step in range(1, 10_001):
        found = found.with_loss(step, 1.0 / step)
    steps = [loss.step for loss in found.losses]
    assert 1000 <= len(steps) <= 2000
    assert steps[:2] == [1, 1 + found.loss_every] and steps[-1] > 10_000 - found.loss_every
    assert {later - step for step, later in pairwise(steps)} == {found.loss_every}
    found.write(tmp_path)
    assert History.read(tmp_path) == found


def test_a_checkpoint_without_history_has_an_empty_one_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert History.read(tmp_path) == History()
    (tmp_path / FILE_NAME).write_text('{"losses": 3}')
    with pytest.raises(CorruptDataError, match="damaged"):
        History.read(tmp_path)
