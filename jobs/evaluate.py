"""Measures the same metric on the base model and on the tuned one, on the same held-out rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.spec import DataFormat, JobSpec
from providers.errors import UsageError

HIGHER_IS_BETTER = {"loss": False, "perplexity": False, "exact_match": True, "accuracy": True, "f1": True}

_SFT_METRICS = ("loss", "perplexity", "exact_match")
_CLASSIFICATION_METRICS = ("loss", "accuracy", "f1")
_LOGITS_BYTES = 256 << 20  # of one batch; held-out rows must fit beside the weights and the optimizer
_MAX_ROWS = 256


@dataclass(frozen=True, slots=True)
class Scores:
    """Metric values over `n` held-out rows."""

    n: int
    values: dict[str, float]


def metric_of(job: JobSpec, kind: DataFormat) -> str:
    """The job's metric; auto is accuracy for classes and loss for text.

    Raises:
        UsageError: The metric does not go with the task or the data.
    """
    metric = job.evaluate.metric
    if metric == "auto":
        return "accuracy" if job.task == "classification" else "loss"
    allowed = _CLASSIFICATION_METRICS if job.task == "classification" else _SFT_METRICS
    if metric not in allowed:
        hint = f"use one of {', '.join(allowed)}"
        raise UsageError(f"metric {metric} does not go with task {job.task}", hint=hint, code="bad_metric")
    if metric == "exact_match" and kind != "prompt_completion":
        raise UsageError("exact_match needs data with one prompt and one answer a row", code="bad_metric")
    return metric


def evaluate(model: Any, rows: Any, collate: Any, context: Any, check: Callable[[], None]) -> Scores:
    """Every metric of the rows' task at once.

    Exact match counts the rows whose every label token is the most likely one given the true tokens before
    it, which is the same as greedy decoding reproducing the whole completion.

    Args:
        model: In any mode; it is left in the mode it came in.
        rows: Tokenised data set with `labels`: token ids with -100 for what does not count, or a class index.
        collate: Makes a padded batch of a list of rows.
        context: Makes the context manager of mixed precision.
        check: Called between batches; may raise to stop.
    """
    import torch

    classes = isinstance(rows[0]["labels"], int)
    measure: Callable[[Any, dict[str, Any]], Any] = _measure_classes if classes else _measure_tokens
    was_training = model.training
    model.eval()
    partial: list[Any] = []
    try:
        with torch.no_grad(), context():
            for start, size in _batches(rows, model.config.get_text_config().vocab_size, classes):
                check()
                batch = collate([rows[index] for index in range(start, start + size)])
                partial.append(measure(model, {key: value.to(model.device) for key, value in batch.items()}))
    finally:
        model.train(was_training)
    return _classes(partial) if classes else _tokens(partial)


def _batches(rows: Any, vocabulary: int, classes: bool) -> list[tuple[int, int]]:
    longest = max(len(row["input_ids"]) for row in rows)
    row_bytes = 1 if classes else 4 * longest * vocabulary
    size = max(1, min(_MAX_ROWS, _LOGITS_BYTES // row_bytes))
    return [(start, min(size, len(rows) - start)) for start in range(0, len(rows), size)]


def _measure_tokens(model: Any, batch: dict[str, Any]) -> tuple[float, int, int, int]:
    """Sum of the losses, label tokens, exact rows, rows."""
    import torch

    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch, use_cache=False).logits[:, :-1]
    counted = labels != -100
    right = (logits.argmax(-1) == labels) | ~counted
    loss = torch.nn.functional.cross_entropy(logits[counted].float(), labels[counted], reduction="sum")
    return loss.item(), int(counted.sum()), int(right.all(1).sum()), len(labels)


def _tokens(partial: list[tuple[float, int, int, int]]) -> Scores:
    loss_sum, tokens, exact, rows = (sum(column) for column in zip(*partial, strict=True))
    loss = loss_sum / tokens
    values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "exact_match": exact / rows}
    return Scores(int(rows), values)


def _measure_classes(model: Any, batch: dict[str, Any]) -> tuple[float, list[int], list[int]]:
    """Sum of the losses, predicted and true classes."""
    import torch

    labels = batch.pop("labels")
    logits = model(**batch).logits.float()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    return loss.item(), logits.argmax(-1).tolist(), labels.tolist()


def _classes(partial: list[tuple[float, list[int], list[int]]]) -> Scores:
    predicted = [value for _, values, _ in partial for value in values]
    true = [value for _, _, values in partial for value in values]
    right = sum(one == other for one, other in zip(predicted, true, strict=True))
    values = {
        "loss": sum(loss for loss, _, _ in partial) / len(true),
        "accuracy": right / len(true),
        "f1": f1_score(predicted, true),
    }
    return Scores(len(true), values)


def f1_score(predicted: list[int], true: list[int]) -> float:
    """F1 of class 1 if the only classes are 0 and 1, else the mean over the classes (macro).

    >>> f1_score([1, 1, 0, 0], [1, 0, 1, 0])
    0.5
    """
    classes = sorted({*predicted, *true})
    if set(classes) <= {0, 1}:
        classes = [1]
    return sum(_f1_of(one, predicted, true) for one in classes) / len(classes)


def _f1_of(one: int, predicted: list[int], true: list[int]) -> float:
    hits = sum(p == one and t == one for p, t in zip(predicted, true, strict=True))
    total = predicted.count(one) + true.count(one)
    return 2 * hits / total if total else 0.0
