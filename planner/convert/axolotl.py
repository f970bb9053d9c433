"""A spec from an axolotl configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.convert.conversion import (
    Conversion,
    global_batch,
    length_of_training,
    no_packing_of_pairs,
    number,
    offload,
    scheduler,
    warmup,
)

OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_hf": "adamw",
    "adamw_torch_fused": "adamw_fused",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "paged_adamw_32bit": "paged_adamw_32bit",
    "adafactor": "adafactor",
    "lion_pytorch": "lion",
    "sgd": "sgd",
}
_FORMATS = {
    "alpaca": "prompt_completion",
    "completion": "text",
    "chat_template": "messages",
    "sharegpt": "messages",
}
_HARMLESS = frozenset(
    (
        *(
            "output_dir",
            "dataset_prepared_path",
            "logging_steps",
            "hub_",
            "special_tokens",
            "tokenizer_",
            "debug",
        ),
        *(
            "model_type",
            "is_",
            "wandb_",
            "mlflow_",
            "comet_",
            "dataset_processes",
            "dataset_num_proc",
            "strict",
        ),
        *("auto_resume_from_checkpoints", "save_safetensors", "pad_to_sequence_len", "eval_sample_packing"),
        *("gradient_checkpointing_kwargs", "plugins", "eval_", "evals_per_epoch", "saves_per_epoch", "save_"),
        *("group_by_length", "xformers_attention", "s2_attention", "dataloader_", "ddp_", "local_rank"),
    )
)


def is_axolotl(given: Mapping[str, Any]) -> bool:
    """Whether a configuration is axolotl's."""
    return "base_model" in given


def from_axolotl(given: Mapping[str, Any], *, gpus: int = 1) -> Conversion:
    """Translate what has a counterpart.

    Args:
        given: The configuration.
        gpus: GPUs it was meant for; axolotl counts batches for one.
    """
    conversion = Conversion("axolotl", dict(given))
    conversion.move(
        {
            "base_model": "model.id",
            "revision_of_model": "model.revision",
            "trust_remote_code": "model.trust_remote_code",
            "sequence_len": "train.sequence_length",
            "sample_packing": "train.packing",
            "seed": "train.seed",
            "save_total_limit": "checkpoints.keep",
        }
    )
    _method(conversion)
    _task(conversion)
    _data(conversion)
    _training(conversion, gpus)
    _arithmetic(conversion)
    _cadence(conversion)
    no_packing_of_pairs(conversion)
    offload(conversion)
    return conversion.finish(_HARMLESS)


def _method(conversion: Conversion) -> None:
    kind = conversion.take("adapter") or "full"
    if conversion.take("peft_use_dora"):
        kind = "qdora" if kind == "qlora" else "dora"
    if conversion.take("peft_use_rslora"):
        kind = "rslora"
    conversion.put("method.kind", kind)
    rank, alpha, dropout = (conversion.take(name) for name in ("lora_r", "lora_alpha", "lora_dropout"))
    targets, linear = conversion.take("lora_target_modules"), conversion.take("lora_target_linear")
    four, eight = conversion.take("load_in_4bit"), conversion.take("load_in_8bit")
    if kind == "full":
        return
    conversion.put("method.rank", rank)
    conversion.put("method.alpha", alpha)
    conversion.put("method.dropout", dropout)
    conversion.put("method.targets", "all-linear" if linear or targets is None else _names(targets))
    if kind not in ("qlora", "qdora"):
        conversion.put("quantization", "4bit" if four else "8bit" if eight else None)
    conversion.refuse("lora_modules_to_save", "whole modules beside the adapters are not trained")


def _names(targets: Any) -> Any:
    return (
        "all-linear" if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    )


def _task(conversion: Conversion) -> None:
    kind = conversion.take("rl")
    if conversion.take("reward_model"):
        kind = "reward"
    if kind in (None, "dpo", "kto", "grpo", "reward"):
        conversion.put("task", kind or "sft")
    else:
        conversion.put("task", "dpo")
        conversion.notes.append(f"rl {kind} is unknown here, dpo takes about the same memory and time")


def _data(conversion: Conversion) -> None:
    sets = conversion.take("datasets") or ()
    if sets:
        first = sets[0]
        conversion.put(
            "data.train",
            first.get("data_files") if isinstance(first.get("data_files"), str) else first.get("path"),
        )
        conversion.put("data.format", _format(conversion, first))
    for index, row in enumerate(sets[1:], 1):
        conversion.left[f"datasets[{index}]"] = f"a spec has one training file: join {row.get('path')} to it"
    held_out = conversion.take("test_datasets") or ()
    if held_out:
        conversion.put("data.eval", held_out[0].get("path"))
    if conversion.take("val_set_size"):
        conversion.left["val_set_size"] = "put held-out examples into a file and name it in data.eval"
    conversion.refuse("chat_template", "the tokenizer's own template is used")
    conversion.refuse("train_on_inputs", "only answers are learned, in messages and in prompt_completion")


def _format(conversion: Conversion, row: Mapping[str, Any]) -> str | None:
    task = conversion.sections["task"]
    if task in ("dpo", "reward", "kto"):
        return "preference"
    if task == "grpo":
        return "prompt"
    kind = row.get("type")
    known = _FORMATS.get(kind.split(".")[0].split(":")[0]) if isinstance(kind, str) else None
    if kind is not None and known is None:
        conversion.left["datasets[0].type"] = (
            f"{kind if isinstance(kind, str) else 'a type of its own'} is unknown here: "
            "write the rows as messages, prompt and completion, or text"
        )
    return known


def _training(conversion: Conversion, gpus: int) -> None:
    take = conversion.take
    length_of_training(conversion, take("max_steps"), take("num_epochs"))
    global_batch(conversion, take("micro_batch_size"), take("gradient_accumulation_steps"), gpus)
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        conversion.put(f"train.{name}", number(take(name)))
    warmup(conversion, take("warmup_ratio"), take("warmup_steps"))
    scheduler(conversion, take("lr_scheduler") or "cosine")
    wanted = take("optimizer")
    known = OPTIMIZERS.get(wanted or "adamw_torch_fused")
    conversion.put("train.optimizer", known)
    if known is None:
        conversion.left["optimizer"] = f"{wanted} is unknown here: the default, adamw_fused, is estimated"


def _arithmetic(conversion: Conversion) -> None:
    take = conversion.take
    bf16, fp16, fp8 = take("bf16", "bfloat16"), take("fp16", "float16"), take("fp8")
    take("tf32")
    conversion.put("train.precision", "fp8" if fp8 else "fp16" if fp16 else "bf16" if bf16 else "fp32")
    checkpointing = take("gradient_checkpointing")
    if isinstance(checkpointing, str):
        conversion.notes.append(
            f"gradient_checkpointing {checkpointing} is taken as true: nothing is offloaded"
        )
    conversion.put("train.gradient_checkpointing", bool(checkpointing))
    eager, flash, sdpa = take("eager_attention"), take("flash_attention"), take("sdp_attention")
    conversion.put("train.attention", "flash" if flash else "sdpa" if sdpa else "eager" if eager else None)
    # a loss without whole logits is what is launched anyway
    take("liger_fused_linear_cross_entropy", "cut_cross_entropy")


def _cadence(conversion: Conversion) -> None:
    every = conversion.take("save_steps")
    if isinstance(every, int) and every >= 1:
        conversion.put("checkpoints.every", f"{every} steps")
    every = conversion.take("eval_steps")
    if isinstance(every, int) and every >= 1:
        conversion.put("evaluate.every", f"{every} steps")
