"""Seconds that weights, gradients and states on the host cost: copies over PCIe and work of the CPU.

What is copied and computed is read in the code: DeepSpeed 0.9 to 0.16 (`runtime/zero/stage3.py`, `stage_1_and_2.py`,
`partition_parameters.py`), torch 2.9's FSDP (`fsdp/_fully_shard/_fsdp_param.py`, `_fsdp_collectives.py`). How fast a
host is nobody says of a rented machine: rates are priors with their sources beside them, and a doubt that weighs as
much as their share of the step (`planner.throughput.doubts`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from planner.memory.model_state import base_weight_bytes
from planner.memory.precision import is_sharded, widths
from planner.setup import Cluster, TrainingSetup
from planner.stacks import stack_of
from planner.throughput.terms import step_shape
from planner.workload import extra_forwards, micro_batch_tokens

# Two GPUs of a machine with eight are behind one switch (`nvidia-smi topo -m` of A100 and V100 machines).
_GPUS_BEFORE_UPLINKS_ARE_SHARED, _GPUS_PER_UPLINK = 4, 2
# Memory that is not pinned is copied through a buffer of the driver's: told as 5 to 8 GB/s of PCIe 3 and 4.
_PAGEABLE_BYTES_PER_S = 6e9
# All processes of a machine share its memory. ZeRO-Offload's CPU Adam took 2.6 s for 10e9 parameters, 28 bytes each,
# on a DGX-2 (Ren et al. 2021): 0.43 of what the memory of its two Xeons 8168 can do. The same share is taken of two
# sockets of each time, which is told by the GPU's PCIe: 3 (six channels of DDR4-2666 a socket), 4 (EPYC 7742, eight of
# DDR4-3200), 5 (Xeon 8480, eight of DDR5-4800).
_SHARE_OF_MEMORY = 110e9 / 256e9
_MACHINE_BYTES_PER_S = ((16e9, 256e9), (32e9, 410e9), (math.inf, 614e9))  # up to which rate over PCIe
# One process at most: a rented GPU has an eighth to a half of such a host. Assumed. (Bound to cores of their own, ranks
# took a step in 1/1.16 of the time that they took with all cores each: DeepSpeed's blogs/zenflow-corebinding, October
# 2025; not counted on.)
_HOST_BYTES_PER_S = 40e9
# One of several processes with one thread each; a core streams 10 (Xeon) to 45 GB/s (EPYC, measured with torch 2.9).
# Assumed in between.
_THREAD_BYTES_PER_S = 20e9
# Measured on one core of an EPYC with torch 2.9, as bytes at the rate above. ZeRO-3 looks for overflow with isinf and
# isnan over all gradients in 16 bits, which make several masks: 2.4 ns a value. torch's AdamW without fused kernels
# makes temporaries for each operation: 8 to 22 ns a weight in fp32, 3 to 14 in bf16, where they are large enough to be
# new pages each time; adapters' are not (1.3 ns).
_OVERFLOW_BYTES = 48.0
_UNFUSED_PASSES = 42.0
_FP32 = 4.0
#: Stacks that send activations through a stream of its own, behind the work: torchtune's `OffloadActivations`, which
#: TRL took over, and Transformer Engine. Others copy in the stream that computes (unsloth's checkpointing).
_OWN_STREAM = frozenset({"torchtune", "trl", "megatron"})


class HostSeconds(NamedTuple):
    """Beside the GPU's work.

    Attributes:
        queued: Of a micro-batch, in the stream of the collectives: hidden in part, like them.
        copied: The same beside the collectives, in another stream.
        behind: The same of what hides wholly, unless it is the longest.
        waited: Of a micro-batch, hidden by nothing.
        once: Of a step.
    """

    queued: float = 0.0
    copied: float = 0.0
    behind: float = 0.0
    waited: float = 0.0
    once: float = 0.0


def offload_seconds(setup: TrainingSetup, cluster: Cluster) -> HostSeconds:
    """Copies between host and GPU; what the CPU computes once a step is `host_step_seconds`."""
    kind = setup.parallelism.kind
    if setup.offload == "none":
        state = HostSeconds()
    elif kind == "fsdp":
        state = _fsdp(setup, cluster)
    elif kind.startswith("zero"):
        state = _deepspeed(setup, cluster)
    else:  # a stack of its own: gradients to the host and weights back, once a step
        sent = 2 * widths(setup).weight + widths(setup).gradient
        state = HostSeconds(once=_partition(setup) * sent / pinned_bytes_per_s(cluster))
    if not setup.offloads_activations:
        return state
    seconds = _activation_bytes(setup) / pinned_bytes_per_s(cluster)
    if setup.framework in _OWN_STREAM:
        return state._replace(behind=seconds)
    return state._replace(waited=state.waited + seconds)


def pinned_bytes_per_s(cluster: Cluster) -> float:
    """Rate of one GPU's copies to or from pinned memory while all others of its machine copy too."""
    shared = cluster.gpus_per_node > _GPUS_BEFORE_UPLINKS_ARE_SHARED
    return cluster.gpu.pcie_bytes_per_s / (_GPUS_PER_UPLINK if shared else 1)


def _pageable(cluster: Cluster) -> float:
    return min(_PAGEABLE_BYTES_PER_S, pinned_bytes_per_s(cluster))


def host_rate(setup: TrainingSetup, cluster: Cluster) -> float:
    """Bytes/s that one process's work on the CPU goes through while all others of its machine work too."""
    ranks = cluster.gpus_per_node
    alone = setup.one_thread_a_rank and ranks > 1
    return min(_THREAD_BYTES_PER_S if alone else _HOST_BYTES_PER_S, _machine_rate(cluster) / ranks)


def _machine_rate(cluster: Cluster) -> float:
    pcie = cluster.gpu.pcie_bytes_per_s
    return _SHARE_OF_MEMORY * next(rate for most, rate in _MACHINE_BYTES_PER_S if pcie <= most)


def _partition(setup: TrainingSetup) -> float:
    """Trained parameters of which one rank steps the optimizer."""
    parallel = setup.parallelism
    return step_shape(setup).trained / parallel.tensor / parallel.pipeline / _shards(setup)


def _shards(setup: TrainingSetup) -> int:
    return setup.shards if setup.parallelism.kind in ("fsdp", "zero1", "zero2", "zero3", "mixed") else 1


def _stored_shard(setup: TrainingSetup) -> float:
    """Bytes of the base that one rank keeps on the host, where weights are there at all."""
    if setup.offload != "parameters":
        return 0.0
    parallel = setup.parallelism
    shards = setup.shards if is_sharded(parallel.kind) else 1
    return base_weight_bytes(setup) / parallel.tensor / parallel.pipeline / shards


def _deepspeed(setup: TrainingSetup, cluster: Cluster) -> HostSeconds:
    """ZeRO's copies.

    Each pass fetches the rank's shard from the host (ZeRO-3; forward, backward, and recomputation before it).
    Partitions of gradients go there in 16 bits, come back to be added to on the GPU ("adding directly to cpu is very
    slow") and go again, and once a step in fp32; ZeRO-3 fetches them even if there is nothing to add to. Weights that
    stay on the GPU come back from fp32 through memory that is not pinned. Trained weights are pinned in any case, under
    ZeRO-2 gradients too; the rest where the settings say so.
    """
    three, mine = setup.parallelism.kind == "zero3", _partition(setup)
    pinned, pageable = pinned_bytes_per_s(cluster), _pageable(cluster)
    other = pinned if setup.pins_host_memory else pageable
    passes = 3 if setup.gradient_checkpointing else 2
    fetched = passes * _stored_shard(setup) / (pinned if setup.adapter is None else other)
    accumulated = 1.0 if three else (setup.grad_accum - 1) / setup.grad_accum
    gradients = accumulated * 2 * widths(setup).gradient * mine / (other if three else pinned)
    hides = setup.pins_host_memory or not three
    sent = _FP32 * mine / (other if three else pinned)
    returned = 0.0 if setup.offload == "parameters" and three else widths(setup).compute * mine / pageable
    return HostSeconds(
        queued=fetched + (gradients if hides else 0.0),
        waited=0.0 if hides else gradients,
        once=sent + returned,
    )


def _fsdp(setup: TrainingSetup, cluster: Cluster) -> HostSeconds:
    """torch's copies, of shards as they are stored: to the GPU before each of two passes, gradients back after it.

    Passes of a reference are further ones: of a model of its own, in 16 bits, or of the base without its adapters.

    FSDP2 adds a later micro-batch's gradients on the CPU, in the thread of the backward pass and without pinned memory.
    """
    mine, width = _partition(setup), widths(setup).weight
    fetched = (2 * _stored_shard(setup) + _references_fetched(setup)) / pinned_bytes_per_s(cluster)
    stack = stack_of(setup.framework)
    waits = stack.accelerate and not setup.reduces_each_micro_batch
    sent = width * mine / pinned_bytes_per_s(cluster)
    if setup.grad_accum == 1 or not setup.shards_parameters:
        return HostSeconds(copied=fetched + sent)
    if waits:
        return HostSeconds(copied=fetched, once=sent)
    added = width * mine / _pageable(cluster) + 3 * width * mine / host_rate(setup, cluster)
    return HostSeconds(copied=fetched, waited=added)


def _references_fetched(setup: TrainingSetup) -> float:
    if setup.offload != "parameters":
        return 0.0
    passes = extra_forwards(setup.task, setup.preference_loss, reference=setup.reference)
    stored = _stored_shard(setup)
    return passes * (stored if setup.adapter else stored * widths(setup).reference / widths(setup).weight)


def _activation_bytes(setup: TrainingSetup) -> float:
    """Inputs of all blocks, to the host and back."""
    parallel, arch = setup.parallelism, setup.arch
    blocks = (arch.layers + arch.decoder_layers) / parallel.stages_at_once
    tokens = micro_batch_tokens(setup)
    split = parallel.tensor if setup.shares_sequence else 1
    return 2 * widths(setup).residual * arch.hidden * tokens * blocks / split


def host_step_seconds(setup: TrainingSetup, cluster: Cluster, moved: float) -> float:
    """The optimizer's step on the CPU.

    DeepSpeed's unscales gradients in fp32 (8 bytes a parameter), steps with a kernel of its own (28 with AdamW) and
    casts weights (6). torch's has no fused kernel unless it is asked for.

    Args:
        setup: The training.
        cluster: Where it runs.
        moved: Bytes that a fused step reads and writes for one parameter.
    """
    width, kind = widths(setup), setup.parallelism.kind
    if kind == "fsdp":
        faults = setup.optimizer == "adamw" and setup.adapter is None
        each = _UNFUSED_PASSES * width.weight if faults else moved
    elif kind.startswith("zero"):
        each = 2 * (_FP32 + width.state + (width.master or width.weight)) + width.compute + 2 * _FP32
        each += _OVERFLOW_BYTES if kind == "zero3" else 0.0
    else:
        each = moved
    return _partition(setup) * each / host_rate(setup, cluster)
