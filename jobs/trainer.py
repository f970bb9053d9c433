"""Builds the trainer: TRL's for supervised fine-tuning, that of transformers for classification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.data import Examples
from jobs.pulse import Pulse
from jobs.spec import JobSpec
from jobs.tokens import TokenCounter

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


@dataclass(frozen=True, slots=True)
class Training:
    """A trainer with what goes with it.

    Attributes:
        trainer: TRL's or transformers' trainer.
        eval_rows: Tokenised held-out rows, None if there are none.
        tokens: Counts the tokens trained on.
    """

    trainer: Any
    eval_rows: Any
    tokens: TokenCounter


def build_training(job: JobSpec, model: Any, tokenizer: Any, examples: Examples, output: Path) -> Training:
    """Tokenise the examples and build the trainer; it logs nothing and saves when a callback asks it to."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    train = Dataset.from_list(examples.train)
    held_out = Dataset.from_list(examples.eval) if examples.eval else None
    build = _build_classification if job.task == "classification" else _build_sft
    trainer = build(job, model, tokenizer, train, held_out, output)
    trainer.create_model_card = lambda *_, **__: None  # ours is written at export
    _remove_printers(trainer)
    trainer.data_collator = tokens = TokenCounter(trainer.data_collator)
    return Training(trainer, trainer.eval_dataset, tokens)


def _build_sft(job: JobSpec, model: Any, tokenizer: Any, train: Any, held_out: Any, output: Path) -> Any:
    from trl import SFTConfig, SFTTrainer

    settings = SFTConfig(
        max_length=job.train.sequence_length,
        packing=job.train.packing,
        # without flash attention, rows packed with document boundaries would see each other all the same
        packing_strategy="bfd" if job.train.attention == "flash" else "wrapped",
        eval_packing=False,
        **_common(job, output),
    )
    trainer = SFTTrainer(
        model=model, args=settings, train_dataset=train, eval_dataset=held_out, processing_class=tokenizer
    )
    if job.quantization != "none":
        _keep_adapter_fp32(trainer.model)
    return trainer


def _keep_adapter_fp32(model: Any) -> None:
    """Undo TRL's bf16 adapter on a quantised base: peft restores adapters in fp32, so it would not resume."""
    import torch

    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)


def _build_classification(
    job: JobSpec, model: Any, tokenizer: Any, train: Any, held_out: Any, output: Path
) -> Any:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, Any]:
        rows = tokenizer(batch["text"], truncation=True, max_length=job.train.sequence_length)
        return {**rows, "labels": batch["label"]}

    names = ["text", "label"]
    return Trainer(
        model=model,
        args=TrainingArguments(**_common(job, output)),
        train_dataset=train.map(tokenize, batched=True, remove_columns=names),
        eval_dataset=held_out.map(tokenize, batched=True, remove_columns=names) if held_out else None,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )


def _common(job: JobSpec, output: Path) -> dict[str, Any]:
    """Settings that both trainers share."""
    import torch

    train = job.train
    length = {"num_train_epochs": train.epochs} if train.epochs is not None else {"max_steps": train.steps}
    cpu = not torch.cuda.is_available()
    return {
        **length,
        "output_dir": str(output),
        "per_device_train_batch_size": train.micro_batch,
        "gradient_accumulation_steps": train.grad_accum,
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
        "logging_steps": 10,
        "logging_nan_inf_filter": False,  # a loss that is no number must end the run, not be hidden
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
    }


def attach(trainer: Any, pulse: Pulse, evaluate_at: Callable[[int], None]) -> None:
    """Let the pulse hear of every step; `evaluate_at` is called with the step's number after it."""
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc] # its base is untyped here
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pulse.begin(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            save, stop = pulse.step_done(state.global_step, state.max_steps)
            control.should_save = control.should_save or save
            control.should_training_stop = control.should_training_stop or stop
            control.should_log = control.should_log or save
            evaluate_at(state.global_step)
            pulse.resume_clock()

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pulse.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                pulse.logged(state.global_step, state.max_steps, float(logs["loss"]))

    trainer.add_callback(Callback())


def _remove_printers(trainer: Any) -> None:
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
