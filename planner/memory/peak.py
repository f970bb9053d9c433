"""Peak of what one GPU holds, by phase of a training step and by component, whatever the GPU's size.

An estimate asks it once for all GPUs on which a set-up runs alike (`planner.search`).
"""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import adapter_targets
from planner.memory.activations import (
    BlockActivations,
    ScoreActivations,
    block_activations,
    ring_backward,
    score_activations,
    split_by_columns,
    tiled_backward,
)
from planner.memory.block_form import BlockForm
from planner.memory.collectives import FURTHER_GROUP_GIB, communicators
from planner.memory.constants import CONSTANTS
from planner.memory.fragmentation import Peak, fragmentation
from planner.memory.generation import Generation, cache_bytes, generation_bytes
from planner.memory.linears import adapter_input, adapter_products, dequantised_bytes, quantised_inputs
from planner.memory.loss import kept_logits, loss_bytes
from planner.memory.model_state import ModelState, model_state
from planner.memory.precision import (
    Widths,
    adapts_over_older_fsdp,
    frozen_get_gradients,
    is_mixed,
    is_sharded,
    widths,
)
from planner.memory.stages import blocks_in_flight, outputs_in_flight, stage_blocks
from planner.memory.verdict import LITTLE_SEEN, need_log_sd
from planner.recomputation import kept_values
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape
from planner.stacks import stack_of
from planner.workload import rows_of, samples_answers, scores_words

GIB = float(2**30)


class Tensors(NamedTuple):
    """What a set-up holds at its peak, whatever the GPU's size.

    Attributes:
        in_step_bytes: At the largest moment of a step.
        allocated_bytes: The same, or what lies there while the model is loaded, if that is more.
        components_bytes: Parts of `allocated_bytes`.
        phase: loading, generation, loss, backward or optimizer_step.
        passing_bytes: Activations, logits and their like.
        unused_bytes: What the allocator holds beyond a step's tensors where there is room.
        context_bytes: CUDA context and communication library, or the Python process.
        save_peak_bytes: While a checkpoint is saved.
        log_sd: How far the tensors may be off: standard deviation of the logarithm of actual / predicted.
        is_uncertain: Few published runs cover the set-up, or stacks build it very differently.
        state: What does not depend on the batch.
        width: Bytes of values.
    """

    in_step_bytes: float
    allocated_bytes: float
    components_bytes: dict[str, float]
    phase: str
    passing_bytes: float
    unused_bytes: float
    context_bytes: float
    save_peak_bytes: float
    log_sd: float
    is_uncertain: bool
    state: ModelState
    width: Widths


def peak_tensors(setup: TrainingSetup, *, on_cpu: bool) -> Tensors:
    """Closed form of the peak; see `planner.memory.activations` and `model_state` for the terms.

    The peak is the largest of three moments: the loss (all activations and the logits), the backward pass
    (with checkpointing, all block inputs and one whole block; gradients arrive as activations leave), and the
    optimizer's step (all gradients and the step's temporary).

    Args:
        setup: The training.
        on_cpu: It runs on a CPU.
    """
    parts = _constants(setup)
    tokens = setup.micro_batch * setup.sequence_tokens * parts.rows / setup.parallelism.context
    head = loss_bytes(setup, parts.width, tokens, on_cpu=on_cpu)
    peak = _peak(setup, parts, tokens, head)
    phase, components = peak.phase, peak.components
    in_step = allocated = sum(components.values())
    if parts.state.weights + parts.state.loading > in_step:
        phase, components = "loading", _while_loading(parts.state, components)
        allocated = sum(components.values())
    return Tensors(
        in_step_bytes=in_step,
        allocated_bytes=allocated,
        components_bytes=components,
        phase=phase,
        passing_bytes=peak.components["activations"] + head,
        unused_bytes=fragmentation(setup, peak, head, parts.state.comm.streams),
        context_bytes=_context_bytes(setup, on_cpu=on_cpu),
        save_peak_bytes=parts.state.static + _gathered_to_save(setup, parts),
        log_sd=need_log_sd(setup),
        is_uncertain=_is_uncertain(setup),
        state=parts.state,
        width=parts.width,
    )


class _Parts(NamedTuple):
    state: ModelState
    width: Widths
    block: BlockActivations
    scores: ScoreActivations
    rows: int
    tail_per_token: float
    split: float
    split_whole: float
    product: float
    product_backward: float
    dequantised: float
    copies_start: bool


@by_shape
def _constants(setup: TrainingSetup) -> _Parts:
    width, stack, parallel = widths(setup), stack_of(setup.framework), setup.parallelism
    arch = setup.arch
    fused_norm = stack.fused_norm or setup.recomputes_elementwise
    copies = arch.norm == "rms" and not fused_norm
    block = block_activations(arch, setup.adapter, _form_of(setup, width, fused_norm))
    product, largest = adapter_products(setup)
    tail = (4.0 + (4.0 if setup.adapter is None else 0.0)) * arch.hidden
    if copies and not scores_words(setup.task):
        tail = (4.0 + _NORM_BACKWARD) * arch.hidden
    return _Parts(
        state=model_state(setup),
        width=width,
        block=block,
        scores=score_activations(arch, setup.attention, width.activation, mixed=is_mixed(setup)),
        rows=rows_of(setup.task),
        tail_per_token=tail,
        split=1.0 / parallel.tensor,
        split_whole=1.0 / parallel.tensor if setup.shares_sequence else 1.0,
        product=product,
        product_backward=largest,
        dequantised=dequantised_bytes(setup, width),
        copies_start=copies and width.residual < 4.0,
    )


def _form_of(setup: TrainingSetup, width: Widths, fused_norm: bool) -> BlockForm:
    stack = stack_of(setup.framework)
    shared, copied = quantised_inputs(setup, width)
    return BlockForm(
        width.activation,
        width.residual,
        fused_norm,
        stack.fused_mlp or setup.recomputes_elementwise,
        quantised_input=shared,
        quantised_copy=copied,
        adapter_input=adapter_input(setup, width),
        spread_keys=stack.spread_keys or setup.repeats_keys,
        fused_qkv=stack.fused_qkv,
        fp32_routing=stack.fp32_routing,
        keeps_product=(stack.keeps_product or setup.recomputes_elementwise) and not setup.recomputes_product,
        in_place=setup.recomputes_elementwise and not setup.recomputes_product,
        math_attention=setup.attention == "math",
        fp32_powers=is_mixed(setup) and not setup.cpu_autocast,
        normed_fp32=stack.normed_fp32,
        adapts_qkv=stack.adapts_qkv,
        one_activation=stack.one_activation,
        all_trained=frozen_get_gradients(setup),
    )


#: Bytes of a value of an RMS norm, written out in fp32, in its backward pass: five factors and sums.
_NORM_BACKWARD = 5 * 4.0
_PHASES = {"backward_end": "backward", "embedding": "backward"}


def _peak(setup: TrainingSetup, parts: _Parts, tokens: float, head: float) -> Peak:
    state = parts.state
    one, passing = _of_block(setup, parts, tokens)
    working = one + passing
    start = parts.width.residual * setup.arch.hidden * tokens * parts.split_whole
    last = working + (start if setup.gradient_checkpointing and parts.copies_start else 0.0)
    unused = 0.0
    if setup.gradient_checkpointing:
        per_block = _kept_of_block(setup, parts, start, one, tokens)
        there = 0.0 if parts.copies_start or setup.offloads_activations else start  # in the first norm too
        working -= max(0.0, per_block - start) + there
    else:
        away = one * setup.offloaded_share if setup.offloads_activations else 0.0
        per_block, working = (one - away) * setup.reached_share, passing + away
        if setup.adapter is not None and not state.embedding_gradient:  # none before the first adapter
            unused = 4.0 * setup.arch.hidden * tokens * parts.split
    rest = _position_bias(setup, parts) * tokens * parts.split - unused
    kept = per_block * blocks_in_flight(setup) + start * outputs_in_flight(setup) + rest
    kept_at_head = per_block * stage_blocks(setup).edge + rest  # the last stage has one micro-batch
    lasting = kept if setup.gradient_checkpointing and adapts_over_older_fsdp(setup) else 0.0
    loss, grads = head + parts.tail_per_token * tokens, state.gradients
    earlier = grads if _holds_earlier_gradients(setup, state) else 0.0
    begun = max(earlier, min(grads, state.head_gradient))
    comm = state.comm
    arrived = parts.width.residual * setup.arch.hidden * tokens
    caches, named = _kept_outputs(setup, tokens)
    nearly = max(earlier, grads - state.late_gradient - state.block_gradient)
    words = kept_logits(setup, tokens)
    moments = {  # activations, logits and their like, gradients, temporaries of the step, collectives
        "loss": (kept_at_head + caches, loss, earlier, 0.0, comm.loss),
        "backward": (kept + lasting + working + named, words, begun, 0.0, comm.backward),
        "backward_end": (last, words, nearly, 0.0, comm.end),
        "embedding": (arrived, words, grads + state.embedding_gradient, 0.0, comm.end),
        "optimizer_step": (0.0, words, grads, state.step, 0.0),
    }
    if setup.adapter is not None and "dora" in setup.adapter.kind:
        held = kept + one if setup.gradient_checkpointing else kept
        moments["adapter_norm"] = (held, _dora_norm_bytes(setup), earlier, 0.0, comm.backward)
    sampling = _sampling(setup, parts)
    if setup.task == "grpo" and samples_answers(setup):
        # before the step's first forward pass, with the last step's gradients gone
        moments["generation"] = (0.0, sampling.passing + sampling.cache, 0.0, 0.0, sampling.gathered)
    phase = max(moments, key=lambda name: sum(moments[name]) + state.casts.at(name))
    activations, logits, gradients, step, collectives = moments[phase]
    cache = sampling.cache if phase == "generation" or setup.task == "ppo" else 0.0
    components = {
        "weights": state.weights + state.casts.at(phase),
        "adapters": state.adapters,
        "gradients": gradients,
        "optimizer": state.optimizer,
        "optimizer_step_temporary": step,
        "activations": activations,
        "logits_loss": logits - (cache if phase == "generation" else 0.0),
        "comm_buffers": comm.end if setup.parallelism.kind == "ddp" else collectives,
        "reference_models": state.references,
        "kv_cache": cache,
    }
    backward = moments["backward"]
    beside = backward[0] + backward[-1] if phase == "optimizer_step" else state.step
    return Peak(_PHASES.get(phase, phase), components, beside)


def _kept_outputs(setup: TrainingSetup, tokens: float) -> tuple[float, float]:
    """Bytes of caches and named outputs, with their logits in fp32, at the loss and in the backward pass."""
    cache = cache_bytes(setup, setup.micro_batch, setup.sequence_tokens)
    named = max(0, setup.kept_caches - 1) * (cache + 4.0 * setup.arch.vocab * tokens)
    return min(1, setup.kept_caches) * cache + named, named


def _of_block(setup: TrainingSetup, parts: _Parts, tokens: float) -> tuple[float, float]:
    """Bytes that one block keeps of a micro-batch, and temporaries of its backward pass."""
    block, keys = parts.block, setup.sequence_tokens
    kept = block.saved - block.whole - (block.mlp if setup.tiled_mlp else 0.0)
    divided = (kept + parts.scores.saved * keys) * parts.split
    one = (divided + block.whole * parts.split_whole + _copied_inputs(setup, parts)) * tokens + parts.product
    attending = parts.scores.backward * keys + _of_ring(setup, parts.width)
    within = max(block.backward, attending - block.after_attention)  # in the MLP, or in the attention
    if setup.tiled_mlp:
        within = tiled_backward(setup.arch, parts.width.activation)
    gradients = within * tokens * parts.split
    return one, max(gradients, gradients / 2 + parts.dequantised) + parts.product_backward


_TORCH_RINGS = frozenset({"trl", "hf", "torchtitan"})


def _of_ring(setup: TrainingSetup, width: Widths) -> float:
    """Bytes per token of torch's context parallelism, which comes with FSDP2."""
    ranks, sharded = setup.parallelism.context, setup.parallelism.kind == "fsdp"
    if ranks == 1 or not sharded or setup.framework not in _TORCH_RINGS:
        return 0.0
    return ring_backward(setup.arch, width.activation, ranks)


def _copied_inputs(setup: TrainingSetup, parts: _Parts) -> float:
    """Bytes per token of inputs of products split by columns, beyond one for attention's and one for the MLP's."""
    if setup.parallelism.tensor == 1 or not stack_of(setup.framework).copies_inputs:
        return 0.0
    return parts.width.activation * setup.arch.hidden * (split_by_columns(setup.arch) - 2)


def _while_loading(state: ModelState, components: dict[str, float]) -> dict[str, float]:
    """The whole base beside its shard, before there is anything to train; its room is used again afterwards."""
    return dict.fromkeys(components, 0.0) | {"weights": state.weights + state.loading}


def _kept_of_block(setup: TrainingSetup, parts: _Parts, start: float, one: float, tokens: float) -> float:
    """What an average block keeps where activations are recomputed: its input, and what is not recomputed.

    Args:
        setup: The training.
        parts: What does not depend on the batch.
        start: A block's input, bytes.
        one: All activations of one block, bytes.
        tokens: Of a micro-batch on one GPU.
    """
    if setup.offloads_activations:
        start /= max(stage_blocks(setup))
    if setup.keeps_products:
        start += parts.width.activation * kept_values(setup.arch) * tokens * parts.split
    return setup.recomputed_blocks * start + (1 - setup.recomputed_blocks) * one


def _holds_earlier_gradients(setup: TrainingSetup, state: ModelState) -> bool:
    """Whether all gradients are there while a micro-batch is computed.

    DeepSpeed and Megatron free theirs in every version; adapters' are small enough not to ask.
    """
    if setup.steps_in_backward:
        return False
    zeroed = setup.older_torch and setup.parallelism.kind in ("single", "ddp")
    return zeroed or setup.adapter is not None or (setup.grad_accum > 1 and not state.comm.waiting)


def _sampling(setup: TrainingSetup, parts: _Parts) -> Generation:
    if not samples_answers(setup):
        return Generation(0.0, 0.0)
    if setup.task == "grpo":
        return generation_bytes(setup, parts.state.comm.sampling)
    # the engines behind ppo sample one micro-batch and keep their cache while the model learns
    return Generation(cache_bytes(setup, setup.micro_batch, setup.sequence_tokens), 0.0)


def _position_bias(setup: TrainingSetup, parts: _Parts) -> float:
    """Bytes per token of T5's relative positions: one matrix of scores for each head and stack, which its blocks share,
    and half another while it is put together.
    """
    if setup.arch.kind != "encoder-decoder" or not setup.arch.relative_positions:
        return 0.0
    return setup.arch.heads * setup.sequence_tokens * (2 * parts.width.activation + 1.5)


def _dora_norm_bytes(setup: TrainingSetup) -> float:
    """What peft computes the norms of one module's weights with, in the adapter's type: an identity as wide as its
    input, and three matrices as large as the weight (the adapter's product, the same scaled, the sum).
    """
    if setup.adapter is None:
        return 0.0
    targets = adapter_targets(setup.arch, setup.adapter)
    width = 4.0 if setup.adapter.fp32 else 2.0
    return max((width * s.inputs * (s.inputs + 3 * s.outputs) for s in targets), default=0.0)


def _is_uncertain(setup: TrainingSetup) -> bool:
    """Set-ups that few published runs cover, or that stacks build very differently."""
    rare = setup.arch.is_moe or setup.offload != "none" or setup.task in ("ppo", "grpo")
    return rare or setup.offloads_activations or setup.framework in LITTLE_SEEN


#: Kernels of torch and its libraries that CUDA loads lazily since 11.7: a context took 1.3 GiB on a V100
#: (transformers' performance guide of 2022: "kernels alone take up 1.3GB").
_ALL_KERNELS_GIB = 0.75


def _context_bytes(setup: TrainingSetup, *, on_cpu: bool) -> float:
    """CUDA context and communication library; on a CPU the Python process."""
    if on_cpu:
        return CONSTANTS["cpu_context"] * GIB
    groups = communicators(setup.parallelism)
    nccl = CONSTANTS["nccl"] + sum(FURTHER_GROUP_GIB[size > 2] for size in groups[1:]) if groups else 0.0
    kernels = _ALL_KERNELS_GIB if setup.older_torch else 0.0
    return (CONSTANTS["context"] + nccl + kernels) * GIB


def _gathered_to_save(setup: TrainingSetup, parts: _Parts) -> float:
    """Shards are put together one parameter at a time and moved to the host: the largest is the embedding."""
    if not is_sharded(setup.parallelism.kind) or setup.adapter is not None:
        return 0.0
    return setup.arch.vocab * setup.arch.hidden * parts.width.weight
