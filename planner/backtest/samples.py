"""Lengths of samples of which a row tells nothing, though they decide its time: attention in packed rows whose samples
do not see each other, and all work where rows are padded to the longest of their micro-batch.
"""

from __future__ import annotations

import math
import re

from planner.backtest.cells import Row, cell, dated_before, denied, number
from planner.backtest.habits import longest_over_mean
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


def padded_tokens(row: Row, row_tokens: int, micro_batch: int) -> tuple[float, float, float] | None:
    """Length to which a micro-batch is padded, p10, p50 and p90, where a row says that its samples are padded to the
    longest of them and nothing of how long they are; None where they are all of a length or it is told.

    >>> [round(tokens) for tokens in padded_tokens({"packing": "padded to longest of batch"}, 2048, 2) or ()]
    [166, 556, 1862]
    """
    if "longest" not in cell(row, "packing") or number(row, "dataset_tokens"):
        return None
    longer = longest_over_mean(micro_batch)
    short, usual, long = (
        min(float(row_tokens), longer * tokens) for tokens in sample_tokens(float(row_tokens))
    )
    return short, usual, long


def with_untold_samples(row: Row, framework: str, setup: TrainingSetup) -> TrainingSetup:
    """With the length of samples where it decides a step's time and the row does not tell it."""
    if keeps_samples_apart(row, framework, setup.attention):
        return setup._replace(attended_tokens=sample_tokens(float(setup.sequence_tokens))[1])
    padded = padded_tokens(row, setup.sequence_tokens, setup.micro_batch)
    if padded is None:
        return setup
    return setup._replace(row_tokens=padded[1], real_tokens_share=1.0 / longest_over_mean(setup.micro_batch))


def doubts_of_samples(row: Row, setup: TrainingSetup, cluster: Cluster) -> list[Doubt]:
    """What the samples' unknown length makes of a step's time, none where they do not decide it."""
    padded = padded_tokens(row, setup.sequence_tokens, setup.micro_batch)
    if setup.attended_tokens is not None:
        reason = "lengths of packed samples are not stated"
        ways = [
            setup._replace(attended_tokens=tokens) for tokens in sample_tokens(float(setup.sequence_tokens))
        ]
    elif padded is not None:
        reason = "lengths of samples that are padded are not stated"
        ways = [setup._replace(row_tokens=tokens) for tokens in padded]
    else:
        return []
    short, usual, long = (estimate_step(way, cluster).step_time_s.p50 for way in ways)
    slower, quicker = math.log(long / usual), math.log(usual / short)
    return [Doubt(slower / Z90, reason, quicker / slower)] if slower else []
