"""Selective recomputation as stacks mean it: some blocks, or some operations of each."""

from __future__ import annotations

import re

from planner.architecture import ModelArchitecture
from planner.backtest.cells import Row, cell
from planner.stacks import MEGATRON

_RECOMPUTED_WHOLE = 8192  # hidden width from which torchtitan's configurations keep nothing of a block
_EVERY = re.compile(r"every\s+(?:(\d+)|other|second)|\b1\s*/\s*(\d+)\b")
_FRACTION = re.compile(r"\b(\d+)\s*(?:/|of)\s*([1-9]\d*)\b")


def recomputed_blocks_of(row: Row) -> float:
    """Share of the blocks that is recomputed: torchtitan's and torchtune's number n is every n-th block, fms-fsdp's
    a share, which may be written as a fraction.

    >>> [recomputed_blocks_of({"grad_checkpointing": text}) for text in ("true", "selective 2", "selective 0.25")]
    [1.0, 0.5, 0.25]
    >>> [recomputed_blocks_of({"grad_checkpointing": f"selective {text}"}) for text in ("3/4", "10 of 80 layers")]
    [0.75, 0.125]
    >>> recomputed_blocks_of({"grad_checkpointing": "selective every 2nd layer"})
    0.5
    """
    text = cell(row, "grad_checkpointing")
    every = _EVERY.search(text)
    if every:
        return 1.0 / max(1, int(every[1] or every[2] or 2))
    fraction = _FRACTION.search(text)
    if fraction and int(fraction[1]) <= int(fraction[2]):
        return int(fraction[1]) / int(fraction[2]) or 1.0
    number = re.search(r"selective\D{0,3}(\d*\.?\d+)", text)
    if number is None or not float(number[1]):
        return 1.0
    value = float(number[1])
    return value if value < 1 else 1.0 / value


def keeps_products_of(row: Row) -> bool:
    """Whether "selective" is by operation, which is what it means where no blocks are counted: torchtitan's default,
    and the reading between none and all for stacks that do not say.
    """
    return "selective" in cell(row, "grad_checkpointing") and recomputed_blocks_of(row) == 1.0


def selects_unasked(row: Row, framework: str, arch: ModelArchitecture) -> bool:
    """torchtitan selects by operation where nothing is said (`llama3_8b` and others of its size, since 2024); its
    configurations from 70B on recompute whole blocks.
    """
    told = cell(row, "grad_checkpointing")
    return framework == "torchtitan" and not told and arch.hidden < _RECOMPUTED_WHOLE


def recomputes_attention(row: Row, framework: str) -> bool:
    """Megatron's "selective": attention alone is computed again."""
    return framework in MEGATRON and "selective" in cell(row, "grad_checkpointing")


def offloads_masters(row: Row) -> bool:
    """Whether the host holds weights in fp32 too, of which the GPUs compute with copies of their own.

    >>> [offloads_masters({"offload": text}) for text in ("masters+optimizer cpu", "params+optimizer cpu")]
    [True, False]
    """
    return "master" in cell(row, "offload")


def offloaded_share_of(row: Row) -> float:
    """Share of the activations that a row says to be on the host, all where it tells none.

    >>> [offloaded_share_of({"offload": text}) for text in ("activations(cpu) ratio 0.3", "activations", "")]
    [0.3, 1.0, 1.0]
    """
    told = re.search(r"ratio\D{0,3}([01](?:\.\d+)?)", cell(row, "offload"))
    return min(1.0, float(told[1])) if told else 1.0
