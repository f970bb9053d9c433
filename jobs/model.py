"""Loads the base model and its tokenizer, and says what adapter goes on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from jobs.spec import JobSpec
from jobs.spec_rules import EXPERT_NAMES, FUSED_EXPERTS, PROMPT_LEARNING
from jobs.towers import freeze_other_towers, other_towers, text_model_class
from providers.errors import TuneplanError, UsageError

_ATTENTION = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}

# The projections around attention, as the common families name them.
_ATTENTION_MODULES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj"),
    *("query", "key", "value", "q_lin", "k_lin", "v_lin", "out_lin"),
    *("query_key_value", "c_attn", "Wqkv", "q", "k", "v", "o"),
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_CLASSIFY = ("classification", "reward")
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
_SECOND_LINEAR = {"down_proj", "fc2", "dense_4h_to_h", "lin2", "wo", "fc_out", "w2"}


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


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Save a tokenizer for whoever uses the model: it neither cuts nor pads, as it did for the training's own batches.

    Whoever reads `tokenizer.json` without transformers would heed that. Several chat templates go into the
    configuration, as a finished model has no directories.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    several = isinstance(tokenizer.chat_template, dict)
    if several:
        (directory / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(str(directory), save_jinja_files=not several)


def save_processor(job: JobSpec, base: Path, model: Any, directory: Path) -> None:
    """Copy what turns images and sounds into a model's inputs, as its base has it; nothing where it reads text alone.

    It was not trained, but servers do not load such a model without it.
    """
    if other_towers(model) is None:
        return
    from transformers.utils import cached_file

    quietly = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    for name in _PROCESSOR_FILES:
        found = cached_file(_source(job, base), name, revision=job.model.revision or "main", **quietly)
        if found is not None:
            shutil.copyfile(found, directory / name)


def load_model(job: JobSpec, base: Path, tokenizer: Any, label_names: tuple[str, ...]) -> Any:
    """The base model in the job's precision, ready for its adapter.

    Raises:
        TuneplanError: It cannot be loaded.
        UsageError: A package for the job's attention or quantisation is not installed.
    """
    from transformers import AutoConfig

    source = _source(job, base)
    options: dict[str, Any] = {**_hub_arguments(job), "dtype": _weights_dtype(job)}
    if job.train.attention != "auto":
        options["attn_implementation"] = _ATTENTION[job.train.attention]
    if job.quantization != "none":
        options["quantization_config"] = _quantization(job)
    if job.task in _CLASSIFY:
        options.update(num_labels=len(label_names) or 1, **_label_maps(label_names))
    try:
        config = AutoConfig.from_pretrained(source, **_hub_arguments(job))
        model = model_class(job, config).from_pretrained(source, **options)
    except ImportError as error:
        hint = "add the package to environment.packages, or change train.attention or quantization"
        raise UsageError(f"{source} needs a package that is not here: {error}", hint=hint) from error
    except (OSError, ValueError) as error:
        raise TuneplanError(f"cannot load {source}: {error}", code="model") from error
    for config in (model.config, model.config.get_text_config()):
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = tokenizer.pad_token_id
    freeze_other_towers(model)
    _as_trl_expects(model)
    if job.quantization == "4bit":
        _never_repack(model)
    return model


def model_class(job: JobSpec, config: Any) -> Any:
    """transformers' auto class that loads a model of this configuration with the head that its task needs."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification if job.task in _CLASSIFY else text_model_class(config)


def _as_trl_expects(model: Any) -> None:
    """Llama 4 names its backbone and its number of experts otherwise than TRL's head looks for them.

    It has no loss that balances its experts either, for which TRL wants the number.
    """
    if model.base_model is model and hasattr(model, "model"):
        model.base_model_prefix = "model"
    text = model.config.get_text_config()
    if hasattr(text, "router_aux_loss_coef") and not hasattr(text, "num_experts"):
        text.router_aux_loss_coef = 0.0


def adapter_config(job: JobSpec, model: Any) -> Any:
    """The configuration of the job's adapter in PEFT's terms, None for a full fine-tuning.

    Raises:
        UsageError: The attention modules of the model are not known.
    """
    import peft

    method = job.method
    if method.kind == "full":
        return None
    task = "SEQ_CLS" if job.task in _CLASSIFY else "CAUSAL_LM"
    if method.kind in PROMPT_LEARNING:
        learned = peft.PromptTuningConfig if method.kind == "prompt_tuning" else peft.PrefixTuningConfig
        return learned(task_type=task, num_virtual_tokens=method.virtual_tokens)
    if method.kind == "ln_tuning":
        return peft.LNTuningConfig(
            task_type=task, target_modules=_norms(model), exclude_modules=other_towers(model)
        )
    common: dict[str, Any] = {"task_type": task, "target_modules": _targets(job, model)}
    if method.kind == "vera":  # alone in having no exclude_modules
        common["target_modules"] = _outside_towers(common["target_modules"], model)
        return peft.VeraConfig(r=method.rank, vera_dropout=method.dropout, **common)
    common["exclude_modules"] = other_towers(model)
    alpha = method.alpha if method.alpha is not None else 2 * method.rank
    if method.kind == "ia3":
        return _ia3(common, model)
    if method.kind in ("loha", "lokr"):
        products = peft.LoHaConfig if method.kind == "loha" else peft.LoKrConfig
        return products(r=method.rank, alpha=alpha, module_dropout=method.dropout, **common)
    if method.kind == "oft":
        return peft.OFTConfig(oft_block_size=method.rank, module_dropout=method.dropout, **common)
    if method.kind == "boft":
        return peft.BOFTConfig(boft_block_size=method.rank, boft_dropout=method.dropout, **common)
    return peft.LoraConfig(
        r=method.rank,
        lora_alpha=alpha,
        lora_dropout=method.dropout,
        use_rslora=method.kind == "rslora",
        use_dora=method.kind == "dora",
        **common,
    )


def _ia3(common: dict[str, Any], model: Any) -> Any:
    """Scales outputs, and (T-Few) the input of the second linear map of the feed-forward block.

    Both sets must be named alike, or PEFT does not load what it saved.
    """
    import peft

    if common["target_modules"] == "all-linear":
        common = {**common, "target_modules": _linear_names(model)}
    second = sorted(_SECOND_LINEAR & set(common["target_modules"]))
    return peft.IA3Config(**common, feedforward_modules=second)


def _norms(model: Any) -> list[str]:
    """Last parts of the names of the norms of the hidden width, not of single heads."""
    width = model.config.get_text_config().hidden_size
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__ and module.weight.numel() == width
    }
    return sorted(found)


def _linear_names(model: Any) -> list[str]:
    """Last parts of the names of the linear modules, without those of the output."""
    from torch.nn import Linear

    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, Linear) and module is not head
    }
    return sorted(names - {"score", "classifier"})


def _targets(job: JobSpec, model: Any) -> str | list[str]:
    targets = job.method.targets
    if targets == ("all-linear",):
        return _all_linear(model)
    if targets != ("attention",):
        return list(targets)
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    found = [name for name in _ATTENTION_MODULES if name in names]
    if not found:
        hint = "name the modules in method.targets, or use all-linear"
        raise UsageError("the attention modules of this model are not known", hint=hint, code="bad_targets")
    return found


def _all_linear(model: Any) -> str | list[str]:
    """`all-linear` in PEFT's terms; where that would reach what cannot be adapted, the names of everything else.

    A router may return more than a tensor, which PEFT's layer around it cannot take. DistilBERT's head has two layers;
    PEFT trains both whole, by the ends of their names.
    """
    names = set(_linear_names(model))
    left = names & {"pre_classifier"}
    paths = [name.split(".") for name, _ in model.named_modules()]
    if any("experts" in path for path in paths):
        fused = model.config.get_text_config().model_type in FUSED_EXPERTS
        left |= _ROUTERS | (EXPERT_NAMES if fused else frozenset())
        left |= {path[-1] for path in paths if "router" in path[:-1]}
    return sorted(names - left) if left else "all-linear"


def _outside_towers(targets: str | list[str], model: Any) -> str | list[str]:
    """The targets as an expression that no module of another tower matches, where there are such towers."""
    towers = other_towers(model)
    if towers is None:
        return targets
    names = _linear_names(model) if isinstance(targets, str) else targets
    return rf"(?!{towers}$).*\.({'|'.join(map(re.escape, names))})"


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
    if not names:
        return {}
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
