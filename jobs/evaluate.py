"""Measures the same metrics on the base model and on the tuned one, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.group import ALONE, Group
from jobs.spec import DataFormat, JobSpec, Task
from providers.errors import UsageError

HIGHER_IS_BETTER = {
    "loss": False,
    "perplexity": False,
    "exact_match": True,
    "accuracy": True,
    "f1": True,
    "reward_margin": True,
    "reward": True,
}
METRICS: dict[Task, tuple[str, ...]] = {
    "sft": ("loss", "perplexity", "exact_match"),
    "classification": ("accuracy", "loss", "f1"),
    "dpo": ("reward_margin", "loss", "accuracy"),
    "reward": ("accuracy", "loss", "reward_margin"),
    "kto": ("reward_margin", "loss"),
    "grpo": ("reward", "exact_match"),
}
"""What can be measured of each task; the first is what `auto` means."""

_BATCH_BYTES = 256 << 20  # inside one block; held-out rows must fit beside the weights and the optimizer


@dataclass(frozen=True, slots=True)
class Scores:
    """Metric values over `n` held-out rows."""

    n: int
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measure:
    """How the held-out rows of a task are scored.

    Attributes:
        of_batch: Model and collated batch to what the rows add to the sums.
        total: What all batches gave to scores.
        tokens_of: Tokens of a row, padding not counted; of a pair the longer sequence.
        sequences: Sequences in a row.
        most_rows: Of a batch.
    """

    of_batch: Callable[[Any, Any], Any]
    total: Callable[[list[Any]], Scores]
    tokens_of: Callable[[Any], int]
    sequences: int = 1
    most_rows: int = 256


def metric_of(job: JobSpec, kind: DataFormat) -> str:
    """The job's metric; auto is the first of its task.

    Raises:
        UsageError: The metric does not go with the task or the data.
    """
    metric, allowed = job.evaluate.metric, METRICS[job.task]
    if metric == "auto":
        return allowed[0]
    if metric not in allowed:
        hint = f"use one of {', '.join(allowed)}"
        raise UsageError(f"metric {metric} does not go with task {job.task}", hint=hint, code="bad_metric")
    if metric == "exact_match" and kind not in ("prompt_completion", "prompt"):
        raise UsageError("exact_match needs data with one prompt and one answer a row", code="bad_metric")
    return metric


def evaluate(
    model: Any,
    rows: Any,
    collate: Any,
    measure: Measure,
    context: Any,
    check: Callable[[], None],
    group: Group = ALONE,
    device: Any = None,
) -> Scores:
    """Every metric of the rows' task at once.

    Args:
        model: In any mode; it is left in the mode it came in.
        rows: Tokenised data set.
        collate: Makes a padded batch of a list of rows.
        measure: Scores batches.
        context: Makes the context manager of mixed precision.
        check: Called between batches; may raise to stop.
        group: Processes that share the batches out and put their results together.
        device: Where the model computes, None for where its weights are.
    """
    import torch

    was_training = model.training
    model.eval()
    partial: list[Any] = []
    try:
        with torch.no_grad(), context():
            batches = _batches(rows, measure, model.config.get_text_config())
            for first in range(0, len(batches), group.size):
                check()
                turn = first + group.rank  # a sharded model is computed by all processes at once, or by none
                start, size = batches[min(turn, len(batches) - 1)]
                batch = collate([rows[index] for index in range(start, start + size)])
                found = measure.of_batch(model, moved(batch, device or model.device))
                partial += [found] if turn < len(batches) else []
    finally:
        model.train(was_training)
    return measure.total([found for one in group.gather(partial) for found in one])


def moved(batch: Any, device: Any) -> dict[str, Any]:
    """A batch whose tensors are on a device; what is no tensor stays as it is."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


def _batches(rows: Any, measure: Measure, config: Any) -> list[tuple[int, int]]:
    """Start and number of the rows of each batch; four values as wide as the model and three as its MLP for a token."""
    longest = max(measure.tokens_of(row) for row in rows)
    values = 4 * config.hidden_size + 3 * (
        getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    )
    row_bytes = 4 * values * longest * measure.sequences
    size = max(1, min(measure.most_rows, _BATCH_BYTES // row_bytes))
    return [(start, min(size, len(rows) - start)) for start in range(0, len(rows), size)]
