"""Trainers that learn from preferences: dpo, reward models and kto."""

from __future__ import annotations

from typing import Any

from jobs.ingredients import Ingredients
from jobs.preference_measures import pair_measure, reference_of, score_measure, unpaired_measure
from jobs.spec_rules import least_rows
from jobs.training import Training, counted
from providers.errors import UsageError


def build_dpo(of: Ingredients) -> Training:
    """Pairs of a better and a worse answer, against the base model as it was."""
    from trl import DPOConfig, DPOTrainer

    preference = of.job.preference
    settings = DPOConfig(
        max_length=of.job.train.sequence_length,
        beta=preference.beta,
        loss_type="sigmoid" if preference.loss == "auto" else preference.loss,
        disable_dropout=not of.job.method.dropout,
        **of.settings,
    )
    trainer = DPOTrainer(ref_model=of.reference(), args=settings, **of.of_trl())
    return counted(trainer, pair_measure(preference, reference_of(trainer)))


def build_reward(of: Ingredients) -> Training:
    """A model with one output that scores the better answer of a pair higher."""
    from trl import RewardConfig, RewardTrainer

    settings = RewardConfig(
        max_length=of.job.train.sequence_length,
        disable_dropout=not of.job.method.dropout,
        **of.settings,
    )
    return counted(RewardTrainer(args=settings, **of.of_trl()), score_measure())


def build_kto(of: Ingredients) -> Training:
    """Single answers that are good or bad; pairs are taken apart.

    The trainer reads its rows in order, since each is compared with its neighbour's answer: they are shuffled
    once, by the job's seed.

    Raises:
        UsageError: A micro-batch has one row, which has nothing to be compared with.
    """
    _need_neighbours(of)
    from trl import KTOConfig, KTOTrainer

    preference = of.job.preference
    settings = KTOConfig(
        max_length=of.job.train.sequence_length,
        beta=preference.beta,
        loss_type="kto" if preference.loss == "auto" else preference.loss,
        desirable_weight=preference.desirable_weight,
        undesirable_weight=preference.undesirable_weight,
        disable_dropout=not of.job.method.dropout,
        **of.settings,
    )
    shared = of.of_trl()
    shared["train_dataset"] = _unpaired(of.train).shuffle(seed=of.job.train.seed)
    if of.eval is not None:
        shared["eval_dataset"] = {name: _unpaired(rows) for name, rows in of.eval.items()}
    trainer = KTOTrainer(ref_model=of.reference(), args=settings, **shared)
    _gather_in_fp32(trainer.accelerator)
    return counted(trainer, unpaired_measure(preference, reference_of(trainer)))


def _need_neighbours(of: Ingredients) -> None:
    rows = of.settings["per_device_train_batch_size"]
    if rows >= least_rows("kto", of.job.preference.loss):
        return
    message = "kto compares the rows of a micro-batch, but each process would have one at a time"
    hint = "start as many processes as the job was planned for, or make train.global_batch larger"
    raise UsageError(message, hint=hint, code="bad_job", path="train.micro_batch")


def _gather_in_fp32(accelerator: Any) -> None:
    """TRL sums the rewards of a kind of answer that a process has none of in fp32, whatever the others sum in."""
    gather = accelerator.gather_for_metrics
    accelerator.gather_for_metrics = lambda tensor: gather(
        tensor.float() if tensor.is_floating_point() else tensor
    )


def _unpaired(rows: Any) -> Any:
    from trl.data_utils import extract_prompt, unpair_preference_dataset

    if "chosen" not in rows.column_names:
        return rows
    if "prompt" not in rows.column_names:
        rows = rows.map(extract_prompt)
    return unpair_preference_dataset(rows)
