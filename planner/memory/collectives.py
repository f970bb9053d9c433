"""Memory of one GPU that the collectives of sharded and replicated training hold."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import CLASSIFIERS, parameter_counts
from planner.memory.precision import Widths, frozen_get_gradients
from planner.setup import Parallelism, TrainingSetup
from planner.stacks import MEGATRON, stack_of

_ZERO3_LIVE_PARAMETERS = 1e9  # DeepSpeed's stage3_max_live_parameters
_ZERO_BUCKET_PARAMETERS = 5e8  # DeepSpeed's reduce_bucket_size


#: NCCL's buffers for one more group of two GPUs, or of more: 544 and 688 MB, measured on four A100 with NVLink
#: (NVIDIA/nccl issue 964). With fewer channels between the GPUs it is less.
FURTHER_GROUP_GIB = (0.53, 0.67)


class Buffers(NamedTuple):
    """Bytes by the part of a step.

    Attributes:
        loss: While the loss is computed.
        backward: At most while gradients go back.
        end: When they come to the first block.
        sampling: While answers are sampled, inside a block and at the head.
        waiting: Gradients of earlier micro-batches wait in these bytes, unsharded.
        streams: Passes through streams with pools of their own: what is gathered and reduced.
    """

    loss: float
    backward: float
    end: float
    sampling: tuple[float, float]
    waiting: bool = False
    streams: float = 0.0


def communicators(parallelism: Parallelism) -> list[int]:
    """GPUs of each group that talks through buffers of its own, those that all the others are within first.

    Beside one for each way of splitting, Megatron reduces norms of gradients over a whole copy, and tied embeddings'
    gradients between the first and last stage (`initialize_model_parallel`).

    >>> communicators(Parallelism("zero1", 4, 8, 12)), communicators(Parallelism("fsdp", 8))
    ([96, 12, 8, 4, 2], [8])
    """
    stages = parallelism.stages_at_once
    ways = [parallelism.data, parallelism.tensor, stages, parallelism.context]
    if parallelism.kind == "pp":
        ways.append(parallelism.pipeline)
    if stages > 1:
        ways.append(2)
        if parallelism.tensor > 1:
            ways.append(parallelism.tensor * stages)
    return sorted((size for size in ways if size > 1), reverse=True)


def buffers(setup: TrainingSetup, width: Widths, base: float, mine: float, gradients: float) -> Buffers:
    """What the collectives hold: buckets, gathered blocks, gradients that are not reduced yet.

    DeepSpeed's `BF16_Optimizer` reduces sums in fp32, a bucket or one larger gradient at a time
    (`buffered_allreduce_fallback`). Its ZeRO-2 makes a whole bucket however little is trained (`setup_buckets`), for
    which transformers sets the size of one of the model's matrices.
    With FSDP2 on two real processes the closed form's peak is 0.93 to 1.14 of the measured
    (benchmarks/results/sharded_memory.md).

    Args:
        setup: The training.
        width: Of its values.
        base: Bytes of the base model over all GPUs.
        mine: Trainable parameters of one tensor- and pipeline-parallel rank.
        gradients: Bytes of gradients on one GPU.
    """
    kind, several = setup.parallelism.kind, setup.parallelism.data * setup.parallelism.context > 1
    away = setup.offload == "parameters"
    if kind == "fsdp" and (several or away or stack_of(setup.framework).shards_one):
        held = _fsdp(setup, width, base)
        return _with_copies(setup, width, base, held) if away and setup.shards_parameters else held
    same, embedding = 0.0, setup.arch.vocab * setup.arch.hidden
    if kind == "ddp" and several:
        same = gradients  # the reducer's buckets, as large as the gradients
    elif kind in ("zero1", "zero2") and setup.framework == "megatron-deepspeed" and width.gradient > 4.0:
        same = 4.0 * min(mine, max(_ZERO_BUCKET_PARAMETERS, embedding / setup.parallelism.tensor))
    elif kind in ("zero1", "zero2"):
        same = 2 * 2.0 * min(mine, _ZERO_BUCKET_PARAMETERS)
        if setup.framework == "deepspeed":
            same = max(same, 2.0 * _ZERO_BUCKET_PARAMETERS)
    elif kind == "zero3":
        return _zero3(setup, width, mine)
    return Buffers(same, same, same, (same, same))


def _zero3(setup: TrainingSetup, width: Widths, mine: float) -> Buffers:
    """Parameters that are alive at a time, a bucket of gradients, and weights that stay gathered all the same."""
    counts, parts = parameter_counts(setup.arch, setup.task, setup.labels), setup.parallelism.tensor
    embedding = setup.arch.vocab * setup.arch.hidden
    live = min(counts.total, _ZERO3_LIVE_PARAMETERS) + embedding * (1 if setup.arch.tied_embeddings else 2)
    # A gather holds its flat result and the parameters' own copies at once.
    same = 2 * width.compute * live / parts + 2.0 * min(mine, _ZERO_BUCKET_PARAMETERS)
    kept = 0.0
    if stack_of(setup.framework).keeps_gathered and setup.quantization == "none":
        share = 1.0 - setup.recomputed_blocks if setup.gradient_checkpointing else 1.0
        kept = share * width.compute * max(0.0, counts.linear - _ZERO3_LIVE_PARAMETERS) / parts
    return Buffers(same + kept, same + kept, same, (same, same))


def _fsdp(setup: TrainingSetup, width: Widths, base: float) -> Buffers:
    """Two gathered blocks (one prefetched), the root's embedding and head, and unsharded gradients.

    FSDP2 gives the blocks back before the loss, for which TRL gathers the head's weights alone. Gradients of all but a
    step's last micro-batch are not reduced (accelerate's `no_sync`): FSDP2 keeps them in place of their shards. While
    answers are sampled embedding and head are gathered each for itself (two real processes held no more).
    """
    counts, stack = parameter_counts(setup.arch, setup.task, setup.labels), stack_of(setup.framework)
    parts = setup.parallelism.tensor
    experts = sum(shape.parameters for shape in counts.shapes if shape.role == "expert")
    linear = counts.linear - experts * (
        1 - 1 / setup.parallelism.expert
    )  # a rank gathers its own experts alone
    block = linear / (setup.arch.layers + setup.arch.decoder_layers) / parts
    root = (counts.total - counts.linear) / parts
    stored = base / counts.total if setup.quantization != "none" else width.gathered
    blocks = stored * 2 * block
    gathered = blocks + width.gathered * root
    full = setup.adapter is None
    waiting = full and setup.grad_accum > 1 and stack.accelerate and not setup.reduces_each_micro_batch
    unsharded = width.gathered * counts.total / parts / setup.parallelism.pipeline if waiting else 0.0
    # Megatron-FSDP adds gradients up in buffers of fp32, sharded or not (`grad_reduce_in_fp32`, its recipes' default)
    of_gradient = max(width.gathered, width.gradient) if setup.framework in MEGATRON else width.gathered
    last = of_gradient * (block + root) if full else 0.0
    if frozen_get_gradients(setup):
        last = of_gradient * block
    backward = gathered + max(unsharded, last)
    if not setup.shards_parameters:
        return Buffers(backward, backward, backward, (backward, backward), streams=gathered + last)
    head = width.gathered * head_parameters(setup) / parts
    if stack.wraps_embeddings or (stack.wraps_untied and not setup.arch.tied_embeddings):
        trained = 1 + (4.0 if stack.fp32_master else width.gathered) / width.gathered if full else 0.0
        return _wrapped(blocks, width.gathered * block * trained, head, head * trained)
    return Buffers(head + unsharded, backward, gathered + last, (blocks, head), waiting, gathered + last)


def _with_copies(setup: TrainingSetup, width: Widths, base: float, held: Buffers) -> Buffers:
    """The same with what is on its way between host and GPU under FSDP2.

    A block's shard is cast where it arrives, and that of its gradients is reduced and then cast to what the host keeps
    (torch 2.13's `all_gather_inputs` and `foreach_reduce`); the root's gradients come last. The head's shard comes as
    the host keeps it where the loss gathers it alone.

    Args:
        setup: The training.
        width: Of its values.
        base: Bytes of the base model over all GPUs.
        held: Without the copies.
    """
    counts, full = parameter_counts(setup.arch, setup.task, setup.labels), setup.adapter is None
    block = counts.linear / (setup.arch.layers + setup.arch.decoder_layers)
    arriving = base / counts.total if setup.quantization != "none" else width.compute
    leaving = width.compute + width.weight if full else 0.0
    head = (width.weight if full else width.frozen) * head_parameters(setup) / setup.shards
    passing = (arriving + leaving) * block / setup.shards
    last = leaving * (counts.total - counts.linear) / setup.shards
    return held._replace(
        loss=held.loss + head,
        backward=held.backward + passing,
        end=held.end + last,
        streams=held.streams + max(passing, last),
    )


def _wrapped(blocks: float, block_gradients: float, head: float, head_gradient: float) -> Buffers:
    """Where embedding and head are sharded for themselves (torchtitan, torchtune's `custom_sharded_layers`).

    A head is gathered before the loss, and still there with its gradient when the backward pass begins.

    Args:
        blocks: Bytes of two gathered blocks.
        block_gradients: Bytes of a block's gradients, and of the copy that is reduced.
        head: Bytes of the gathered head.
        head_gradient: The same of its gradient.
    """
    inside = blocks + block_gradients
    return Buffers(head + head_gradient, max(inside, head), inside, (blocks, head), streams=inside)


def head_parameters(setup: TrainingSetup) -> int:
    """Weights of the output head, which may be the embedding's."""
    if is_classifier(setup):
        return parameter_counts(setup.arch, setup.task, setup.labels).head
    return setup.arch.vocab * setup.arch.hidden


def is_classifier(setup: TrainingSetup) -> bool:
    """Whether a new head takes the place of the one over words."""
    return setup.task in CLASSIFIERS
