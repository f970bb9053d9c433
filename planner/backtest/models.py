"""Models as published tables write them: ids of fine-tuned or repackaged copies stand for the base they share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from planner.architecture import (
    ModelArchitecture,
    known_models,
    load_architecture,
    parameter_counts,
    registered_model,
)
from planner.backtest.cells import Row, UnsupportedRunError, number

# What a copy's name adds to that of the model whose architecture it has.
_ADDED = re.compile(
    r"[-_](?:instruct|chat|it|pt|base|hf|sft|dpo|unsloth|bnb|4bit|8bit|int4|int8|gptq|awq|fp8|nf4|bf16|fp16|dynamic"
    r"|\d{4}|v\d(?:\.\d)?|preview|thinking|reasoning|text|transformers|hf-transformers|quantized|gguf|ggml|exl2"
    r"|lora|qlora|fft|full|fine-?tun(?:ed?|ing)|pretrain(?:ed|ing)?|model)$"
)
_SIZE = re.compile(r"(?<![a-z0-9.])\d+(?:[.x]\d+)*[bm](?![a-z0-9])")
_SHORTEST = 5
# Words after which a name means another model than the one whose other words it has.
_OTHER_KINDS = frozenset(
    ["vl", "vision", "omni", "audio", "next", "mamba", "h1", "h", "moe", "nano", "super", "ultra", "minitron", "e",
     "multimodal", "linear", "encoder", "distil", "pruned", "draft", "medusa"]
)  # fmt: skip
#: Models whose shape is another's: Megatron pads BERT's words to a multiple of 128 (transformers' MegatronBertConfig).
_SAME_SHAPE = {
    "megatron-bert-cased-345m": "bert-large-cased",
    "megatron-bert-uncased-345m": "bert-large-uncased",
}
_TOLERANCE = 0.25


def architecture_of(row: Row) -> ModelArchitecture:
    """The row's model by its id, by its id without what copies add, or by the base that its name contains.

    A base found in the name must have the stated number of parameters, where one is stated.

    Raises:
        UnsupportedRunError: If no model is named, or none that is known.
    """
    name = (row.get("model") or "").strip()
    if not name:
        raise UnsupportedRunError("model is not stated")
    found = _found(name, number(row, "params_b"))
    if found is None:
        raise UnsupportedRunError(f"model {name!r} is not known")
    return found


@lru_cache(maxsize=2048)
def _found(name: str, stated_b: float | None) -> ModelArchitecture | None:
    for candidate in _names(name):
        arch = _loaded(candidate)
        if arch is not None and (candidate == name or stated_b is None or _alike(arch, stated_b)):
            return arch
    return None


def _alike(arch: ModelArchitecture, stated_b: float) -> bool:
    return abs(parameter_counts(arch).total / 1e9 / stated_b - 1) <= _TOLERANCE


def _loaded(name: str) -> ModelArchitecture | None:
    """Only models of the registry: a table never reads this machine's files."""
    known = registered_model(name)
    return None if known is None else load_architecture(known)


def _names(name: str) -> Iterator[str]:
    """What the name may stand for, the surest first."""
    yield name
    yield _SAME_SHAPE.get(_plain(name), name)
    for way in (_shortened, _squashed, _contained, _scattered):
        yield from way(name)


def _plain(name: str) -> str:
    """Lower case without organisation and remarks in brackets.

    >>> _plain("meta-llama/Llama3 8B (LoRA)")
    'llama-3-8b'
    """
    name = re.sub(r"\(.*?\)", " ", name.split("/")[-1]).strip().lower()
    return re.sub(r"(?<![a-z])(llama|gemma)(?=\d)", r"\1-", re.sub(r"\s+", "-", name))


def _shortened(name: str) -> Iterator[str]:
    short = _plain(name)
    while True:
        yield short
        yield short.removeprefix("meta-") if short.startswith("meta-") else f"meta-{short}"
        yield short.replace("gpt-2", "gpt2")
        yield short.replace("_", "-")
        yield re.sub(r"(?<=\d)\.(?=\d)", "_", short)  # phi-1_5, Qwen-1_8B
        for ending in ("-hf", "-v0.1", "-base", "-uncased"):
            yield short + ending
        cut = _ADDED.sub("", short)
        if cut == short:
            return
        short = cut


def _squash(name: str) -> str:
    return re.sub(r"[-_. ]", "", name)


def _squashed(name: str) -> Iterator[str]:
    """Known names that differ only by the marks between their words: "Qwen 3 8B", "llama31_70b"."""
    short = _plain(name)
    while True:
        yield from _without_marks().get(_squash(short), ())
        cut = _ADDED.sub("", short)
        if cut == short:
            return
        short = cut


@lru_cache(maxsize=1)
def _without_marks() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for base, known in _bases().items():
        found.setdefault(_squash(base), []).append(known)
    return {squashed: tuple(known) for squashed, known in found.items() if len(set(known)) == 1}


def _scattered(name: str) -> Iterator[str]:
    """Known names whose words are all here in their order, the longest first: "Llama-3.1-Tulu-3-8B"."""
    words = re.split(r"[-_ ]", _plain(name))
    if _OTHER_KINDS & set(words):
        return
    found = []
    for parts, known in _words_of_bases():
        rest = iter(words)
        if all(part in rest for part in parts):
            found.append((sum(map(len, parts)), known))
    for _, known in sorted(found, reverse=True):
        yield known


@lru_cache(maxsize=1)
def _words_of_bases() -> tuple[tuple[list[str], str], ...]:
    split = ((re.split(r"[-_ ]", base), known) for base, known in _bases().items())
    return tuple((parts, known) for parts, known in split if len(parts) > 1)


def _contained(name: str) -> Iterator[str]:
    """Known names with a size in them that are part of this one, the longest first."""
    short = _plain(name).replace("_", "-")
    found = [(base, known) for base, known in _bases().items() if base in short]
    for base, known in sorted(found, key=lambda pair: len(pair[0]), reverse=True):
        if re.search(rf"(?<![a-z0-9.]){re.escape(base)}(?![a-z0-9.])", short):
            yield known


@lru_cache(maxsize=1)
def _bases() -> dict[str, str]:
    """Names that say a size, also without what the first copies of a model add, and the model each stands for."""
    found: dict[str, str] = {}
    for known in known_models():
        base = _plain(known).replace("_", "-")
        for form in (base, re.sub(r"^meta-|-hf$|-v0\.\d$|-v\d\.\d$|-base$|-pt$", "", base)):
            if len(form) >= _SHORTEST and _SIZE.search(form):
                found.setdefault(form, known)
    return found
