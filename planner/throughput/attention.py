"""Seconds of scores, softmax and weighted values of one micro-batch."""

from __future__ import annotations

from planner.hardware import GpuFacts
from planner.recomputation import recomputed
from planner.setup import TrainingSetup
from planner.throughput.constants import TIME
from planner.workload import attention_flops_per_token, scored_keys

# FlashAttention 2's published curves of forward and backward on the A100 (Dao 2023, figure 4; heads of 64 and 128, 512
# to 16 384 tokens): products at the rate of others, and 11 fp32 operations for each score and pass in softmax.
_SOFTMAX_FLOPS = 11.0
# More of both, in tokens over the row's: tiles on the diagonal are computed whole.
_DIAGONAL_TOKENS, _EDGE_TOKENS = 440.0, 180.0
_NEW_UNITS = frozenset({"9.0", "10.0", "10.3"})  # with matrix instructions that FlashAttention 2 does not use
_FIRST_KERNELS = frozenset({"llm-foundry"})  # Triton's FlashAttention 1 with position biases (MPT)


def attention_seconds(
    setup: TrainingSetup, rate: float, gpu: GpuFacts, length: float, tokens: float
) -> float:
    """One pass forward, two and a half backward, once more if recomputed.

    Chips differ in what softmax costs beside the products: vector units are a sixteenth of an A100's matrix rate, half
    of a consumer card's, a third of an H20's.

    Args:
        setup: The training.
        rate: FLOP/s of a large product.
        gpu: What it runs on.
        length: Tokens of a row.
        tokens: Of the micro-batch.
    """
    passes = 3.5 + recomputed(setup).attention
    # Without padding sdpa runs the flash kernel; with it, a masked kernel that computes the upper half as well.
    fused = setup.attention == "flash" or (setup.attention == "sdpa" and setup.real_tokens_share == 1.0)
    causal = setup.arch.kind == "decoder" and fused
    products = attention_flops_per_token(setup.arch, length, causal) * tokens * passes
    reached = TIME["matmul"] * _unit_rate(setup, rate, gpu)
    seconds = products / reached
    if gpu.vendor != "cpu":
        scores = _scores_per_token(setup, scored_keys(setup.arch, length, causal)) * tokens * passes
        seconds += scores * _SOFTMAX_FLOPS / gpu.fp32_flops_per_s
    seconds *= 1 + (_DIAGONAL_TOKENS if causal else _EDGE_TOKENS) / length
    if setup.attention == "eager":
        return seconds + _written_out(setup, length, tokens, passes, gpu)
    if not fused:
        return seconds / TIME["sdpa"]
    return seconds / TIME["attention_first"] if setup.framework in _FIRST_KERNELS else seconds


def _unit_rate(setup: TrainingSetup, rate: float, gpu: GpuFacts) -> float:
    """FLOP/s of the instructions that the kernel uses; old ones are tied to the vector units' rate."""
    if gpu.capability in _NEW_UNITS and setup.framework != "megatron":
        return min(rate, TIME["attention_hopper"] * gpu.fp32_flops_per_s)
    return rate


def _scores_per_token(setup: TrainingSetup, keys: float) -> float:
    return keys * setup.arch.heads * (setup.arch.attention_layers + 2 * setup.arch.decoder_layers)


def _written_out(setup: TrainingSetup, length: float, tokens: float, passes: float, gpu: GpuFacts) -> float:
    """Scores that eager attention moves between its kernels.

    Forward: product, scale, mask, softmax, dropout with its mask of bytes, product; backward the same and what softmax
    read. Counted in transformers' BertSelfAttention, with 2.5 passes' weight on the backward pass.
    """
    width = 4.0 if setup.precision in ("fp32", "tf32") else 2.0
    moved = 6.3 if setup.arch.dropout else 4.9
    return moved * width * _scores_per_token(setup, length) * tokens * passes / gpu.memory_bytes_per_s
