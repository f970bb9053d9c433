"""Memory that does not depend on the batch: weights, gradients, optimizer, further models, buffers."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import ModelArchitecture, adapter_parameters, parameter_counts
from planner.memory.precision import Widths, is_sharded, widths
from planner.setup import TrainingSetup
from planner.shape_cache import by_shape

# nf4: half a byte, an absmax byte a block of 64, and its own fp32 scale every 256 blocks (double
# quantisation).
_QUANTISED_BYTES = {"4bit": 0.5 + 1 / 64 + 4 / (64 * 256), "8bit": 1.0, "fp8": 1.0}
_ZERO3_LIVE_PARAMETERS = 1e9  # DeepSpeed's stage3_max_live_parameters
_ZERO_BUCKET_PARAMETERS = 5e8  # DeepSpeed's reduce_bucket_size


class ModelState(NamedTuple):
    """Bytes on one GPU.

    Attributes:
        weights: Base model.
        adapters: Adapter weights.
        gradients: Of all trainable parameters, as they are held between backward and step.
        optimizer: States and master copies.
        step: Temporary of the optimizer's step.
        comm: Buckets, gathered blocks and unsharded gradients of a block.
        references: Further models (reference, reward, critic).
        head_gradient: Gradient of the output head, the first to exist in a backward pass.
        late_gradient: The part of `gradients` that is made last, when no block's activations are left: of an embedding
            that shares no weights with the head.
        embedding_gradient: The embedding's own, before it is added to one that is there (its head's, if they share
            weights, or an earlier micro-batch's).
        trainable: Trainable parameters in the whole model.
        total: Parameters of the whole model, adapters included.
        host: Bytes offloaded to the host, per GPU.
    """

    weights: float
    adapters: float
    gradients: float
    optimizer: float
    step: float
    comm: float
    references: float
    head_gradient: float
    late_gradient: float
    embedding_gradient: float
    trainable: int
    total: int
    host: float

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
    trainable = counts.total if full else adapter_parameters(setup.arch, setup.adapter) + _new_head(setup)
    parts = parallel.tensor * parallel.pipeline
    shards = parallel.data * parallel.context if is_sharded(parallel.kind) else 1
    expert = _expert_share(setup, counts.total)
    mine = trainable / parts
    weights = base / parts * _per_rank(expert, shards, parallel.expert)
    adapters = 0.0 if full else mine * width.weight / shards
    # ZeRO-1 and the distributed optimizer of Megatron shard states alone; ZeRO-2 gradients as well.
    gradient_shards = parallel.data if parallel.kind in ("fsdp", "zero2", "zero3") else 1
    gradients = mine * width.gradient * _per_rank(expert if full else 0.0, gradient_shards, parallel.expert)
    ranks = parallel.data * parallel.context
    state_shards = ranks if parallel.kind in ("zero1", "mixed") else gradient_shards
    optimizer = mine * (width.state + width.master) / state_shards
    comm = _comm(setup, width, mine, gradients)
    step = mine * width.step / state_shards
    embedding = setup.arch.vocab * setup.arch.hidden * width.gradient / parts if full else 0.0
    shared = setup.arch.tied_embeddings and not _is_classifier(setup)
    state = ModelState(
        weights=weights + (counts.total / parts * width.cast_cache if full else 0.0),
        adapters=adapters,
        gradients=gradients,
        optimizer=0.0 if setup.optimizer.startswith("paged") else optimizer,
        step=step,
        comm=comm,
        references=_references(setup, counts.total * width.reference / parts, optimizer + gradients + step),
        head_gradient=_head_parameters(setup) * width.gradient / parts / shards if full else gradients,
        late_gradient=0.0 if shared else embedding / gradient_shards,
        embedding_gradient=embedding if (shared or setup.grad_accum > 1) and ranks == 1 else 0.0,
        trainable=trainable,
        total=counts.total + (0 if full else trainable),
        host=optimizer if setup.optimizer.startswith("paged") else 0.0,
    )
    return _offloaded(setup, state)


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
    others = counts.total - counts.linear
    return quantised * _QUANTISED_BYTES[setup.quantization] + experts * width.frozen + others * rest


def _quantised_parameters(arch: ModelArchitecture, experts: bool) -> int:
    """Weights of separate linear modules; transformers 5 leaves fused experts and routers as they are."""
    shapes = parameter_counts(arch).shapes
    kept = ("router",) if experts else ("router", "expert")
    return sum(s.count * s.inputs * s.outputs for s in shapes if s.role not in kept)


def _new_head(setup: TrainingSetup) -> int:
    """A classification head is trained whole beside the adapters."""
    return parameter_counts(setup.arch, setup.task, setup.labels).head if _is_classifier(setup) else 0


def _head_parameters(setup: TrainingSetup) -> int:
    """Weights of the output head, which may be the embedding's."""
    return _new_head(setup) or setup.arch.vocab * setup.arch.hidden


def _is_classifier(setup: TrainingSetup) -> bool:
    return setup.task in ("classification", "reward", "ner", "qa")


def _comm(setup: TrainingSetup, width: Widths, mine: float, gradients: float) -> float:
    kind = setup.parallelism.kind
    if setup.parallelism.data == 1 and kind not in ("zero1", "zero2", "zero3"):
        return 0.0
    if kind == "ddp":
        return gradients  # the reducer's buckets, as large as the gradients
    if kind in ("zero1", "zero2"):
        return 2 * 2.0 * min(mine, _ZERO_BUCKET_PARAMETERS)
    if kind == "fsdp":
        return _fsdp_comm(setup, width)
    if kind == "zero3":
        total = parameter_counts(setup.arch, setup.task, setup.labels).total
        embedding = setup.arch.vocab * setup.arch.hidden
        live = min(total, _ZERO3_LIVE_PARAMETERS) + embedding * (1 if setup.arch.tied_embeddings else 2)
        # A gather holds its flat result and the parameters' own copies at once.
        return 2 * width.compute * live + 2.0 * min(mine, _ZERO_BUCKET_PARAMETERS)
    return 0.0


def _fsdp_comm(setup: TrainingSetup, width: Widths) -> float:
    """Two gathered blocks (one prefetched), the root's embedding and head, and unsharded gradients."""
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    blocks = setup.arch.layers + setup.arch.decoder_layers
    compute = (
        base_weight_bytes(setup, width) / counts.total if setup.quantization != "none" else width.compute
    )
    block = counts.linear / blocks
    root = counts.total - counts.linear
    gathered = compute * 2 * block + width.compute * root
    if setup.adapter is not None:
        return gathered
    if setup.grad_accum > 1 and setup.framework in ("hf", "trl"):
        return (
            gathered + width.compute * counts.total
        )  # no_sync keeps unsharded gradients until the last micro-batch
    return gathered + width.compute * (block + root)


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
    one = model / (parallel.data * parallel.context if is_sharded(parallel.kind) else 1)
    held = setup.task in ("dpo", "kto") or (setup.task == "grpo" and setup.reference)
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
    if setup.offload == "optimizer":
        host = state.optimizer + state.gradients
        return state._replace(optimizer=0.0, step=0.0, gradients=state.gradients, host=state.host + host)
    if setup.offload == "parameters":
        host = state.optimizer + state.gradients + state.weights + state.adapters
        return state._replace(
            optimizer=0.0, step=0.0, gradients=0.0, weights=0.0, adapters=0.0, host=state.host + host
        )
    return state
