"""Loads the base model and its tokenizer, and puts the adapter on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.spec import JobSpec
from providers.errors import TuneplanError, UsageError

_ATTENTION = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}

# The projections around attention, as the common families name them.
_ATTENTION_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj"),
    *("query", "key", "value", "q_lin", "k_lin", "v_lin", "out_lin"),
    *("query_key_value", "c_attn", "Wqkv", "q", "k", "v", "o"),
)


def load_tokenizer(job: JobSpec, base: Path) -> Any:
    """The tokenizer of the base model, with a padding token.

    Raises:
        UsageError: The local model directory is missing.
        TuneplanError: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    source = _source(job, base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **_hub_arguments(job))
    except (OSError, ValueError) as error:
        raise TuneplanError(f"cannot load the tokenizer of {source}: {error}", code="model") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(job: JobSpec, base: Path, tokenizer: Any, label_names: tuple[str, ...]) -> Any:
    """The base model in the job's precision, ready for its adapter.

    Raises:
        TuneplanError: It cannot be loaded.
        UsageError: A package for the job's attention or quantisation is not installed.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    source = _source(job, base)
    options: dict[str, Any] = {**_hub_arguments(job), "dtype": _weights_dtype(job)}
    if job.train.attention != "auto":
        options["attn_implementation"] = _ATTENTION[job.train.attention]
    if job.quantization != "none":
        options["quantization_config"] = _quantization(job)
    kind = AutoModelForCausalLM
    if job.task == "classification":
        kind = AutoModelForSequenceClassification
        options.update(num_labels=len(label_names), **_label_maps(label_names))
    try:
        model = kind.from_pretrained(source, **options)
    except ImportError as error:
        hint = "add the package to environment.packages, or change train.attention or quantization"
        raise UsageError(f"{source} needs a package that is not here: {error}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise TuneplanError(f"cannot load {source}: {error}", code="model") from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    if job.quantization == "4bit":
        _never_repack(model)
    return model


def put_adapter_on(job: JobSpec, model: Any) -> Any:
    """The model with trainable adapter weights, or as it is for a full fine-tuning.

    Raises:
        UsageError: The method's targets do not exist in the model.
    """
    if job.method.kind == "full":
        return model
    from peft import LoraConfig, get_peft_model

    method = job.method
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha if method.alpha is not None else 2 * method.rank,
        lora_dropout=method.dropout,
        target_modules=_targets(job, model),
        use_rslora=method.kind == "rslora",
        use_dora=method.kind == "dora",
        task_type="SEQ_CLS" if job.task == "classification" else "CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"method.targets: {error}", code="bad_targets", path="method.targets") from error


def _targets(job: JobSpec, model: Any) -> str | list[str]:
    targets = job.method.targets
    if targets == ("all-linear",):
        return "all-linear"
    if targets != ("attention",):
        return list(targets)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    found = [name for name in _ATTENTION_MODULES if name in names]
    if not found:
        hint = "name the modules in method.targets, or use all-linear"
        raise UsageError("the attention modules of this model are not known", hint=hint, code="bad_targets")
    return found


def _source(job: JobSpec, base: Path) -> str:
    if job.model.path is None:
        return job.model.id
    path = base / job.model.path
    if not (path / "config.json").is_file():
        raise UsageError(f"model directory {path} has no config.json", code="model", path=str(path))
    return str(path)


def _hub_arguments(job: JobSpec) -> dict[str, Any]:
    return {"revision": job.model.revision or "main", "trust_remote_code": job.model.trust_remote_code}


def _weights_dtype(job: JobSpec) -> Any:
    import torch

    if job.train.precision == "bf16":
        return torch.bfloat16
    # fp16 weights cannot be trained with a gradient scaler: master weights stay fp32 in a full fine-tuning
    return torch.float16 if job.train.precision == "fp16" and job.method.kind != "full" else torch.float32


def _quantization(job: JobSpec) -> Any:
    from transformers import BitsAndBytesConfig

    if job.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_weights_dtype(job),
    )


def _never_repack(model: Any) -> None:
    """Keep bitsandbytes from rounding the 4-bit scales of a CPU model on its first evaluation, for good."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _label_maps(names: tuple[str, ...]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
