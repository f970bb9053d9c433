"""From spec and candidate to the worker's job document."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jobs.spec import (
    CheckpointsJob,
    DataJob,
    EvaluateJob,
    GuardJob,
    JobSpec,
    MethodJob,
    ModelJob,
    OutputJob,
    PreferenceJob,
    RolloutJob,
    TrainJob,
)
from planner.candidates import Candidate
from planner.spec import FineTuneSpec
from planner.specfile import data_ref, model_ref
from planner.units import parse_every

#: `checkpoints.every: auto` on a machine that nobody takes away: what a crash may cost, seconds.
_LOCAL_EVERY_S = 60.0
#: No spot machine is safe for longer than that on average; and what is assumed where the plan says nothing.
_LEAST_HAZARD_PER_H = 0.01
_UNKNOWN_HAZARD_PER_H = 0.1
_NOWHERE = "file:///nowhere"
_KINDS = {"qlora": "lora", "qdora": "dora"}


def job_document(
    spec: FineTuneSpec, base_dir: Path, candidate: Candidate, run_id: str, checkpoint_uri: str
) -> JobSpec:
    """The job without limits, which belong to an attempt.

    Args:
        spec: One that `planner.support.unsupported(spec, for_launch=True)` has nothing against.
        base_dir: Directory that the spec's paths are relative to.
        candidate: Decides micro-batch, accumulation and activation checkpointing.
        run_id: Of the run.
        checkpoint_uri: The run's own prefix.

    Raises:
        UsageError: No worker could run it.
    """
    sharded = candidate.parallelism.kind == "fsdp"
    train = replace(
        _train(spec),
        micro_batch=candidate.micro_batch,
        grad_accum=candidate.grad_accum,
        gradient_checkpointing=candidate.gradient_checkpointing,
        processes=candidate.processes,
        sharding="fsdp" if sharded else "none",
        offload=spec.train.offload if sharded else "none",
    )
    return replace(
        document_without_machine(spec, base_dir),
        run_id=run_id,
        train=train,
        checkpoints=_checkpoints(spec, candidate, checkpoint_uri),
    )


def document_without_machine(spec: FineTuneSpec, base_dir: Path) -> JobSpec:
    """What does not depend on where it runs: enough to build the model and to measure it, not to train it.

    Args:
        spec: As for `job_document`.
        base_dir: Directory that the spec's paths are relative to.

    Raises:
        UsageError: No worker could run it.
    """
    reference = model_ref(base_dir, spec.model.id)
    return JobSpec(
        run_id=spec.name,
        name=spec.name,
        model=ModelJob(
            id=spec.model.id,
            path=reference.value if reference.kind == "path" else None,
            revision=spec.model.revision,
            trust_remote_code=spec.model.trust_remote_code,
        ),
        data=_data(spec, base_dir),
        checkpoints=CheckpointsJob(_NOWHERE),
        method=_method(spec),
        quantization=spec.effective_quantization(),  # type: ignore[arg-type]
        task=spec.task,
        train=_train(spec),
        preference=_preference(spec),
        rollout=_rollout(spec, base_dir),
        evaluate=_evaluate(spec, base_dir),
        track=None if spec.track == "none" else spec.track,
        output=OutputJob(None if spec.output.uri is None else as_uri(spec.output.uri, base_dir)),
    )


def as_uri(text: str, base_dir: Path) -> str:
    """The text if it is a URI, else the file URI of the path it is, relative to the spec."""
    return text if "://" in text else Path(base_dir, Path(text).expanduser()).absolute().as_uri()


def _data(spec: FineTuneSpec, base_dir: Path) -> DataJob:
    train = data_ref(base_dir, spec.data.train or "").value
    held_out = None if spec.data.eval is None else data_ref(base_dir, spec.data.eval).value
    return DataJob(train=train, eval=held_out, format=spec.data.format, labels=spec.data.labels)


def _method(spec: FineTuneSpec) -> MethodJob:
    method = spec.method
    targets = (method.targets,) if isinstance(method.targets, str) else method.targets
    kind = _KINDS.get(method.kind, method.kind)
    return MethodJob(
        kind=kind,  # type: ignore[arg-type]
        rank=method.rank,
        alpha=method.alpha,
        dropout=method.dropout,
        targets=targets,
        virtual_tokens=method.virtual_tokens,
    )


def _preference(spec: FineTuneSpec) -> PreferenceJob:
    return PreferenceJob(**spec.preference.model_dump())


def _rollout(spec: FineTuneSpec, base_dir: Path) -> RolloutJob:
    rewards = tuple(_reward(text, base_dir) for text in spec.rollout.rewards)
    return RolloutJob(**{**spec.rollout.model_dump(), "rewards": rewards})


def _reward(text: str, base_dir: Path) -> str:
    """A file is named by its whole path, since the worker does not run in the spec's directory."""
    place, _, function = text.rpartition(":")
    return f"{Path(base_dir, place).absolute()}:{function}" if place.endswith(".py") else text


def _train(spec: FineTuneSpec) -> TrainJob:
    """With the fewest rows that the task compares with each other."""
    train = spec.train
    epochs = train.epochs if train.epochs is not None or train.steps is not None else 1.0
    return TrainJob(
        epochs=epochs,
        steps=train.steps,
        sequence_length=train.sequence_length,
        packing=train.packing,
        micro_batch=spec.rollout.generations if spec.task == "grpo" else 2,
        learning_rate=train.learning_rate,
        scheduler=train.scheduler,
        warmup=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        optimizer=train.optimizer,
        precision=train.precision,  # type: ignore[arg-type]
        gradient_checkpointing=False,
        attention=train.attention,
        seed=train.seed,
    )


def _evaluate(spec: FineTuneSpec, base_dir: Path) -> EvaluateJob:
    every = None if spec.evaluate.every is None else parse_every(spec.evaluate.every)
    evaluate, guard = spec.evaluate, spec.evaluate.guard
    return EvaluateJob(
        metric=spec.evaluate.metric if spec.goal.metric is None else spec.goal.metric.name,
        samples=spec.evaluate.samples,
        every_steps=None if every is None else every.steps,
        every_s=None if every is None else every.seconds,
        goal=None if spec.goal.metric is None else spec.goal.metric.at_least,
        patience=evaluate.patience,
        min_change=evaluate.min_change,
        choose=evaluate.choose,
        guard=None
        if guard is None
        else GuardJob(data_ref(base_dir, guard.data).value, guard.metric, guard.at_most_worse, guard.samples),
    )


def _checkpoints(spec: FineTuneSpec, candidate: Candidate, uri: str) -> CheckpointsJob:
    every = parse_every(spec.checkpoints.every)
    hazard_per_h = hazard_of(candidate)
    auto_s = _LOCAL_EVERY_S if hazard_per_h is None else None
    seconds = auto_s if every.is_auto else every.seconds
    limit = spec.checkpoints.upload_limit_mib_per_s
    limit_bytes_per_s = None if limit is None else limit * 2**20
    return CheckpointsJob(uri, every.steps, seconds, spec.checkpoints.keep, hazard_per_h, limit_bytes_per_s)


def hazard_of(candidate: Candidate) -> float | None:
    """Expected losses an hour of a machine on spot, the worker's prior; None where nothing is taken away."""
    if candidate.offer.market != "spot":
        return None
    losses = candidate.risk.interruptions if candidate.risk is not None else 0.0
    hours = candidate.wall_clock_h.p50
    return max(losses / hours, _LEAST_HAZARD_PER_H) if hours > 0 and losses > 0 else _UNKNOWN_HAZARD_PER_H
