"""Scores of classes, without a model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from jobs.console import duration
from jobs.evaluate import metric_of
from jobs.measures import f1_score
from jobs.pulse import step_quantiles
from jobs.spec import EvaluateJob
from providers.errors import UsageError
from tests.jobs.test_spec import JOB


@pytest.mark.parametrize(
    ("predicted", "true", "score"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 0], 0.5),
        ([1, 1], [1, 1], 1.0),
        ([0, 0], [1, 1], 0.0),
        ([0, 0], [0, 0], 0.0),  # nothing of the positive class to find: 0 by convention
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 1, 1], [0, 1, 2], (1 + 2 / 3 + 0) / 3),
    ],
)
def test_f1(predicted: list[int], true: list[int], score: float) -> None:
    assert f1_score(predicted, true) == pytest.approx(score)


def test_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    rng = random.Random(3)
    predicted, true = ([rng.randrange(2) for _ in range(500)] for _ in range(2))
    hits = sum(p and t for p, t in zip(predicted, true, strict=True))
    precision, recall = hits / sum(predicted), hits / sum(true)
    assert f1_score(predicted, true) == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(
    ("task", "kind", "asked", "metric"),
    [
        ("sft", "text", "auto", "loss"),
        ("sft", "prompt_completion", "exact_match", "exact_match"),
        ("classification", "label", "auto", "accuracy"),
        ("classification", "label", "f1", "f1"),
    ],
)
def test_the_metric_goes_with_the_task(task: str, kind: str, asked: str, metric: str) -> None:
    job = replace(JOB, task=task, evaluate=EvaluateJob(asked))  # type: ignore[arg-type]
    assert metric_of(job, kind) == metric  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "kind", "asked"),
    [
        ("sft", "text", "exact_match"),
        ("sft", "messages", "exact_match"),
        ("sft", "prompt_completion", "f1"),
        ("classification", "label", "perplexity"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(task: str, kind: str, asked: str) -> None:
    with pytest.raises(UsageError) as caught:
        metric_of(replace(JOB, task=task, evaluate=EvaluateJob(asked)), kind)  # type: ignore[arg-type]
    assert caught.value.code == "bad_metric"


def test_quantiles_of_step_times() -> None:
    assert step_quantiles([]) is None
    one = step_quantiles([0.5])
    assert one is not None
    assert (one.p10, one.p50, one.p90) == (0.5, 0.5, 0.5)
    many = step_quantiles(float(number) for number in range(100, 0, -1))
    assert many is not None
    assert (many.p10, many.p50, many.p90) == (11.0, 51.0, 91.0)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 61, 3599.6, 7325)] == [
        "0 s",
        "59 s",
        "1 min 01 s",
        "1 h 00 min",
        "2 h 02 min",
    ]
