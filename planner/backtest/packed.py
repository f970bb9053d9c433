"""Rows packed with samples that do not see each other: attention goes by the samples, of which tables say little."""

from __future__ import annotations

import math
import re

from planner.backtest.cells import Row, cell, dated_before, denied
from planner.quantiles import Z90
from planner.setup import Cluster, TrainingSetup
from planner.throughput import Doubt, estimate_step

# Instruction data have from a hundred tokens a sample (Alpaca) to as many as a row holds; each order of magnitude
# between is taken for as likely. Assumed, with ms-swift's published runs in view; not fitted.
_SHORTEST_SAMPLE = 100.0
#: Text of which a sample fills rows.
_LONG_TEXT = re.compile(r"gutenberg|book|pg-?19|\bc4\b|pile|pajama|wiki|fineweb|arxiv|corpus")
_SWIFT_SINCE = "2025"  # its third version, whose packing needs FlashAttention
_TRL_SINCE = "2025-08"  # 0.20


def keeps_samples_apart(row: Row, framework: str, attention: str) -> bool:
    """Whether a packed row's samples are told apart by where each begins.

    mistral-finetune's mask is `BlockDiagonalCausalMask`; Megatron-SWIFT hands Transformer Engine the lengths
    (`PackedSeqParams`); axolotl's multipack, ms-swift's `packing_row` and TRL's best-fit packing number positions
    anew in each sample, by which FlashAttention's kernel for rows of different length is called; LLaMA-Factory does
    with `neat_packing`. Others join samples into one text (torchtune masks, and computes the whole row all the same).
    NeMo's packed data are told apart as well, but Megatron's constants were fitted to its runs with whole rows
    counted: with less attention they would have to be fitted again, so that these stay as they were counted.

    Args:
        row: The run.
        framework: Its stack.
        attention: Its kernel.
    """
    how, stack = cell(row, "packing"), cell(row, "framework")
    if not how or denied(how) or "pad" in how or "dummy" in how or "unpack" in how:
        return False
    if cell(row, "task") not in ("", "sft") or _LONG_TEXT.search(cell(row, "dataset")):
        return False
    if "mistral-finetune" in stack:
        return True
    if framework == "megatron":
        return "swift" in stack
    swift = "swift" in stack and not dated_before(row, _SWIFT_SINCE)
    trl = "trl" in stack and "unsloth" not in stack and not dated_before(row, _TRL_SINCE)
    return attention == "flash" and (swift or trl or "axolotl" in stack or "neat" in how)


def sample_tokens(row_tokens: float) -> tuple[float, float, float]:
    """Length of the sample that a token stands in, where nobody tells it: p10, p50 and p90.

    >>> [round(tokens) for tokens in sample_tokens(10_000)]
    [158, 1000, 6310]
    """
    span = max(1.0, row_tokens / _SHORTEST_SAMPLE)
    shortest = min(row_tokens, _SHORTEST_SAMPLE)
    return shortest * span**0.1, shortest * span**0.5, shortest * span**0.9


def doubts_of_samples(setup: TrainingSetup, cluster: Cluster) -> list[Doubt]:
    """What the samples' unknown length makes of a step's time, none where rows are not packed so."""
    if setup.attended_tokens is None:
        return []
    lengths = sample_tokens(float(setup.sequence_tokens))
    short, usual, long = (
        estimate_step(setup._replace(attended_tokens=tokens), cluster).step_time_s.p50 for tokens in lengths
    )
    slower, quicker = math.log(long / usual), math.log(usual / short)
    return (
        [Doubt(slower / Z90, "lengths of packed samples are not stated", quicker / slower)] if slower else []
    )
