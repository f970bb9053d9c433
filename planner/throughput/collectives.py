"""Seconds that GPUs exchange values for: shards, gradients, and parts of what one model copy computes."""

from __future__ import annotations

from typing import NamedTuple

from planner.architecture import parameter_counts
from planner.memory.precision import Widths, is_sharded, widths
from planner.recomputation import recomputed
from planner.setup import Cluster, TrainingSetup
from planner.stacks import MEGATRON, stack_of
from planner.throughput.constants import TIME
from planner.throughput.terms import hooks_megatron, step_shape
from planner.workload import micro_batch_tokens

_ETHERNET_BYTES_PER_S = 100e9 / 8  # where a published run does not say; what is rented has `planner.network`
_RACK_SCALE = frozenset({"GB200", "GB300"})  # NVLink reaches every GPU of a rack
_RACK_GPUS = 72


class Exchange(NamedTuple):
    """Seconds that GPUs talk.

    Attributes:
        beside_s: In a micro-batch, beside compute.
        waiting_s: In a micro-batch, while compute waits.
        once_s: In a step, after its last micro-batch.
    """

    beside_s: float = 0.0
    waiting_s: float = 0.0
    once_s: float = 0.0


def exchange(setup: TrainingSetup, cluster: Cluster) -> Exchange:
    """What a step's collectives take.

    Ranks are numbered as Megatron, DeepSpeed's topology and torch's meshes do: tensor-parallel ranks are neighbours,
    then those of one row, then copies.
    """
    parallel = setup.parallelism
    if parallel.gpus_total == 1:
        return Exchange()
    width, shape = widths(setup), step_shape(setup)
    every, once = 0.0, 0.0
    ranks = parallel.data * parallel.context
    if ranks > 1:
        every, once = _data_parallel_bytes(setup, width.compute, _reduced(setup, width), shape.trained)
    copies = collective_rate(cluster, ranks, parallel.tensor)
    beside = every / collective_rate(cluster, setup.shards, parallel.tensor)
    beside += _copies_bytes(setup, shape.trained) / copies + _rows_and_experts_seconds(setup, cluster)
    if is_sharded(parallel.kind) and parallel.kind != "zero3" and not hooks_megatron(setup):
        beside += (setup.arch.layers + setup.arch.decoder_layers) * fsdp_block_s(setup)
    sums = _tensor_seconds(setup, cluster)
    waits = stack_of(setup.framework).waits_for_sums or setup.adapter is not None
    return Exchange(beside + (0.0 if waits else sums), sums if waits else 0.0, once / copies)


def _reduced(setup: TrainingSetup, width: Widths) -> float:
    """Bytes of a gradient as it is sent: Megatron adds them up in fp32, but its recipes reduce them in bf16."""
    return width.compute if setup.framework in MEGATRON else width.gradient


def collective_rate(cluster: Cluster, ranks: int, stride: int = 1) -> float:
    """Bytes/s that a collective of such a group reaches; a port of the network is filled better than NVLink."""
    rate = group_bytes_per_s(cluster, ranks, stride)
    one_on_each = cluster.nodes > 1 and stride >= cluster.gpus_per_node > 1
    return rate * TIME["port" if one_on_each else "link"]


def fsdp_block_s(setup: TrainingSetup) -> float:
    """Host time that sharding costs for each block and micro-batch."""
    return TIME["fsdp_layer_s" if stack_of(setup.framework).accelerate else "fsdp_layer_native_s"]


def _tensor_seconds(setup: TrainingSetup, cluster: Cluster) -> float:
    """Sums of hidden states over tensor-parallel ranks in one micro-batch, or a gather and a scatter in their place.

    Two a block forward, two backward, and those of what is computed again (torchtitan's selection keeps the
    scattered halves). A ring of n ranks sends each value 2 (n - 1) / n times. They hide behind the products that make
    the weights' gradients, of which a frozen base has none.
    """
    arch, parallel, again = setup.arch, setup.parallelism, recomputed(setup)
    if parallel.tensor == 1:
        return 0.0
    sums = 4.0 + again.elementwise * (1.0 if setup.keeps_products else 2.0)
    sent = 2.0 * (parallel.tensor - 1) / parallel.tensor * micro_batch_tokens(setup) * arch.hidden
    blocks = arch.layers + arch.decoder_layers
    moved = sums * sent * widths(setup).compute * blocks / parallel.pipeline
    return moved / collective_rate(cluster, parallel.tensor)


def _rows_and_experts_seconds(setup: TrainingSetup, cluster: Cluster) -> float:
    """Activations that context- and expert-parallel ranks exchange in one micro-batch.

    Keys and values once around the ring forward and twice backward for context ranks; every token that is not at home
    to its experts and back, both ways, for expert ranks, which are neighbours whatever else is split (Megatron's
    folding, where experts are not split by tensor-parallel ranks).
    """
    arch, parallel = setup.arch, setup.parallelism
    tokens, width = micro_batch_tokens(setup), widths(setup).compute
    ring = 3 * tokens * (parallel.context - 1) * (arch.kv_size + arch.v_size) * width * arch.layers
    away = (parallel.expert - 1) / parallel.expert
    routed = 4 * away * tokens * arch.experts_per_token * arch.hidden * width * arch.moe_layers
    seconds = 0.0
    if parallel.context > 1:
        seconds += ring / parallel.tensor / collective_rate(cluster, parallel.context, parallel.tensor)
    if parallel.expert > 1:
        seconds += routed / collective_rate(cluster, parallel.expert)
    return seconds / parallel.pipeline


def _data_parallel_bytes(
    setup: TrainingSetup, compute: float, gradient: float, trained: float
) -> tuple[float, float]:
    """Bytes of weights and gradients that a GPU exchanges in a micro-batch, and in a step."""
    parallel = setup.parallelism
    parts = parallel.tensor * parallel.pipeline
    if is_sharded(parallel.kind):
        each = {"4bit": 0.53, "8bit": 1.0, "fp8": 1.0}.get(setup.quantization, compute)
        passes = 3 if setup.gradient_checkpointing and parallel.kind == "zero3" else 2
        total = parameter_counts(setup.arch, setup.task, setup.labels).total
        moved = passes * each * total + _sharded_gradient(setup, compute) * trained
        return _of_ranks(setup, setup.shards) * moved / parts, 0.0
    share = _of_ranks(setup, parallel.data * parallel.context)
    if parallel.kind == "zero2":
        return share * gradient * trained / parts, share * compute * trained / parts
    return 0.0, share * 2 * gradient * trained / parts


def _of_ranks(setup: TrainingSetup, ranks: int) -> float:
    """Share of the parameters that a rank of so many gets from others, or sends.

    Experts that expert-parallel ranks share out are gathered and reduced among the ranks that hold the same ones only.
    """
    if ranks == 1:
        return 0.0
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    experts = sum(s.parameters for s in counts.shapes if s.role == "expert") / counts.total
    alike = ranks / setup.parallelism.expert
    return (ranks - 1) / ranks * (1 - experts + experts * max(0.0, alike - 1) / (ranks - 1))


def _sharded_gradient(setup: TrainingSetup, compute: float) -> float:
    """Bytes of a sharded gradient as it is sent."""
    return 4.0 if stack_of(setup.framework).fp32_reduce else compute


def _copies_bytes(setup: TrainingSetup, trained: float) -> float:
    """Bytes of gradients that machines with a sharded copy each exchange, all GPUs of a machine together; block by
    block, behind the backward pass.
    """
    parallel = setup.parallelism
    if not is_sharded(parallel.kind):
        return 0.0
    sent = _sharded_gradient(setup, widths(setup).compute) * trained / (parallel.tensor * parallel.pipeline)
    return 2 * sent * (setup.replicas - 1) / setup.replicas


def group_bytes_per_s(cluster: Cluster, ranks: int, stride: int = 1) -> float:
    """Rate at which a ring of ranks moves data: the slowest link that it crosses, per direction and GPU.

    Groups that have few members on each machine share its network with those of their neighbours.

    Args:
        cluster: The machines.
        ranks: Of the group.
        stride: GPUs from one of them to the next.
    """
    gpu = cluster.gpu
    inside = gpu.link_bytes_per_s or 0.5 * gpu.pcie_bytes_per_s
    domain = max(cluster.gpus_per_node, _RACK_GPUS if gpu.name in _RACK_SCALE else 0)
    if ranks <= max(1, domain // stride) or cluster.nodes == 1:
        return inside
    network = _ETHERNET_BYTES_PER_S
    if cluster.inter_node_gbit_per_s is not None:
        network = cluster.inter_node_gbit_per_s * 1e9 / 8
    neighbours = min(stride, cluster.gpus_per_node)
    return min(inside, network / neighbours)
