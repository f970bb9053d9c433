"""Training methods, adapters and quantisation as published tables write them."""

from __future__ import annotations

import re

from planner.architecture import Adapter, ModelArchitecture, adapter_parameters, adapter_targets
from planner.backtest.cells import Row, UnsupportedRunError, cell, dated_before, number
from planner.backtest.partly import trains_partly
from planner.spec_types import packed_in_4bit
from planner.stacks import MEGATRON, stack_of

#: Every weight is trained, however a table spells it.
_FULL = re.compile(
    r"(?:(?:8 ?bit|fp8|bf16|fp16|16 ?bit) )?full"
    r"(?: ?(?:ft|weights?|param(?:eter)?s?(?: ft)?|model|(?:param\w* )?fine ?tun(?:e|ed|ing)))?"
    r"(?: \+?.*(?:8 ?bit|fp8|bf16|fp16|16 ?bit)(?: optimizer)?)?|fft|osf|fine ?tun(?:e|ed|ing)"
    r"|(?:continued |continual )?pre ?train(?:ing)?|cpt|(?:from scratch )?train(?:ing)?|from scratch"
    r"|all (?:weights|parameters|params|layers)|(?:q ?)?galore(?: .*)?|apollo(?: .*)?|(?:ada)?lomo|"
)
#: Adapters that hold next to nothing: their size decides neither memory nor speed.
_SMALL = frozenset(
    ["ia3", "prefix", "prefix tuning", "prompt tuning", "soft prompt", "soft prompts", "reft", "loreft",
     "layernorm tuning", "norm bias", "bias norm", "norm tuning", "bias tuning",
     "houlsby adapter", "pfeiffer adapter", "bottleneck adapter", "parallel adapter", "compacter", "tinylora", "vblora",
     "vb lora", "xlora", "p tuning", "p tuning v2", "ptuning", "adaption prompt",
     "adapter", "llama adapter", "adapter v2", "adapters", "ln tuning", "vera", "randlora", "loha", "lokr", "boft",
     "oft", "hira", "c3a", "road", "shira", "miss", "bone", "trainable tokens", "fourierft", "hra", "bitfit"]
)  # fmt: skip
_LORA = re.compile(
    r"\b(?:q|qa|rs|ada|lo|long|re|mi)?[-_ ]?(?:lora|dora|qdora|pissa|olora|delora|loftq|loraplus|corda|eva|mora)"
    r"(?:[-_ +]?fa)?\b"
)
# Training algorithms that tables write beside the method, or in its place.
_ALGORITHM = re.compile(
    r"\b(?:dpo|ipo|orpo|simpo|cpo|kto|bco|ppo|grpo|rloo|rlhf|reward model(?:l?ing)?|rm|sft)\b"
)
_FOUR_BITS = re.compile(r"\b(?:4 ?bits?|int4|nf4|fp4|gptq|awq|loftq)\b")
_EIGHT_BITS = re.compile(r"\b(?:8 ?bits?|int8)\b")
# Modules and rank that a stack's own defaults or recipes put adapters on; PEFT's are queries and values.
_EVERY = ("all-linear",)
_USUAL = {"unsloth": (_EVERY, 16), "factory": (_EVERY, 8), "swift": (_EVERY, 8), "axolotl": (_EVERY, 16),
          "torchtune": (("q", "v", "o", "gate", "up", "down"), 8), "lit": (("q", "v"), 8),
          "prime-rl": (_EVERY, 16)}  # fmt: skip
_LARGEST_RANK = 1024
_WHOLE = {
    "embedding": frozenset(
        [
            "wte",
            "embed",
            "embed_tokens",
            "embed_in",
            "embedding",
            "embeddings",
            "word_embeddings",
            "tok_embeddings",
        ]
    ),
    "head": frozenset(["lm_head", "embed_out", "output_layer", "head"]),
}
_CAST_ADAPTERS = ("automodel", "fsdp_qlora", "mistral-finetune", "keras")


def method_of(row: Row, arch: ModelArchitecture, framework: str) -> tuple[Adapter | None, str]:
    """The adapter (None for full fine-tuning) and the base's quantisation.

    Raises:
        UnsupportedRunError: If the method is not one that the estimator can express.
    """
    stated = re.sub(r"\(?ia\)?\^?[3³]", "ia3", cell(row, "method")).replace("_", " ").replace("-", " ")
    method = re.sub(r"\(.*?\)| single device| distributed", "", stated).strip()
    method = " ".join(_ALGORITHM.sub(" ", method).split())
    bits = {4.0: "4bit", 8.0: "8bit"}.get(number(row, "quant_bits") or 0.0, "none")
    lora = _LORA.search(method)
    if bits == "none" and packed_in_4bit(cell(row, "model")):
        bits = "4bit"
    if lora and bits == "none":
        quantised = method.startswith("q") or any(word in method for word in ("qlora", "qdora"))
        quantised = quantised and not (_EIGHT_BITS.search(method) and not _FOUR_BITS.search(method))
        how = f"{stated} {cell(row, 'precision')}"
        bits = (
            "4bit" if quantised or _FOUR_BITS.search(how) else "8bit" if _EIGHT_BITS.search(how) else "none"
        )
    if _FULL.fullmatch(method) or (not lora and trains_partly(stated)):
        return None, "none" if bits == "4bit" else bits
    if not lora and method not in _SMALL:
        raise UnsupportedRunError(f"method {cell(row, 'method')!r} is not expressed")
    # adapters of their own or cast to the base's type: NeMo AutoModel, answer.ai's train.py in plain bf16,
    # mistral-finetune (`prepare_mixed_precision`: fp32 for the optimizer's step alone), Keras' `enable_lora`
    own = any(name in cell(row, "framework") for name in _CAST_ADAPTERS)
    stack = stack_of(framework)
    cast = own or "true" in cell(row, "precision").replace("autocast=true", "")
    whole_fp32 = framework == "litgpt" and "mixed" in cell(row, "precision")
    fp32 = (framework == "hf" or stack.frozen_fp32 or whole_fp32) and not cast
    kind = method if method in ("loha", "lokr") else "dora" if "dora" in method else "lora"
    usual = next(
        (found for name, found in _USUAL.items() if name in cell(row, "framework")), (("q", "v"), 16)
    )
    targets = _targets(row, arch, usual[0])
    rank = _rank(row, arch, targets, usual[1] if lora else 8)
    whole, older = _whole(row) if lora else (), dated_before(row, "2024-12")
    adapter = Adapter(kind, rank, targets, fp32, stack.adapter_dropout, whole=whole, older=older)
    return adapter._replace(experts=arch.is_moe and _on_experts(row, targets, framework)), bits


def _on_experts(row: Row, targets: tuple[str, ...], framework: str) -> bool:
    """Whether experts are adapted: named among the targets, or under Megatron all-linear, whose grouped modules are
    linear ones too (`find_all_linears` in ms-swift's swift/megatron/utils/utils.py, 2025).
    """
    return "experts" in cell(row, "lora_targets") or (framework in MEGATRON and targets == _EVERY)


def _whole(row: Row) -> tuple[str, ...]:
    """Embedding and head, where a row names them among what is trained."""
    words = set(re.findall(r"[a-z_]+", f"{cell(row, 'lora_targets')} {cell(row, 'method')}"))
    return tuple(name for name, spelled in _WHOLE.items() if words & spelled)


def _rank(row: Row, arch: ModelArchitecture, targets: tuple[str, ...], default: int) -> int:
    """Stated, or what the stated number of trainable parameters implies, or the usual one."""
    stated = number(row, "lora_rank") or _rank_in_words(cell(row, "method"))
    if stated:
        return max(1, round(stated))
    trained = number(row, "trainable_params_m")
    one = adapter_parameters(arch, Adapter("lora", 1, targets))
    if trained and one and trained * 1e6 >= one:
        return min(_LARGEST_RANK, max(1, round(trained * 1e6 / one)))
    return default


def _rank_in_words(method: str) -> float | None:
    """The rank that a table writes into the method.

    >>> _rank_in_words("LoRA r=256"), _rank_in_words("qlora (rank 8)"), _rank_in_words("lora")
    (256.0, 8.0, None)
    """
    match = re.search(r"\b(?:r|rank)\s*[=: ]?\s*(\d+)", method)
    return float(match[1]) if match else None


def _targets(row: Row, arch: ModelArchitecture, usual: tuple[str, ...]) -> tuple[str, ...]:
    text = re.split(r"\(|\+? ?modules_to_save", cell(row, "lora_targets"))[0]
    if "all" in text:
        return ("all-linear",)
    if text.strip() in ("self_attn", "attention", "attn"):
        return ("attention",)
    names = tuple(part.strip() for part in re.split(r"[,;+/|]", text) if part.strip())
    found = adapter_targets(arch, Adapter("lora", 1, names)) if names else ()
    return names if found else usual
