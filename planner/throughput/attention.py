"""Seconds of scores, softmax and weighted values of one micro-batch."""

from __future__ import annotations

from dataclasses import replace

from planner.hardware import GpuFacts
from planner.recomputation import recomputed
from planner.setup import TrainingSetup
from planner.stacks import runs_transformers_modules
from planner.throughput.constants import TIME
from planner.workload import attention_flops_per_token, scored_keys, windowed_share

# FlashAttention 2's published curves of forward and backward on the A100 (Dao 2023, figure 4; heads of 64 and 128, 512
# to 16 384 tokens): products at the rate of others, and 11 fp32 operations for each score and pass in softmax.
_SOFTMAX_FLOPS = 11.0
# More of both, in tokens over the row's: tiles on the diagonal are computed whole.
_DIAGONAL_TOKENS, _EDGE_TOKENS = 440.0, 180.0
# Bytes of scores under autocast against those of a model in 16 bits: a mask in fp32 makes them fp32, softmax and
# dropout keep them so, the second product casts them back; 37 instead of 21 forward, 45 instead of 23 backward.
_AUTOCAST_SCORES = 1.85
_NEW_UNITS = frozenset({"9.0", "10.0", "10.3"})  # with matrix instructions that FlashAttention 2 does not use
_FIRST_KERNELS = frozenset({"llm-foundry"})  # Triton's FlashAttention 1 with position biases (MPT)
_CUDNN = frozenset({"megatron", "cuda"})  # stacks whose attention is cuDNN's, which uses them
_DISENTANGLED = frozenset({"deberta-v2"})
_RELATIVE_KEYS = 512.0  # of its position buckets, both ways, that each query and each key is multiplied with
_CHOOSE_SCORES = frozenset({"gpt2", "gpt_neo", "gptj", "codegen"})


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
        length: Tokens of a row, or of the samples of a packed one that do not see each other.
        tokens: Of the micro-batch.
    """
    # Without padding sdpa runs the flash kernel; with it, a masked kernel that computes the upper half as well.
    padded = setup.padded or setup.real_tokens_share < 1.0
    fused = setup.attention == "flash" or (setup.attention == "sdpa" and not padded)
    narrow = windowed_share(setup.arch, length) if setup.attention == "sdpa" and fused else 0.0
    if not narrow or not runs_transformers_modules(setup.framework):
        return _kernel_seconds(setup, rate, gpu, length, tokens, fused)
    # transformers tells sdpa of a window by a mask
    plain = setup._replace(arch=replace(setup.arch, sliding_window=0))
    masked, flash = (_kernel_seconds(plain, rate, gpu, length, tokens, kernel) for kernel in (False, True))
    return narrow * masked + (1 - narrow) * flash


def _kernel_seconds(
    setup: TrainingSetup, rate: float, gpu: GpuFacts, length: float, tokens: float, fused: bool
) -> float:
    """Of all blocks, with a kernel that leaves out what no query sees, or with one that does not."""
    passes = 3.5 + recomputed(setup).attention
    arch = setup.arch
    if setup.attention == "math" and setup.precision != "tf32":  # products in fp32, whatever the model's type
        rate = min(rate, TIME["fp32"] * gpu.fp32_flops_per_s)
    causal = arch.kind == "decoder" and fused
    keys = scored_keys(arch, length, causal) if fused else length
    products = attention_flops_per_token(arch, length, causal) * keys / scored_keys(arch, length, causal)
    if arch.model_type in _DISENTANGLED:
        products *= 1 + _RELATIVE_KEYS / length
    seconds = products * tokens * passes / (TIME["matmul"] * _unit_rate(setup, rate, gpu))
    if gpu.vendor != "cpu":
        scores = _scores_per_token(setup, keys) * tokens * passes
        seconds += scores * _SOFTMAX_FLOPS / gpu.fp32_flops_per_s
    seconds *= 1 + (_DIAGONAL_TOKENS if causal else _EDGE_TOKENS) / length
    if setup.attention in ("eager", "math"):
        return seconds + _written_out(setup, length, tokens, passes, gpu)
    if not fused:
        return seconds / TIME["sdpa" if gpu.vendor == "nvidia" else "sdpa_elsewhere"]
    return seconds / TIME["attention_first"] if setup.framework in _FIRST_KERNELS else seconds


def _unit_rate(setup: TrainingSetup, rate: float, gpu: GpuFacts) -> float:
    """FLOP/s of the instructions that the kernel uses; old ones are tied to the vector units' rate."""
    if gpu.capability in _NEW_UNITS and setup.framework not in _CUDNN:
        return min(rate, TIME["attention_hopper"] * gpu.fp32_flops_per_s)
    return rate


def _scores_per_token(setup: TrainingSetup, keys: float) -> float:
    return keys * setup.arch.heads * (setup.arch.attention_layers + 2 * setup.arch.decoder_layers)


def _written_out(setup: TrainingSetup, length: float, tokens: float, passes: float, gpu: GpuFacts) -> float:
    """Scores that eager attention moves between its kernels.

    Forward: product, scale, mask, softmax, dropout with its mask of bytes, product; backward the same and what softmax
    read. Counted in transformers' BertSelfAttention, with 2.5 passes' weight on the backward pass. GPT-2 and its kin
    choose between score and mask first (`torch.where`). DeBERTa adds two relative scores, each a product, a gather
    (and a scatter back), a scale and a sum, masks before and after its softmax, and draws its dropout's mask in four
    kernels (DisentangledSelfAttention, XSoftmax, XDropout): 34 accesses each way.
    """
    width = 4.0 if setup.precision in ("fp32", "tf32") or setup.attention == "math" else 2.0
    if setup.precision.startswith("amp_") and setup.attention != "math":
        width *= _AUTOCAST_SCORES
    moved = 6.3 if setup.arch.dropout else 4.9
    if setup.arch.model_type in _DISENTANGLED:
        moved = 19.4
    elif setup.arch.model_type in _CHOOSE_SCORES:
        moved += 1.3
    return moved * width * _scores_per_token(setup, length) * tokens * passes / gpu.memory_bytes_per_s
