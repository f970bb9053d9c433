"""An axolotl configuration from a spec, where it fits."""

from __future__ import annotations

from typing import Any

from planner.convert.axolotl import OPTIMIZERS
from planner.convert.conversion import Conversion
from planner.spec import FineTuneSpec
from planner.spec_types import Section

_TYPES = {
    "messages": "chat_template",
    "text": "completion",
    "prompt_completion": "alpaca",
    "auto": "chat_template",
    "preference": "chatml.intel",
    "prompt": "completion",
}
_TASKS = ("sft", "dpo", "kto", "reward", "grpo")
_OPTIMIZER_NAMES = {ours: theirs for theirs, ours in reversed(OPTIMIZERS.items())}
#: FSDP2 with parameters on the host, also for one GPU.
_ON_HOST = {
    "fsdp_version": 2,
    "fsdp_config": {
        "offload_params": True,
        "cpu_ram_efficient_loading": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "reshard_after_forward": True,
    },
}
#: Sections that say nothing about the training itself.
_OURS = ("goal", "where", "environment", "checkpoints", "output", "evaluate")


def to_axolotl(spec: FineTuneSpec, *, gpus: int = 1) -> Conversion:
    """Translate what has a counterpart; `sections` is then axolotl's configuration.

    Args:
        spec: The spec.
        gpus: GPUs it will run on; axolotl counts batches for one.

    Raises:
        ValueError: It has no such task, or the batch does not divide over the GPUs.
    """
    if spec.task not in _TASKS:
        raise ValueError(f"axolotl has no counterpart of task {spec.task}")
    conversion = Conversion("axolotl", {})
    parts = (_model(spec), _method(spec), _data(spec, conversion), _training(spec, gpus), _arithmetic(spec))
    for part in parts:
        conversion.sections |= {name: value for name, value in part.items() if value is not None}
    for name in _OURS:
        section = getattr(spec, name)
        if isinstance(section, Section) and section.model_fields_set:
            conversion.left[name] = "axolotl knows nothing of machines, money and metrics"
    return conversion


def _model(spec: FineTuneSpec) -> dict[str, Any]:
    return {
        "base_model": spec.model.id,
        "revision_of_model": spec.model.revision,
        "trust_remote_code": spec.model.trust_remote_code or None,
    }


def _method(spec: FineTuneSpec) -> dict[str, Any]:
    method, quantization = spec.method, spec.effective_quantization()
    if method.kind == "full":
        return {}
    found: dict[str, Any] = {
        "adapter": "qlora" if quantization == "4bit" else "lora",
        "load_in_4bit": True if quantization == "4bit" else None,
        "load_in_8bit": True if quantization == "8bit" else None,
        "lora_r": method.rank,
        "lora_alpha": round(method.effective_alpha()),
        "lora_dropout": method.dropout,
        "peft_use_dora": True if method.kind in ("dora", "qdora") else None,
        "peft_use_rslora": True if method.kind == "rslora" else None,
    }
    if method.targets == "all-linear":
        return {**found, "lora_target_linear": True}
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return {
        **found,
        "lora_target_modules": attention if method.targets == "attention" else list(method.targets),
    }


def _data(spec: FineTuneSpec, conversion: Conversion) -> dict[str, Any]:
    data = spec.data
    found: dict[str, Any] = {"rl": spec.task if spec.task in ("dpo", "kto", "grpo") else None}
    found["reward_model"] = True if spec.task == "reward" else None
    if data.train is None:
        conversion.left["data"] = "there is no training file yet: add `datasets`"
        return found
    kind = _TYPES[data.format]
    found["datasets"] = [{"path": data.train, "type": kind}]
    if data.eval is not None:
        found["test_datasets"] = [{"path": data.eval, "split": "train", "type": kind}]
    if data.format == "prompt_completion":
        conversion.notes.append(
            "axolotl's alpaca type reads instruction and output, not prompt and completion"
        )
    return found


def _training(spec: FineTuneSpec, gpus: int) -> dict[str, Any]:
    train = spec.train
    if train.global_batch % gpus:
        raise ValueError(f"a global batch of {train.global_batch} does not divide over {gpus} GPUs")
    share = train.global_batch // gpus
    micro = 1 if train.micro_batch == "auto" else train.micro_batch
    if share % micro:
        raise ValueError(f"{share} rows a GPU do not divide into micro-batches of {micro}")
    return {
        "sequence_len": train.sequence_length,
        "sample_packing": train.packing,
        "micro_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "num_epochs": None if train.steps else (train.epochs or 1.0),
        "max_steps": train.steps,
        "learning_rate": train.learning_rate,
        "lr_scheduler": train.scheduler,
        "warmup_ratio": train.warmup,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optimizer": _OPTIMIZER_NAMES[train.optimizer],
        "seed": train.seed,
    }


def _arithmetic(spec: FineTuneSpec) -> dict[str, Any]:
    train = spec.train
    return {
        **(_ON_HOST if train.offload != "none" else {}),
        "bf16": True if train.precision in ("bf16", "fp8") else None,
        "fp16": True if train.precision == "fp16" else None,
        "fp8": True if train.precision == "fp8" else None,
        "gradient_checkpointing": train.gradient_checkpointing is not False,
        "flash_attention": True if train.attention in ("auto", "flash") else None,
        "sdp_attention": True if train.attention == "sdpa" else None,
        "eager_attention": True if train.attention == "eager" else None,
    }
