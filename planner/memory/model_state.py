"""Memory that does not depend on the batch: weights, gradients, optimizer, further models, buffers."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import (
    ModelArchitecture,
    ParameterCounts,
    adapter_parameters,
    expert_adapter_parameters,
    parameter_counts,
    whole_parameters,
)
from planner.memory.collectives import Buffers, buffers, head_parameters, is_classifier
from planner.memory.precision import Widths, frozen_get_gradients, is_sharded, widths
from planner.memory.stages import is_scheduled, share_of_blocks, share_of_stage
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape
from planner.stacks import stack_of

# nf4: half a byte, an absmax byte a block of 64, and its own fp32 scale every 256 blocks (double
# quantisation).
_QUANTISED_BYTES = {"4bit": 0.5 + 1 / 64 + 4 / (64 * 256), "8bit": 1.0, "fp8": 1.0}

#: Of a trained parameter: decayed moments and weights that TensorFlow 1 has ready before there are gradients.
_READ_EARLY = 3 * 4.0

_ZERO3_SUB_GROUP_PARAMETERS = 1e9  # DeepSpeed's sub_group_size: stepped on one after the other


class Casts(NamedTuple):
    """Bytes of the copies that autocast makes of weights for their products, on one GPU.

    Attributes:
        loss: When the loss is computed.
        backward: When the backward pass comes to the blocks.
        end: In its last block.
    """

    loss: float
    backward: float
    end: float

    def at(self, moment: str) -> float:
        """Bytes in a moment of `planner.memory.peak`."""
        return {"loss": self.loss, "backward": self.backward, "backward_end": self.end}.get(moment, 0.0)


class ModelState(NamedTuple):
    """Bytes on one GPU.

    Attributes:
        weights: Base model.
        adapters: Adapter weights.
        gradients: Of all trainable parameters, as they are held between backward and step.
        optimizer: States and master copies.
        step: Temporary of the optimizer's step.
        comm: What the collectives hold.
        references: Further models (reference, reward, critic).
        head_gradient: Gradient of the output head, the first to exist in a backward pass.
        late_gradient: The part of `gradients` that is made last, when no block's activations are left: of an embedding
            that shares no weights with the head.
        block_gradient: Of one block's linear modules, which are there when the next block's come.
        embedding_gradient: The embedding's own, before it is added to one that is there (its head's, if they share
            weights, or an earlier micro-batch's).
        trainable: Trainable parameters in the whole model.
        total: Parameters of the whole model, adapters included.
        host_parts: Bytes offloaded to the host, per GPU.
        loading: The whole base that lies beside its shard before training, 0 where ranks load their shards alone.
        casts: Copies of weights that autocast makes for products.
    """

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    step: float
    comm: Buffers
    references: float
    head_gradient: float
    late_gradient: float
    block_gradient: float
    embedding_gradient: float
    trainable: int
    total: int
    host_parts: dict[str, float]
    loading: float = 0.0
    casts: Casts = Casts(0.0, 0.0, 0.0)

    @property
    def static(self) -> float:
        """What is there all the time once the first step is done."""
        return self.weights + self.adapters + self.optimizer + self.references


@by_shape
def model_state(setup: TrainingSetup) -> ModelState:
    """State of a set-up; equal for every micro-batch and sequence length."""
    width, parallel = widths(setup), setup.parallelism
    base = base_weight_bytes(setup, width)
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    full = setup.adapter is None
    whole = 0 if setup.adapter is None else whole_parameters(setup.arch, setup.adapter)
    spread = 0 if setup.adapter is None else expert_adapter_parameters(setup.arch, setup.adapter)
    trainable = _trainable(setup, counts) + spread
    parts = parallel.tensor / share_of_stage(setup)
    shards = setup.shards if is_sharded(parallel.kind) else 1
    expert = _expert_share(setup, counts.total)
    # FSDP shards experts over the ranks that expert parallelism leaves (torchtitan's `dp_mod_ep` mesh)
    expert_ranks = 1 if parallel.kind == "fsdp" else parallel.expert
    # modules trained whole stay in the base's type, and so do their gradients and states
    mine = (trainable + whole * width.frozen / width.weight) / parallel.tensor
    mine *= share_of_stage(setup) if full else share_of_blocks(setup)
    weights = base / parts * _per_rank(expert, shards, expert_ranks) + _rotary_tables(setup)
    adapted = spread / max(1, trainable)  # share of the adapters that lies on experts
    adapters = 0.0 if full else mine * width.weight * _per_rank(adapted, shards, expert_ranks)
    # ZeRO-1 and the distributed optimizer of Megatron shard states alone; ZeRO-2 gradients as well.
    ranks = setup.shards
    gradient_shards = ranks if parallel.kind in ("fsdp", "zero2", "zero3") else 1
    gradients = mine * width.gradient * _per_rank(expert if full else adapted, gradient_shards, expert_ranks)
    state_shards = ranks if parallel.kind in ("zero1", "mixed") else gradient_shards
    again = _of_frozen_embedding(setup, width)
    gradients += again + (counts.linear * width.frozen / parts / shards if frozen_get_gradients(setup) else 0)
    if full and setup.steps_in_backward:
        gradients = _largest_gradient(setup, width) / parts
    early = _READ_EARLY if stack_of(setup.framework).reads_early else 0.0
    optimizer = mine * (width.state + width.master + early)
    optimizer *= _per_rank(adapted, state_shards, expert_ranks)
    stepping = mine / state_shards
    if parallel.kind == "zero3":
        stepping = min(stepping, _ZERO3_SUB_GROUP_PARAMETERS)
    step = stepping * width.step
    reaches = full and setup.trained_share == 1.0  # a frozen embedding gets no gradient
    ends = parallel.tensor if is_scheduled(setup) else parts  # of embedding and head, each whole on its stage
    embedding = setup.arch.vocab * setup.arch.hidden * width.gradient / ends if reaches else 0.0
    shared = setup.arch.tied_embeddings and not is_classifier(setup)
    added = (shared and not setup.steps_in_backward) or setup.grad_accum > 1 or setup.older_torch
    state = ModelState(
        weights=weights,
        adapters=adapters,
        gradients=gradients,
        optimizer=0.0 if setup.optimizer.startswith("paged") else optimizer,
        step=step,
        comm=buffers(setup, width, base, mine, gradients),
        references=_references(setup, counts.total * width.reference / parts, optimizer + gradients + step),
        head_gradient=head_parameters(setup) * width.gradient / ends / shards if full else gradients,
        late_gradient=0.0 if shared or setup.steps_in_backward else embedding / gradient_shards,
        block_gradient=gradients * _share_of_block(setup, counts) if reaches else 0.0,
        embedding_gradient=again or (embedding if added and ranks == 1 else 0.0),
        trainable=trainable + whole,
        total=counts.total + (0 if full else trainable + whole),
        host_parts={"optimizer": optimizer} if setup.optimizer.startswith("paged") else {},
        loading=base / parts if _loads_whole(setup) else 0.0,
        casts=_casts(setup, width, counts, parts),
    )
    return _offloaded(setup, state)


#: Of torchtune's Llamas, the first whose blocks share a table.
_SHARED_TABLE_TOKENS = 131_072


def _of_frozen_embedding(setup: TrainingSetup, width: Widths) -> float:
    """Bytes of a gradient of a quantised base's embedding that nobody steps on."""
    if setup.quantization == "none" or not stack_of(setup.framework).embedding_gradient:
        return 0.0
    return setup.arch.vocab * setup.arch.hidden * width.frozen


def _rotary_tables(setup: TrainingSetup) -> float:
    """Bytes of the tables of rotary positions on each GPU, where every block has one: sine and cosine of half a head's
    values, of each value in Qwen2's.
    """
    arch = setup.arch
    if setup.adapter is None or not stack_of(setup.framework).rotary_tables:
        return 0.0
    qwen = arch.model_type == "qwen2"
    blocks = arch.layers if qwen or arch.context_tokens < _SHARED_TABLE_TOKENS else 1
    return blocks * arch.context_tokens * arch.head_dim * 4.0 * (2 if qwen else 1)


def _trainable(setup: TrainingSetup, counts: ParameterCounts) -> int:
    """Parameters that are trained, but for adapters on experts."""
    if setup.adapter is None:
        return round(counts.trainable * setup.trained_share)
    return adapter_parameters(setup.arch, setup.adapter) + _new_head(setup)


def _share_of_block(setup: TrainingSetup, counts: ParameterCounts) -> float:
    """Share of all gradients that one block's linear modules have; none where each is gone at once."""
    if setup.steps_in_backward:
        return 0.0
    return counts.linear / counts.total / (setup.arch.layers + setup.arch.decoder_layers)


def _casts(setup: TrainingSetup, width: Widths, counts: ParameterCounts, parts: float) -> Casts:
    """Products keep the copies that enter them for their backward pass. Where blocks are computed again, those of one
    block are made anew; autocast itself holds those of trained weights as long as its context, that is until there is
    a loss (`cached_cast` in torch's aten/src/ATen/autocast_mode.cpp), and drops those of frozen ones.

    Embeddings and norms are in no product. Sharded weights are cast as they are gathered.
    """
    full = setup.adapter is None
    if is_sharded(setup.parallelism.kind) or not (width.cast_cache if full else setup.frozen_fp32):
        return Casts(0.0, 0.0, 0.0)
    copy = width.compute / parts
    blocks = copy * counts.linear * (setup.trained_share if full else 1.0)
    head = copy * head_parameters(setup)
    block = blocks / (setup.arch.layers + setup.arch.decoder_layers)
    if not setup.gradient_checkpointing:
        return Casts(blocks + head, blocks, block)
    return Casts(blocks + head if full else head, block, block)


def _loads_whole(setup: TrainingSetup) -> bool:
    packed = setup.quantization in ("4bit", "8bit") and setup.parallelism.kind == "fsdp"
    return packed and stack_of(setup.framework).loads_whole


def _largest_gradient(setup: TrainingSetup, width: Widths) -> float:
    """Bytes of the one gradient that is there at a time where the optimizer steps on each as it comes."""
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    matrices = (shape.inputs * shape.outputs for shape in counts.shapes)
    return width.gradient * max(setup.arch.vocab * setup.arch.hidden, *matrices)


def base_weight_bytes(setup: TrainingSetup, width: Widths | None = None) -> float:
    """Bytes of the base model as it is held, over all GPUs.

    >>> from planner.architecture import load_architecture
    >>> from planner.setup import Adapter, TrainingSetup
    >>> lora = Adapter("lora", 16, ("q_proj", "v_proj"))
    >>> setup = TrainingSetup(load_architecture("llama-3.1-8b"), adapter=lora, quantization="4bit")
    >>> round(base_weight_bytes(setup) / 1e9, 2)
    5.7
    """
    width = width or widths(setup)
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    if setup.adapter is None:
        return counts.total * width.weight
    if setup.quantization == "none":
        return counts.total * width.frozen
    quantised = _quantised_parameters(setup.arch, setup.experts_quantised)
    rest = 4.0 if setup.upcast_frozen else width.frozen
    experts = counts.linear - quantised  # fused experts and routers keep their type
    idle = setup.arch.idle_parameters  # of linear modules nearly all
    others = counts.total - counts.linear - idle
    head = head_parameters(setup) if stack_of(setup.framework).quantises_head else 0
    packed = (quantised + idle + head) * _QUANTISED_BYTES[setup.quantization]
    return packed + experts * width.frozen + (others - head) * rest


def _quantised_parameters(arch: ModelArchitecture, experts: bool) -> int:
    """Weights of separate linear modules; transformers 5 leaves fused experts and routers as they are."""
    shapes = parameter_counts(arch).shapes
    kept = ("router",) if experts else ("router", "expert")
    return sum(s.count * s.inputs * s.outputs for s in shapes if s.role not in kept)


def _new_head(setup: TrainingSetup) -> int:
    """A classification head is trained whole beside the adapters."""
    return parameter_counts(setup.arch, setup.task, setup.labels).head if is_classifier(setup) else 0


def _references(setup: TrainingSetup, model: float, training: float) -> float:
    """Models beside the one that is trained, on one GPU.

    dpo, kto and grpo without adapters keep a frozen copy of the start (with adapters it is the base itself); ppo keeps
    reference and reward models, and trains a critic. ZeRO-3 and FSDP shard them, ZeRO-2 does not.

    Args:
        setup: The training.
        model: Bytes of one whole frozen model, on the ranks that share one.
        training: Bytes of gradients and optimizer of the trained model, on one GPU.
    """
    parallel = setup.parallelism
    one = model / (setup.shards if is_sharded(parallel.kind) else 1)
    held = setup.task == "kto" or (setup.task in ("dpo", "grpo") and setup.reference)
    if held and setup.adapter is None:
        return one
    if setup.task == "ppo":
        return one * (3 if setup.adapter is None else 1) + training
    return 0.0


def _expert_share(setup: TrainingSetup, total: int) -> float:
    """Share of all parameters that lies in experts."""
    shapes = parameter_counts(setup.arch).shapes if setup.arch.is_moe else ()
    return sum(shape.parameters for shape in shapes if shape.role == "expert") / total


def _per_rank(expert: float, shards: int, expert_ranks: int) -> float:
    """Share of a model that one rank holds: experts spread over the expert-parallel ranks, the rest sharded."""
    if expert_ranks == 1:
        return 1 / shards
    return (1 - expert) / shards + expert / expert_ranks


def _offloaded(setup: TrainingSetup, state: ModelState) -> ModelState:
    """The state with what is on the host there; of a torch policy (FSDP) reference models too, each shard of which is
    copied when its layer is gathered.
    """
    if setup.offload == "none":
        return state
    optimizer = state.optimizer + state.host_parts.get("optimizer", 0.0)
    host = {"gradients": state.gradients, "optimizer": optimizer}
    if setup.offload == "optimizer" and not setup.offloads_masters:
        return state._replace(optimizer=0.0, step=0.0, host_parts=host)
    host = {"weights": state.weights + state.adapters, **host}
    if setup.offload == "optimizer":
        width = widths(setup)
        copies = state.weights * width.compute / width.weight
        return state._replace(optimizer=0.0, step=0.0, gradients=0.0, weights=copies, host_parts=host)
    away = state._replace(optimizer=0.0, step=0.0, gradients=0.0, weights=0.0, adapters=0.0, host_parts=host)
    if setup.parallelism.kind != "fsdp":
        return away
    return away._replace(
        references=0.0,
        embedding_gradient=0.0,
        host_parts=host | ({"reference models": state.references} if state.references else {}),
    )
