"""Builds the trainer of a job's task, and lets a pulse hear of its steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jobs.data import Examples
from jobs.formats import Row, is_conversation
from jobs.ingredients import Ingredients
from jobs.model import adapter_config
from jobs.preference import build_dpo, build_kto, build_reward
from jobs.pulse import Pulse
from jobs.rollout import build_grpo
from jobs.scoring import Scoring
from jobs.sharded import sharding_settings, shared_out
from jobs.spec import JobSpec, Task, TrainJob
from jobs.supervised import build_classification, build_sft
from jobs.training import Training
from providers.errors import UsageError

_OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion_32bit",
    "sgd": "sgd",
}


_BUILDERS: dict[Task, Callable[[Ingredients], Training]] = {
    "sft": build_sft,
    "classification": build_classification,
    "dpo": build_dpo,
    "reward": build_reward,
    "kto": build_kto,
    "grpo": build_grpo,
}


def build_training(
    job: JobSpec,
    model: Any,
    again: Callable[[], Any],
    tokenizer: Any,
    examples: Examples,
    output: Path,
    processes: int = 1,
) -> Training:
    """Put the adapter on, tokenise the examples and build the trainer; it saves when a callback asks it to.

    Raises:
        UsageError: The method's targets do not exist in the model, or the task cannot use what the job says.
    """
    from datasets import disable_progress_bars

    disable_progress_bars()
    parts = Ingredients(
        job=job,
        model=model,
        again=again,
        tokenizer=tokenizer,
        adapter=adapter_config(job, model),
        train=_table(examples.train),
        eval={name: _table(rows) for name, rows in examples.held_out.items()} or None,
        settings={**_common(job, output, processes), **sharding_settings(job, model, processes)},
        processes=processes,
    )
    training = _built(parts)
    if job.quantization != "none":
        _keep_adapter_fp32(training.trainer.model)
    training.trainer.create_model_card = lambda *_, **__: None  # ours is written at export
    _remove_printers(training.trainer)
    return training


def _table(rows: list[Row]) -> Any:
    """Rows as TRL takes them. Messages stay as they are: a table's columns would give each one the keys of all, with
    None, and each call the arguments of all others, which chat templates write.
    """
    from datasets import Dataset, Features, Json, List

    talks = {key for key, value in rows[0].items() if is_conversation(value)}
    if not talks:
        return Dataset.from_list(rows)
    others = Dataset.from_list([{key: row[key] for key in row if key not in talks} for row in rows]).features
    columns = {key: List(Json()) if key in talks else others[key] for key in rows[0]}
    return Dataset.from_list(rows, features=Features(columns))


def _built(parts: Ingredients) -> Training:
    from jinja2 import TemplateError

    try:
        with shared_out(parts.job.task) if "fsdp" in parts.settings else nullcontext():
            return _BUILDERS[parts.job.task](parts)
    except ValueError as error:
        if "arget" in str(error) and "modules" in str(error):  # PEFT has no error of its own for these
            raise UsageError(f"method.targets: {error}", code="bad_targets", path="method.targets") from error
        raise
    except TemplateError as error:
        message = f"the chat template of this model does not take a conversation of the data: {error}"
        raise UsageError(message, hint="change the data, or the model", code="bad_data") from error


def _keep_adapter_fp32(model: Any) -> None:
    """Undo TRL's bf16 adapter on a quantised base: peft restores adapters in fp32, so it would not resume."""
    import torch

    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)


def _common(job: JobSpec, output: Path, processes: int) -> dict[str, Any]:
    """Settings that both trainers share."""
    import torch

    train = job.train
    micro_batch, grad_accum = batches(train, processes)
    length = {"num_train_epochs": train.epochs} if train.epochs is not None else {"max_steps": train.steps}
    cpu = not torch.cuda.is_available()
    return {
        **length,
        "output_dir": str(output),
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": grad_accum,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.scheduler,
        "warmup_steps": train.warmup,  # below 1 it is a share of the steps
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": _OPTIMIZERS[train.optimizer],
        "bf16": train.precision == "bf16",
        "fp16": train.precision == "fp16",
        "gradient_checkpointing": train.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": train.seed,
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "ddp_find_unused_parameters": False,
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # a loss that is no number must end the run, not be hidden
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
    }


def batches(train: TrainJob, processes: int) -> tuple[int, int]:
    """Micro-batch and accumulation with which this many processes learn from the job's rows in each step.

    >>> batches(TrainJob(steps=1, micro_batch=4, grad_accum=2, processes=2), 1)
    (4, 4)

    Raises:
        UsageError: The rows of a step cannot be shared out evenly.
    """
    rows = train.micro_batch * train.grad_accum * train.processes
    if rows % processes:
        hint = "start a number of processes that divides it, or change train.global_batch"
        raise UsageError(
            f"{rows} rows a step cannot be shared by {processes} processes", hint=hint, code="bad_job"
        )
    mine = rows // processes
    micro = max(size for size in range(1, min(train.micro_batch, mine) + 1) if mine % size == 0)
    return micro, mine // micro


class TrainingOver(Exception):  # noqa: N818 - no error
    """There is no step left to do: the trainer has no other way out before its first one."""


def attach(trainer: Any, pulse: Pulse, scoring: Scoring) -> None:
    """Let the pulse hear of every step, and evaluate where that is due; an evaluation may end the training."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc] # its base is untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            scoring.score_unmeasured()
            if scoring.standing.ended is not None or state.global_step >= state.max_steps:
                raise TrainingOver
            pulse.begin(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            save, stop = pulse.step_done(step, state.max_steps)
            must_stop = (lambda: True) if stop else pulse.must_stop
            if not scoring.score_if_due(step, state.max_steps, must_stop) and not stop:
                save, stop = pulse.may_save(step), True
            control.should_save = control.should_save or save
            control.should_training_stop = control.should_training_stop or stop
            ended = scoring.standing.ended is not None
            control.should_training_stop = control.should_training_stop or ended
            if ended or scoring.is_best(step):
                control.should_save = True
            if control.should_save:
                control.should_log = True  # what is not in the checkpoint is lost to whoever goes on from it
                pulse.insist_on_numbers(step, _is_finite(trainer.model))
            pulse.resume_clock(saving=control.should_save)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step
            directory = Path(args.output_dir) / f"checkpoint-{step}"
            scoring.saved(directory)
            pulse.saved(directory, step, best=scoring.is_best(step))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                pulse.logged(state.global_step, state.max_steps, float(logs["loss"]))
                scoring.logged(state.global_step, float(logs["loss"]))

    trainer.add_callback(Callback())


def after_first_step(trainer: Any, act: Callable[[], None]) -> None:
    """Call once when a step of this training is done, in every process where a pulse is attached already."""
    from transformers import TrainerCallback

    acts = [act]

    class Callback(TrainerCallback):  # type: ignore[misc] # its base is untyped here
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if acts:
                acts.pop()()

    trainer.add_callback(Callback())


def _is_finite(model: Any) -> bool:
    """Whether all trained weights of this process are numbers."""
    import torch

    trained = (weight for weight in model.parameters() if weight.requires_grad)
    mine = (weight.to_local() if hasattr(weight, "to_local") else weight for weight in trained)
    return bool(torch.stack([weight.isfinite().all() for weight in mine]).all())


def _remove_printers(trainer: Any) -> None:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
