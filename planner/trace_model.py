"""The model that `planner.trace` runs a step of, as transformers and PEFT build it, on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from planner.architecture import Adapter, ModelArchitecture, adapter_targets, parameter_counts
from planner.architecture.linears import LAYOUTS
from planner.memory.collectives import is_classifier
from planner.memory.precision import widths
from planner.setup import TrainingSetup
from planner.trace_functions import AsOnCuda
from planner.trace_modules import NEW_HEADS, packed, quantise, register_fused_attention, rounded
from providers.errors import UsageError

_SIZE_TOLERANCE = 0.01
_TOWER_SHARE = 0.01  # of all parameters: less than that is a detail of the model itself


def check_size(model: Any, setup: TrainingSetup) -> None:
    """Refuse a model that transformers read differently from what the estimate counted."""
    counted = parameter_counts(setup.arch, setup.task, setup.labels).total - towers(setup)
    size = sum(parameter.numel() for parameter in model.parameters())
    if abs(size - counted) > _SIZE_TOLERANCE * counted:
        raise UsageError(
            f"transformers builds {size:,} parameters of {setup.arch.id}, the estimate counts {counted:,}",
            hint="give the model as a directory with its own config.json",
            code="trace",
        )


#: What the registry says of a model beside the fields of its configuration.
_OURS = ("source", "extra_parameters", "published_type")


def towers(setup: TrainingSetup) -> int:
    """Parameters of other towers than the language model, which is all that is traced; they only lie there."""
    extra = setup.arch.extra_parameters
    return extra if extra > _TOWER_SHARE * parameter_counts(setup.arch).total else 0


def _native(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields by the names that transformers' own class of the family has: OPT's MLP and embedding have others.

    Where none shares keys nothing is said of it, and some classes then take a number of their own (Qwen2's is 32).
    """
    fields = {key: value for key, value in config.items() if key not in _OURS}
    if "num_attention_heads" in fields:
        fields.setdefault("num_key_value_heads", fields["num_attention_heads"])
    if fields["model_type"] == "opt":
        fields.setdefault("ffn_dim", fields.get("intermediate_size"))
        fields.setdefault("word_embed_proj_dim", fields["hidden_size"])
    return fields


def build(setup: TrainingSetup, config: Mapping[str, Any]) -> Any:
    """The base model with the head of the task.

    Raises:
        UsageError: If transformers cannot build it.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForQuestionAnswering,
        AutoModelForSeq2SeqLM,
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
    )

    fields = _native(config)
    with_words = {"encoder": AutoModelForMaskedLM, "encoder-decoder": AutoModelForSeq2SeqLM}
    classes = {
        "classification": AutoModelForSequenceClassification, "reward": AutoModelForSequenceClassification,
        "ner": AutoModelForTokenClassification, "qa": AutoModelForQuestionAnswering,
    }.get(setup.task, with_words.get(setup.arch.kind, AutoModelForCausalLM))  # fmt: skip
    kind = _kind_of_base(setup)
    try:
        built = AutoConfig.for_model(fields.pop("model_type"), **fields)
        built.use_cache, built.pad_token_id = False, 0
        built.num_labels = 1 if setup.task == "reward" else 2 if setup.task == "qa" else setup.labels
        if setup.arch.kind == "encoder-decoder":
            built.decoder_start_token_id = 0
        attention = "eager" if setup.attention == "eager" else register_fused_attention()
        with torch.device("meta"):
            model = classes.from_config(built, attn_implementation=attention, dtype=kind)
            if setup.arch.kind == "encoder-decoder" and not setup.arch.tied_embeddings:
                # transformers 5 builds every T5 with a tied head, and loads a head of its own where the file has one
                rows, width = model.lm_head.weight.shape
                model.lm_head = torch.nn.Linear(width, rows, bias=False, dtype=kind)
    except (KeyError, ValueError) as error:
        raise UsageError(f"transformers cannot build this model: {error}", code="trace") from error
    model.train()
    for module in model.modules():
        if hasattr(module, "layerdrop"):
            module.training = False  # OPT draws which blocks to leave out, and without values leaves out all
    return model


def _kind_of_base(setup: TrainingSetup) -> Any:
    """The type that the model is held in before it is quantised."""
    import torch

    if widths(setup).frozen == 4.0:
        return torch.float32
    return torch.float16 if setup.precision.endswith("fp16") else torch.bfloat16


def prepare(setup: TrainingSetup, model: Any, functions: AsOnCuda) -> Any:
    """Quantise, add adapters, switch checkpointing on: in the order of a training script."""
    if setup.quantization in ("4bit", "8bit"):
        quantise(model, packed if setup.quantization == "4bit" else rounded)
        if setup.upcast_frozen:
            _upcast(model)
    if setup.gradient_checkpointing:
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), functions.mode())}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=again)
    if setup.adapter is not None:
        _adapt(setup, setup.adapter, model)
    return model


def _upcast(model: Any) -> None:
    """What is not quantised, as in peft's `prepare_model_for_kbit_training`."""
    import torch

    for parameter in model.parameters():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.to(torch.float32)


def _adapt(setup: TrainingSetup, adapter: Adapter, model: Any) -> None:
    """Freeze the base, add adapters; a new head is trained whole beside them."""
    import torch
    from peft import inject_adapter_in_model

    if setup.gradient_checkpointing:
        model.enable_input_require_grads()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    names = sorted({shape.name for shape in adapter_targets(setup.arch, adapter)})
    with torch.device("meta"):
        model = inject_adapter_in_model(_peft_config(adapter, setup.arch, names), model)
    kind = torch.float32 if adapter.fp32 else _kind_of_base(setup)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(kind)
    if is_classifier(setup):  # trained whole beside the adapters
        for name, parameter in model.named_parameters():
            if name.split(".")[0] in NEW_HEADS:
                parameter.requires_grad_(True)


def _peft_config(adapter: Adapter, arch: ModelArchitecture, names: list[str]) -> Any:
    """PEFT's own configuration of the method, where it may be put into a model without weights."""
    from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig

    if adapter.kind == "loha":
        return LoHaConfig(r=adapter.rank, alpha=adapter.rank, target_modules=names)
    if adapter.kind == "lokr":
        return LoKrConfig(r=adapter.rank, alpha=adapter.rank, target_modules=names)
    if adapter.kind == "ia3":
        feed = [name for name in names if name == LAYOUTS[arch.layout].down]
        return IA3Config(target_modules=names, feedforward_modules=feed)
    dropout = 0.1 if adapter.dropout else 0.0
    return LoraConfig(
        r=adapter.rank, target_modules=names, use_dora="dora" in adapter.kind, lora_dropout=dropout
    )
