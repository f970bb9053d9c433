"""Full fine-tuning of a part of the weights, as published tables write it."""

from __future__ import annotations

import re

from planner.architecture import ModelArchitecture, parameter_counts
from planner.backtest.cells import Row, UnsupportedRunError, cell, number

_PARTLY = re.compile(
    r"\b(?:freez(?:e|ing)|frozen|partial(?:ly)?|lisa|badam)\b|\b(?:last|top) \d* ?(?:layers?|blocks?)\b|spectrum"
)
#: LISA, BAdam and Spectrum train blocks anywhere.
_LAST_ONLY = re.compile(r"\b(?:freez(?:e|ing)|frozen|partial(?:ly)?|(?:last|top) \d* ?(?:layers?|blocks?))\b")
_USUAL_LAYERS = 2  # LLaMA-Factory's `freeze_trainable_layers`, LISA's gamma (arXiv 2403.17919)
_LAYERS = re.compile(
    r"(\d+) (?:trainable |activated |last |top )?(?:layers?|blocks?)|(?:last|top|gamma)\D{0,3}(\d+)"
)


def trains_partly(method: str) -> bool:
    """Whether a method trains some of the model's own weights.

    >>> [trains_partly(text) for text in ("freeze (last 2 layers)", "spectrum30%", "lisa", "full", "lora")]
    [True, True, True, False, False]
    """
    return _PARTLY.search(method) is not None


def trained_share_of(row: Row, arch: ModelArchitecture) -> float:
    """Share of the weights that are trained at a time, 1 unless the method says otherwise.

    Stated as a number of parameters; or of layers, of which freezing and LISA train two where nothing is told, LISA
    embedding and head as well; BAdam goes block by block (arXiv 2404.02827), Spectrum takes a share of the linear
    modules, and embedding and head (arXiv 2406.06623 and its generated lists).

    Raises:
        UnsupportedRunError: If Spectrum's share is not told.
    """
    method = re.sub(r"[_-]", " ", cell(row, "method"))
    if not trains_partly(method) and "badam" not in cell(row, "optimizer"):
        return 1.0
    counts, stated = parameter_counts(arch), number(row, "trainable_params_m")
    if stated:
        return min(1.0, stated * 1e6 / counts.trainable)
    ends = counts.embedding + counts.head
    block = counts.linear / (arch.layers + arch.decoder_layers)
    layers = _trained_layers(method)
    if "spectrum" in method:
        percent = re.search(r"(\d+(?:\.\d+)?)\s*%?", method)
        if percent is None:
            raise UnsupportedRunError("spectrum's share of trained layers is not stated")
        return min(1.0, (float(percent[1]) / 100 * counts.linear + ends) / counts.trainable)
    if "badam" in method or "badam" in cell(row, "optimizer"):
        return block / counts.trainable
    return min(1.0, (layers * block + (ends if "lisa" in method else 0)) / counts.trainable)


def _trained_layers(method: str) -> int:
    told = _LAYERS.search(method)
    return int(told[1] or told[2]) if told else _USUAL_LAYERS


def reached_share_of(row: Row, arch: ModelArchitecture) -> float:
    """Share of the blocks above which nothing is frozen: where the first are, no gradient goes back through them.

    >>> from planner.architecture import load_architecture
    >>> gpt2 = load_architecture("gpt2")
    >>> [reached_share_of({"method": text}, gpt2) for text in ("partial(last 3 blocks)", "lisa", "full")]
    [0.25, 1.0, 1.0]
    """
    method = re.sub(r"[_-]", " ", cell(row, "method"))
    if not _LAST_ONLY.search(method):
        return 1.0
    if number(row, "trainable_params_m"):
        return trained_share_of(row, arch)
    return min(1.0, _trained_layers(method) / (arch.layers + arch.decoder_layers))
