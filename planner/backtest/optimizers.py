"""Optimizers as published tables write them."""

from __future__ import annotations

import re

from planner.backtest.cells import Row, UnsupportedRunError, cell
from planner.backtest.habits import framework_of

# They keep what no formula here counts: preconditioners, or no gradients at all.
_NOT_EXPRESSED = re.compile(r"q[-_ ]?galore|shampoo|soap|mezo|kron|psgd|fira|ldadam|grass")
# Words in the order in which they count, and the optimizer of `planner.memory.optimizers` that each stands for.
_NAMES = (
    ("galore", "galore"), ("apollo", "apollo"), ("adalomo", "adafactor"), ("lomo", "sgd"), ("badam", "badam"),
    ("adafactor", "adafactor"), ("ademamix", "ademamix"), ("adan", "adan"), ("prodigy", "prodigy"),
    ("dadapt", "ademamix"), ("came", "came"), ("muon", "muon"), ("adam-mini", "lion"), ("adam_mini", "lion"),
    ("adamini", "lion"), ("rmsprop", "rmsprop"), ("adagrad", "rmsprop"), ("novograd", "lion"), ("lars", "sgd_momentum"),
    ("tiger", "lion"),
)  # fmt: skip
_WORDS = re.compile(r"\b(?:galore|apollo|(?:ada)?lomo|badam)\b")
_EIGHT = {"lion": "lion_8bit", "galore": "galore_8bit", "ademamix": "ademamix_8bit", "adafactor": "adafactor",
          "apollo": "apollo", "sgd": "sgd"}  # fmt: skip


def _stated(row: Row) -> str:
    """The cell, or the method where a table files the optimizer under it ("GaLore")."""
    text, method = cell(row, "optimizer"), cell(row, "method")
    return f"{text} {method}" if _WORDS.search(method) else text


def optimizer_of(row: Row) -> str:
    """One of TrainingSetup's optimizers, torch's AdamW where a row does not say; transformers takes the fused one where
    torch is 2.8 (August 2025) or newer.

    Raises:
        UnsupportedRunError: If it keeps what no formula here counts.
    """
    text = _stated(row)
    if not text and framework_of(row) == "hf" and cell(row, "date") >= "2025-10":
        return "adamw_fused"
    unknown = _NOT_EXPRESSED.search(text)
    if unknown:
        raise UnsupportedRunError(f"optimizer {unknown[0]!r} is not expressed")
    eight = re.search(r"8[-_ ]?bit|fp8|int8", text) is not None
    if "paged" in text:
        return "paged_adamw_8bit" if eight else "paged_adamw_32bit"
    named = _named(text)
    if eight:
        return _EIGHT.get(named, "adamw_8bit")
    if named != "adamw":
        return named
    if re.search(r"4[-_ ]?bit|int4", text):
        return "adamw_4bit"
    if re.search(r"(?:bf16|bfloat16)[- ](?:states|moments)", text):
        return "adamw_bf16"
    return "adamw_fused" if any(part in text for part in ("fused", "apex", "lamb", "cpuadam")) else "adamw"


def _named(text: str) -> str:
    """The kind of optimizer, whatever it is packed in.

    >>> [_named(text) for text in ("decoupled_lionw", "adamw/lion (decoupled)", "sgd nesterov", "signsgd")]
    ['lion', 'adamw', 'sgd_momentum', 'sgd']
    """
    found = next((name for word, name in _NAMES if word in text), None)
    if found:
        return found
    if "lion" in text and "adam" not in text:
        return "lion"
    if "sgd" not in text:
        return "adamw"
    return "sgd_momentum" if re.search(r"moment|nesterov|0?\.9", text) else "sgd"


def optimizer_rank_of(row: Row) -> int:
    """Rank of the states of GaLore and APOLLO, 0 where it is not told; APOLLO-Mini's is 1."""
    text = f"{_stated(row)} {cell(row, 'method')}"
    match = re.search(r"\b(?:r|rank)\s*[=: ]?\s*(\d+)", text)
    if match:
        return int(match[1])
    return 1 if re.search(r"apollo\S*[-_ ]mini", text) else 0


def steps_in_backward(row: Row) -> bool:
    """Whether the optimizer steps on each gradient as it comes: torchtune's `optimizer_in_bwd`, transformers'
    `galore_adamw_layerwise`, LOMO (arXiv 2306.09782, 2310.10195), and others' words.
    """
    words = r"in[ _-](?:the )?(?:backward|bwd)|fused? (?:in|with) backward|layer[-_ ]?wise|per[-_ ]layer|lomo"
    return re.search(words, _stated(row)) is not None
