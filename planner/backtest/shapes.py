"""Models without a name of their own, written by their shape: "custom-llama-h2048-i5632-l22-a32-kv4-v32000-untied"."""

from __future__ import annotations

import re
from dataclasses import replace

from planner.architecture import ModelArchitecture
from planner.architecture.hf_config import read_config
from planner.backtest.cells import Row, cell, number

#: Letters and the fields of a configuration that they stand for.
_FIELDS = {"h": "hidden_size", "i": "intermediate_size", "l": "num_hidden_layers", "a": "num_attention_heads",
           "kv": "num_key_value_heads", "v": "vocab_size"}  # fmt: skip
_PART = re.compile(r"(?<![a-z0-9])(kv|[hilav])(\d+)(k?)(?![a-z0-9.])")
_FAMILY = re.compile(r"(?<![a-z])(llama|gpt)[-\d.]*(?![a-z])")
_NEEDED = {"llama": frozenset("hilav"), "gpt": frozenset("hlav")}
#: Layers, width and heads of GPT-3's sizes whose heads divide their width (Brown et al. 2020, table 2.1).
_GPT3 = {"125m": (12, 768, 12), "350m": (24, 1024, 16), "760m": (24, 1536, 16), "2.7b": (32, 2560, 32),
         "6.7b": (32, 4096, 32), "175b": (96, 12288, 96)}  # fmt: skip
_GPT3_SIZE = re.compile(r"(?<![a-z])gpt-?3[-_ ](\d+(?:\.\d+)?[mb])\b")
_WORDS = 50257  # of the tokenizer that GPT-2 and GPT-3 share
_DROPPED = 0.1  # Megatron's `--hidden-dropout` and `--attention-dropout`; nanoGPT and llm.c drop nothing


def architecture_by_shape(row: Row) -> ModelArchitecture | None:
    """The model that a name spells out, None where it leaves something open.

    "llama" stands for gated MLPs, RMS norms and a head of its own, "gpt" for GPT-2's blocks with four times the width
    inside and a shared embedding, unless "tied" or "untied" says otherwise; learned positions reach as far as a row.
    "gpt2" and "gpt3" have their tokenizer's vocabulary, and GPT-3's sizes their paper's shape, where none is told.

    >>> found = architecture_by_shape({"model": "custom-gpt-h768-l12-a12-v50k", "seq_len": "1024"})
    >>> found.hidden, found.intermediate, found.vocab, found.tied_embeddings, found.position_rows
    (768, 3072, 50000, True, 1024)
    >>> architecture_by_shape({"model": "custom-llama-h2048-l24-a16-v32000"}) is None
    True
    """
    name = cell(row, "model")
    family = _FAMILY.search(name)
    parts = _of_gpt3(name) | {
        letter: int(digits) * (1000 if kilo else 1) for letter, digits, kilo in _PART.findall(name)
    }
    if family is None or not _NEEDED[family[1]] <= parts.keys() or parts["h"] % parts["a"]:
        return None
    config: dict[str, object] = {_FIELDS[letter]: value for letter, value in parts.items()}
    config["model_type"] = "llama" if family[1] == "llama" else "gpt2"
    config["n_positions"] = int(number(row, "seq_len") or 0) or 1024
    tied = re.search(r"(?<![a-z])(un)?tied\b", name)
    if tied is not None or family[1] == "llama":
        config["tie_word_embeddings"] = tied is not None and tied[1] is None
    found = read_config(config, name, "the shape in its name")
    if family[1] == "llama":
        return found
    # blocks of one's own: none of what transformers writes out for GPT-2
    dropped = _DROPPED if "megatron" in cell(row, "framework") else 0.0
    return replace(found, model_type="gpt", dropout=dropped, tied_embeddings=tied is None or tied[1] is None)


def _of_gpt3(name: str) -> dict[str, int]:
    """What the names of GPT-2's and GPT-3's kin leave to be known."""
    size = _GPT3_SIZE.search(name)
    shape = dict(zip("lha", _GPT3.get(size[1], ()), strict=False)) if size else {}
    words = {"v": _WORDS} if re.search(r"(?<![a-z])gpt-?[23](?!\d)", name) else {}
    return shape | words
