"""Seconds of each part of one micro-batch on one GPU: a roofline, term by term."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import adapter_parameters, parameter_counts, whole_parameters
from planner.attention_kernel import computes_prepared_in_fp32
from planner.hardware import GpuFacts
from planner.memory.precision import widths
from planner.memory.stages import stage_blocks
from planner.recomputation import recomputed
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape
from planner.stacks import MEGATRON, runs_transformers_modules, stack_of
from planner.throughput.adapters import adapter_bytes, adapter_kernels, products_again, weight_bytes
from planner.throughput.attention import attention_seconds
from planner.throughput.constants import TIME
from planner.workload import (
    attended_tokens,
    attention_flops_per_token,
    extra_forwards,
    micro_batch_tokens,
    scores_words,
    tiles_head,
)

_KERNELS_PER_BLOCK = 45  # forward kernels of one eager block
_KERNELS_PER_QUANTISED = 6  # of bitsandbytes: scales, their offset, weights; and as much Python around them
_KERNELS_PER_EXPERT = 8  # select, gather, three products, activation, product, scatter
# transformers' NewGELUActivation is written in eight operations: beside what a fused activation moves, as many more
# values a pass (17 accesses forward, 28 backward, over what one counted value stands for: `elementwise` in constants).
_GELU_IN_STEPS = frozenset({"gpt2", "gptj", "gpt_neo", "codegen", "phi", "bloom"})
_GELU_VALUES = 4.7
# Autocast casts each weight to 16 bits in the forward pass (6 bytes) and its gradient back (6).
_CAST_FORWARD, _CAST_BACKWARD = 6.0, 6.0
_ALIGNED_VALUES = 8  # sixteen bytes of 16-bit values
_FOUR_BIT = frozenset({"10.0", "10.3", "12.0", "12.1", "gfx950"})  # chips with matrix units of four bits


class StepShape(NamedTuple):
    """What does not depend on GPU, micro-batch or length.

    Attributes:
        dense: Matmul parameters one token meets outside experts, head included.
        expert: Those inside experts.
        head: Those of the head.
        adapter: Trainable parameters of the adapters.
        quantised: Parameters that are dequantised in each pass.
        elementwise: Bytes of memory-bound work of one pass, per token.
        adapters: The same of adapters, of all passes.
        kernels: Kernel launches of one forward pass.
        forwards: Forward passes of a step, those of frozen models included.
        passes_matmul: Forward-equivalents of matmul work in a step, recomputation included.
        passes_memory: The same for memory-bound work.
        trained: Trainable parameters.
        products: Bytes moved for each micro-batch, whatever its tokens: weights that are cast, changes of weights that
            adapters multiply out.
    """

    dense: float
    expert: float
    head: float
    adapter: float
    quantised: float
    elementwise: float
    adapters: float
    kernels: float
    forwards: float
    passes_matmul: float
    passes_memory: float
    trained: float
    products: float


@by_shape
def step_shape(setup: TrainingSetup) -> StepShape:
    """Shape of a set-up; equal for every micro-batch and length."""
    arch = setup.arch
    counts = parameter_counts(arch, setup.task, setup.labels)
    expert = sum(s.count * s.inputs * s.outputs * s.share for s in counts.shapes if s.role == "expert")
    kept = ("router",) if setup.experts_quantised else ("expert", "router")
    linear = sum(s.count * s.inputs * s.outputs for s in counts.shapes if s.role not in kept)
    full = setup.adapter is None
    adapter = 0 if setup.adapter is None else adapter_parameters(arch, setup.adapter)
    whole = 0 if setup.adapter is None else whole_parameters(arch, setup.adapter)
    again = recomputed(setup)
    extra = extra_forwards(setup.task, setup.preference_loss, reference=setup.reference)
    # trainers that recompute make the first block's input require a gradient (`enable_input_require_grads`)
    reached = 1.0 if setup.gradient_checkpointing else setup.reached_share
    blocks = arch.layers + arch.decoder_layers
    inner = float(arch.intermediate * (arch.mlp_matrices == 3) + arch.intermediate * 2)
    if arch.is_moe:
        inner = 3 * arch.experts_per_token * arch.moe_intermediate + 3 * arch.shared_intermediate
    if (
        arch.model_type in _GELU_IN_STEPS
        and runs_transformers_modules(setup.framework)
        and not setup.compiled
    ):
        inner += _GELU_VALUES * arch.intermediate
    values = 12 * arch.hidden + inner + 2 * arch.projected_width
    if arch.dropout:  # twice, with masks of a byte: three quarters of a value each
        values += 1.5 * arch.hidden
    kernels = blocks * _KERNELS_PER_BLOCK
    kernels += adapter_kernels(setup)
    if setup.quantization in ("4bit", "8bit"):
        kernels += _KERNELS_PER_QUANTISED * sum(s.count for s in counts.shapes if s.role not in kept)
    if loops_over_experts(setup):
        kernels += _KERNELS_PER_EXPERT * arch.experts * arch.moe_layers
    return StepShape(
        dense=float(counts.matmul_active - expert) + products_again(setup),
        expert=float(expert),
        head=float(counts.matmul_active - sum(s.parameters * s.share for s in counts.shapes)),
        adapter=float(adapter),
        quantised=float(linear if setup.quantization in ("4bit", "8bit") else 0.0),
        elementwise=blocks * values * widths(setup).activation,
        adapters=adapter_bytes(setup),
        kernels=float(kernels),
        forwards=1.0 + extra,
        passes_matmul=1.0 + reached + full * setup.trained_share + again.products + extra,
        passes_memory=1.0 + 2.0 * reached + again.elementwise + extra,
        trained=float(counts.trainable * setup.trained_share if full else adapter + whole),
        products=weight_bytes(setup) + _cast_bytes(setup, counts.matmul_active),
    )


def _cast_bytes(setup: TrainingSetup, weights: float) -> float:
    """Bytes that autocast moves in each micro-batch to cast weights, whatever its tokens; frozen ones once."""
    forwards = _CAST_FORWARD * (1.0 + recomputed(setup).products)
    if widths(setup).cast_cache:
        return weights * (forwards + _CAST_BACKWARD)
    frozen = setup.frozen_fp32 and setup.precision.startswith("amp_")
    return weights * forwards if frozen else 0.0


def soft_maximum(one: float, other: float) -> float:
    """Seconds of two kinds of work that hide each other but where they are as long."""
    return float((one**4 + other**4) ** 0.25)


def emulates_bf16(precision: str, gpu: GpuFacts | None) -> bool:
    """Whether a GPU computes bf16 in fp32, though it has faster units for fp16."""
    if gpu is None or gpu.vendor == "cpu" or "bf16" not in precision or gpu.bf16_flops_per_s is not None:
        return False
    return gpu.fp16_flops_per_s is not None and gpu.fp16_flops_per_s > gpu.fp32_flops_per_s


def matmul_rate(setup: TrainingSetup, gpu: GpuFacts) -> float:
    """FLOP/s that a large product reaches in the set-up's precision."""
    if setup.precision == "tf32" and gpu.tf32_flops_per_s and gpu.bf16_flops_per_s:
        return gpu.attainable_flops_per_s * gpu.tf32_flops_per_s / gpu.bf16_flops_per_s
    if setup.precision in ("fp32", "tf32"):
        return TIME["fp32"] * gpu.fp32_flops_per_s if gpu.vendor != "cpu" else gpu.attainable_flops_per_s
    if "bf16" in setup.precision and gpu.bf16_flops_per_s is None:
        return TIME["fp32"] * gpu.fp32_flops_per_s  # no bf16 units: computed in fp32
    return gpu.attainable_flops_per_s


def _vector_rate(setup: TrainingSetup, rate: float, gpu: GpuFacts) -> float:
    """FLOP/s of what a prepared base computes in fp32: its head, attention and adapters.

    Torch multiplies fp32 without TF32 unless it is told to.
    """
    plain = computes_prepared_in_fp32(setup)
    return min(rate, TIME["fp32"] * gpu.fp32_flops_per_s) if plain and gpu.vendor != "cpu" else rate


def compute_terms(setup: TrainingSetup, gpu: GpuFacts) -> dict[str, float]:
    """Seconds of GPU work of one micro-batch."""
    shape = step_shape(setup)
    tokens = micro_batch_tokens(setup)
    stages = setup.parallelism.stages_at_once
    parts = setup.parallelism.tensor * stages / slowest_stage(setup)
    rate = matmul_rate(setup, gpu)
    fused = TIME["compiled"] if setup.compiled or stack_of(setup.framework).fused_kernels else 1.0
    memory = gpu.memory_bytes_per_s
    elementwise = shape.elementwise * shape.passes_memory * TIME["elementwise"] + shape.adapters
    elementwise = fused * elementwise * _from_memory(setup, gpu, tokens) + _loss_bytes(setup, gpu, fused)
    if setup.precision.startswith("amp_"):
        elementwise *= TIME["autocast_bytes"]
    return {
        "matmul": _matmul(setup, shape, rate, gpu, tokens) / parts,
        "attention": attention_seconds(
            setup, _vector_rate(setup, rate, gpu), gpu, attended_tokens(setup), tokens
        )
        / parts,
        "elementwise": (elementwise * tokens + shape.products) / memory / parts,
        "dequantise": TIME["dequantise_8bit" if setup.quantization == "8bit" else "dequantise"]
        * shape.quantised
        * shape.passes_matmul
        / memory
        / parts,
    }


def slowest_stage(setup: TrainingSetup) -> float:
    """Work of the pipeline's slowest stage, which sets its pace, over an even share.

    The last one has the head beside its blocks, whose products are not computed again; a head over BLOOM's 250,880
    words is worth more than a block. Work is counted in FLOPs.
    """
    stages = setup.parallelism.stages_at_once
    if stages == 1:
        return 1.0
    shape, again, arch = step_shape(setup), recomputed(setup), setup.arch
    scores = attention_flops_per_token(arch, attended_tokens(setup), arch.kind == "decoder")
    blocks = 2.0 * (shape.dense - shape.head + shape.expert) * shape.passes_matmul
    blocks += scores * (3.5 + again.attention)
    head = 2.0 * shape.head * (shape.passes_matmul - again.products)
    held, each = stage_blocks(setup), blocks / (arch.layers + arch.decoder_layers)
    return stages * max(held.edge * each + head, held.inner * each) / (blocks + head)


def _from_memory(setup: TrainingSetup, gpu: GpuFacts, tokens: float) -> float:
    """Share of the time of memory-bound work that is left where a block's values stay in the last-level cache.

    A kernel reads two of them and writes one; half of the cache holds weights and what passes through.
    """
    held = 3 * tokens * setup.arch.hidden / setup.parallelism.tensor * widths(setup).activation
    hit = max(0.0, min(1.0, gpu.cache_bytes / held - 1))
    return 1 - hit * (1 - TIME["cached"])


def hooks_megatron(setup: TrainingSetup) -> bool:
    """Whether Megatron's modules are wrapped by Megatron-FSDP: its own data parallelism shards states alone."""
    return setup.framework == "megatron" and setup.parallelism.kind in ("fsdp", "zero2", "zero3")


def loops_over_experts(setup: TrainingSetup) -> bool:
    """Whether experts are modules of their own, as in transformers before grouped products (December 2025)."""
    return setup.arch.is_moe and setup.experts_quantised and setup.framework == "hf"


def _loss_bytes(setup: TrainingSetup, gpu: GpuFacts, fused: float) -> float:
    """Bytes that the loss moves for one token, where kernels that are fused leave that share."""
    if not scores_words(setup.task):
        return 0.0
    if stack_of(setup.framework).fused_products:
        return setup.arch.vocab * TIME["written_over_loss_bytes"]
    if not tiles_head(setup):
        return fused * setup.arch.vocab * TIME["loss_bytes"]
    if gpu.vendor == "cpu":
        return fused * setup.arch.vocab * TIME["folded_loss_bytes"]
    return fused * setup.arch.vocab * TIME["tiled_loss_widths"] * widths(setup).compute


def _matmul(setup: TrainingSetup, shape: StepShape, rate: float, gpu: GpuFacts, tokens: float) -> float:
    """FLOPs over the attainable rate, slower with few tokens and narrow products (both are memory-bound).

    A product of n by k moves 1 / n + 1 / k bytes for each of its FLOPs beside those of its tokens.
    """
    # operands of four bytes take twice the time to fetch; a CPU's rates were measured with them
    halves = 1.0 if gpu.vendor == "cpu" else widths(setup).compute / 2.0
    ridge = min(halves * rate / gpu.memory_bytes_per_s, TIME["ridge"])
    # tensor parallelism splits one side of each product
    h = 2 * setup.arch.hidden / (1 + setup.parallelism.tensor)
    # what products cannot hide is mostly traffic between kernels, of which fused ones have less
    share = TIME["compiled"] if stack_of(setup.framework).fused_products else 1.0
    narrow = 1 + share * TIME["narrow"] * ridge / h
    reached = TIME["matmul"] * rate
    if setup.precision.endswith(("fp8", "fp4")) and gpu.fp8_flops_per_s is not None:
        reached *= TIME["fp8" if setup.framework in MEGATRON else "fp8_casts"]
    if setup.precision == "fp4" and gpu.capability in _FOUR_BIT:
        reached *= TIME["fp4"]
    # blocks are computed again with checkpointing, a head in tiles in any case
    again = shape.head * (float(tiles_head(setup)) - recomputed(setup).products)
    if _unaligned_head(setup):
        again += shape.head * (3.0 if setup.adapter is None else 2.0) * (TIME["unaligned"] - 1)
    in_fp32 = 2 * shape.head + 3 * shape.adapter
    again += 3 * shape.adapter + in_fp32 * (rate / _vector_rate(setup, rate, gpu) - 1)
    flops = 2.0 * tokens * (shape.dense * shape.passes_matmul + again)
    seconds = flops / reached * narrow * (1 + TIME["few_tokens"] * ridge / tokens)
    if shape.expert:
        arch = setup.arch
        each = max(1.0, tokens * arch.experts_per_token / arch.experts)
        width = 1 + TIME["narrow"] * ridge / min(arch.hidden, arch.moe_intermediate)
        expert = 2.0 * tokens * shape.expert * shape.passes_matmul / reached
        seconds += TIME["expert"] * expert * width * (1 + TIME["few_tokens"] * ridge / each)
    return seconds


def _unaligned_head(setup: TrainingSetup) -> bool:
    """Whether the head is as wide as the tokenizer has words, and no multiple of what matrix units read at once.

    Megatron and llm.c pad it to 128, torch's compiler to 8.
    """
    padded = setup.compiled or setup.framework in MEGATRON | {"cuda"}
    unaligned = scores_words(setup.task) and setup.arch.vocab % _ALIGNED_VALUES != 0
    return unaligned and not padded and widths(setup).compute == 2.0
