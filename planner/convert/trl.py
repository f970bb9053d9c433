"""A spec from the YAML that `trl sft --config` and its kin read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.convert.axolotl import OPTIMIZERS
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

_ATTENTION = {"flash_attention_2": "flash", "flash_attention_3": "flash", "sdpa": "sdpa", "eager": "eager"}
#: A key that only one trainer knows tells the task.
_TELLING = {
    "grpo": ("num_generations", "max_completion_length"),
    "kto": ("desirable_weight", "undesirable_weight"),
    "reward": ("center_rewards_coefficient",),
    "dpo": ("beta", "loss_type", "precompute_ref_log_probs", "ref_model_name_or_path"),
}
_DEFAULT_BATCH, _DEFAULT_EPOCHS, _DEFAULT_LENGTH = 8, 3.0, 1024
_HARMLESS = frozenset(
    (
        *(
            "output_dir",
            "logging_",
            "report_to",
            "run_name",
            "push_to_hub",
            "hub_",
            "save_strategy",
            "eval_strategy",
        ),
        *(
            "per_device_eval_batch_size",
            "dataset_num_proc",
            "gradient_checkpointing_kwargs",
            "lora_task_type",
        ),
        *(
            "dataloader_",
            "overwrite_output_dir",
            "do_eval",
            "do_train",
            "remove_unused_columns",
            "ddp_",
            "tf32",
        ),
        *("bnb_4bit_", "use_bnb_nested_quant", "load_best_model_at_end", "disable_tqdm", "log_level"),
    )
)


def is_trl(given: Mapping[str, Any]) -> bool:
    """Whether a configuration is for one of TRL's trainers."""
    return "model_name_or_path" in given


def from_trl(given: Mapping[str, Any], *, gpus: int = 1, task: str | None = None) -> Conversion:
    """Translate what has a counterpart.

    Args:
        given: The configuration.
        gpus: GPUs it was meant for; TRL counts batches for one.
        task: sft, dpo, reward, kto or grpo; None to tell it by the keys, which do not name it.
    """
    conversion = Conversion("trl", dict(given))
    conversion.move(
        {
            "model_name_or_path": "model.id",
            "model_revision": "model.revision",
            "trust_remote_code": "model.trust_remote_code",
            "dataset_name": "data.train",
            "packing": "train.packing",
            "seed": "train.seed",
            "save_total_limit": "checkpoints.keep",
        }
    )
    _task(conversion, task)
    _method(conversion)
    _training(conversion, gpus)
    _arithmetic(conversion)
    no_packing_of_pairs(conversion)
    offload(conversion)
    for name in ("dataset_config", "dataset_train_split", "dataset_test_split"):
        conversion.refuse(name, "data.train is one file or data set: name the split in it")
    conversion.refuse(
        "completion_only_loss", "only answers are learned, in messages and in prompt_completion"
    )
    return conversion.finish(_HARMLESS)


def _task(conversion: Conversion, task: str | None) -> None:
    told = next(
        (name for name, keys in _TELLING.items() if any(key in conversion.given for key in keys)), "sft"
    )
    conversion.put("task", task or told)
    if task is None:
        conversion.notes.append(f"task {told} is told by the keys; `--task` gives another one")
    for keys in _TELLING.values():
        for key in keys:
            conversion.refuse(key, "the trainer's default holds")


def _method(conversion: Conversion) -> None:
    take = conversion.take
    adapter, four, eight = take("use_peft"), take("load_in_4bit"), take("load_in_8bit")
    rank, alpha, dropout = take("lora_r"), take("lora_alpha"), take("lora_dropout")
    targets, rslora, dora = take("lora_target_modules"), take("use_rslora"), take("use_dora")
    if not adapter:
        conversion.put("method.kind", "full")
        return
    kind = "dora" if dora else "rslora" if rslora else "lora"
    conversion.put("method.kind", f"q{kind}" if four and kind != "rslora" else kind)
    conversion.put("method.rank", rank or 16)
    conversion.put("method.alpha", alpha if alpha is not None else 32)
    conversion.put("method.dropout", dropout if dropout is not None else 0.05)
    conversion.put("method.targets", _targets(conversion, targets))
    if eight or (four and kind == "rslora"):
        conversion.put("quantization", "8bit" if eight else "4bit")
    conversion.refuse("lora_modules_to_save", "whole modules beside the adapters are not trained")


def _targets(conversion: Conversion, targets: Any) -> Any:
    if targets is None:
        conversion.notes.append("without lora_target_modules PEFT adapts q_proj and v_proj of most models")
        return ["q_proj", "v_proj"]
    if targets == "all-linear":
        return targets
    return targets.split() if isinstance(targets, str) else list(targets)


def _training(conversion: Conversion, gpus: int) -> None:
    take = conversion.take
    epochs = take("num_train_epochs")
    length_of_training(conversion, take("max_steps"), _DEFAULT_EPOCHS if epochs is None else epochs)
    conversion.put("train.sequence_length", take("max_length", "max_seq_length") or _DEFAULT_LENGTH)
    micro = take("per_device_train_batch_size")
    global_batch(conversion, micro or _DEFAULT_BATCH, take("gradient_accumulation_steps"), gpus)
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        conversion.put(f"train.{name}", number(take(name)))
    warmup(conversion, take("warmup_ratio"), take("warmup_steps"))
    scheduler(conversion, take("lr_scheduler_type") or "linear")
    wanted = take("optim")
    conversion.put("train.optimizer", OPTIMIZERS.get(wanted or "adamw_torch_fused"))
    if wanted is not None and wanted not in OPTIMIZERS:
        conversion.left["optim"] = f"{wanted} is unknown here: the default, adamw_fused, is estimated"
    for name, key in (("save_steps", "checkpoints.every"), ("eval_steps", "evaluate.every")):
        every = take(name)
        if isinstance(every, int) and every >= 1:
            conversion.put(key, f"{every} steps")


def _arithmetic(conversion: Conversion) -> None:
    take = conversion.take
    fp16, bf16, dtype = take("fp16"), take("bf16"), take("dtype", "torch_dtype")
    plain = bf16 is False or (bf16 is None and dtype == "float32")
    precision = "fp16" if fp16 else "fp32" if plain else "bf16"
    conversion.put("train.precision", precision)
    checkpointing = take("gradient_checkpointing")
    conversion.put("train.gradient_checkpointing", True if checkpointing is None else bool(checkpointing))
    conversion.put("train.attention", _ATTENTION.get(take("attn_implementation") or ""))
    take("use_liger_kernel")  # its loss without whole logits is what is launched anyway
