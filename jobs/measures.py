"""How held-out texts and classes are scored."""

from __future__ import annotations

import math
from typing import Any

from jobs.evaluate import Measure, Scores


def token_measure() -> Measure:
    """Loss, perplexity and exact match of completions.

    Exact match counts the rows whose every label token is the most likely one given the true tokens before
    it, which is the same as greedy decoding reproducing the whole completion.
    """
    return Measure(_of_tokens, _tokens, lambda row: len(row["input_ids"]))


def class_measure() -> Measure:
    """Loss, accuracy and F1 of classes."""
    return Measure(_of_classes, _classes, lambda row: len(row["input_ids"]))


def _of_tokens(model: Any, batch: dict[str, Any]) -> tuple[float, int, int, int]:
    """Sum of the losses, label tokens, exact rows, rows."""
    scored = scores_of(model, batch, batch.pop("labels"))
    right = scored.is_top1.bool() | ~scored.label_mask
    loss = -scored.log_probs.sum().item()
    return loss, int(scored.label_mask.sum()), int(right.all(1).sum()), len(right)


def scores_of(model: Any, batch: dict[str, Any], labels: Any) -> Any:
    """Log-probability of each label given the true tokens before it, and whether it is the most likely one.

    By the head that TRL's trainer gave the model: a long row's logits would take more memory than the training.

    Args:
        model: Of one of TRL's trainers.
        batch: Its inputs, [rows, tokens].
        labels: Token ids, -100 where nothing is scored, [rows, tokens].

    Returns:
        `log_probs`, `is_top1` and `label_mask`, [rows, tokens - 1] or more where something learned stands before a row.
    """
    labels = labels.clone()
    labels[:, 0] = -100  # nothing stands before it, unless that was learned
    return model(**batch, labels=labels, fused_lm_head=True)


def _tokens(partial: list[tuple[float, int, int, int]]) -> Scores:
    loss_sum, tokens, exact, rows = (sum(column) for column in zip(*partial, strict=True))
    loss = loss_sum / tokens
    values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "exact_match": exact / rows}
    return Scores(int(rows), values)


def _of_classes(model: Any, batch: dict[str, Any]) -> tuple[float, list[int], list[int]]:
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
