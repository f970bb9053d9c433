"""How held-out preferences are scored: what a model thinks of the better and of the worse answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import fmean
from typing import Any

from jobs.evaluate import Measure, Scores
from jobs.measures import scores_of
from jobs.spec import PreferenceJob

Reference = Callable[[Any], tuple[Any, AbstractContextManager[Any]]]


def reference_of(trainer: Any) -> Reference:
    """The model as it was before training: the trainer's frozen copy, or the one without its adapter."""

    def reference(model: Any) -> tuple[Any, AbstractContextManager[Any]]:
        if trainer.ref_model is not None:
            return trainer.ref_model, nullcontext()
        return model, model.disable_adapter()

    return reference


def pair_measure(preference: PreferenceJob, reference: Reference) -> Measure:
    """Loss, accuracy and reward margin of pairs under dpo.

    Accuracy is the share of pairs whose better answer has the higher log-probability, which the base model has
    too. The reward of an answer is beta times what its log-probability has gained over the base, so that the
    base's own margin is 0 and its sigmoid loss ln 2.
    """

    def of_batch(model: Any, batch: dict[str, Any]) -> list[tuple[float, ...]]:
        now = _answer_logps(model, batch)
        base, off = reference(model)
        with off:
            before = _answer_logps(base, batch)
        tokens = batch["completion_mask"].sum(1).tolist()
        half = len(tokens) // 2
        columns = (now[:half], now[half:], before[:half], before[half:], tokens[:half], tokens[half:])
        return list(zip(*columns, strict=True))

    def total(partial: list[list[tuple[float, ...]]]) -> Scores:
        pairs = [pair for rows in partial for pair in rows]
        gains = [(c - c0, r - r0, nc, nr) for c, r, c0, r0, nc, nr in pairs]
        values = {
            "reward_margin": preference.beta * fmean(c - r for c, r, _, _ in gains),
            "loss": fmean(_pair_loss(preference, *gain) for gain in gains),
            "accuracy": fmean(c > r for c, r, *_ in pairs),
        }
        return Scores(len(pairs), values)

    return Measure(of_batch, total, _pair_tokens, sequences=2)


def score_measure() -> Measure:
    """Loss, accuracy and margin of a reward model's scores."""

    def of_batch(model: Any, batch: dict[str, Any]) -> list[tuple[float, float]]:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        scores = logits.float().squeeze(-1).tolist()
        half = len(scores) // 2
        return list(zip(scores[:half], scores[half:], strict=True))

    def total(partial: list[list[tuple[float, float]]]) -> Scores:
        pairs = [pair for rows in partial for pair in rows]
        values = {
            "accuracy": fmean(chosen > rejected for chosen, rejected in pairs),
            "loss": fmean(-_log_sigmoid(chosen - rejected) for chosen, rejected in pairs),
            "reward_margin": fmean(chosen - rejected for chosen, rejected in pairs),
        }
        return Scores(len(pairs), values)

    return Measure(of_batch, total, _pair_tokens, sequences=2)


def unpaired_measure(preference: PreferenceJob, reference: Reference) -> Measure:
    """Loss and reward margin of single answers under kto.

    The margin is the mean reward of the good answers minus that of the bad ones. The loss is KTO's with its
    reference point at 0 (apo_zero_unpaired), since that point is an estimate over a training batch.
    """

    def of_batch(model: Any, batch: dict[str, Any]) -> list[tuple[bool, float]]:
        now = _answer_logps(model, batch)
        base, off = reference(model)
        with off:
            before = _answer_logps(base, batch)
        rewards = [preference.beta * (one - other) for one, other in zip(now, before, strict=True)]
        return list(zip(batch["label"].tolist(), rewards, strict=True))

    def total(partial: list[list[tuple[bool, float]]]) -> Scores:
        rows = [row for part in partial for row in part]
        good = [reward for label, reward in rows if label]
        bad = [reward for label, reward in rows if not label]
        weights = {True: preference.desirable_weight, False: preference.undesirable_weight}
        losses = [weights[label] * _sigmoid(-reward if label else reward) for label, reward in rows]
        margin = (fmean(good) if good else 0.0) - (fmean(bad) if bad else 0.0)
        return Scores(len(rows), {"reward_margin": margin, "loss": fmean(losses)})

    return Measure(of_batch, total, _unpaired_tokens)


def _answer_logps(model: Any, batch: dict[str, Any]) -> list[float]:
    """Log-probability of each row's answer, nats."""
    labels = batch["input_ids"].masked_fill(~batch["completion_mask"].bool(), -100)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return [float(value) for value in scores_of(model, inputs, labels).log_probs.sum(1).tolist()]


def _pair_loss(preference: PreferenceJob, chosen: float, rejected: float, nc: float, nr: float) -> float:
    """Of one pair, from the gains in log-probability of its answers and their tokens."""
    margin = preference.beta * (chosen - rejected)
    if preference.loss == "hinge":
        return max(0.0, 1.0 - margin)
    if preference.loss == "ipo":
        return (chosen / max(nc, 1) - rejected / max(nr, 1) - 1 / (2 * preference.beta)) ** 2
    return -_log_sigmoid(margin)


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def _sigmoid(x: float) -> float:
    return math.exp(_log_sigmoid(x))


def _pair_tokens(row: Any) -> int:
    return len(row.get("prompt_ids") or ()) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _unpaired_tokens(row: Any) -> int:
    return len(row["prompt_ids"]) + len(row["completion_ids"])
