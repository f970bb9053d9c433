"""What is offloaded to a machine's own memory."""

from __future__ import annotations

from planner.architecture import parameter_counts
from planner.memory.model_state import ModelState
from planner.memory.precision import Widths
from planner.setup import Cluster, TrainingSetup


def offloaded_parts(
    setup: TrainingSetup, state: ModelState, width: Widths, cluster: Cluster
) -> dict[str, float]:
    """Bytes of one machine by what they are: what its processes have offloaded, and what pinning adds to it."""
    processes = cluster.gpus_per_node
    parts = {name: value * processes for name, value in state.host_parts.items()}
    if state.host_parts and _pins(setup, cluster):
        parts["rounding"] = sum(
            parts[name] * (_pinned_share(setup, each) - 1)
            for name, each in (
                ("weights", width.frozen if setup.adapter else width.weight),
                ("gradients", width.weight),
            )
        )
    return parts


def _pins(setup: TrainingSetup, cluster: Cluster) -> bool:
    """torch's policy pins weights and gradients, as accelerate has it."""
    return setup.offload == "parameters" and setup.parallelism.kind == "fsdp" and cluster.gpu.vendor != "cpu"


def _pinned_share(setup: TrainingSetup, each: float) -> float:
    """Pinned memory over what is in it: torch rounds each tensor up to a power of two (`PowerOf2Ceil` in its
    `CachingHostAllocator.h`), here a shard of each matrix.

    Args:
        setup: The training.
        each: Bytes of a value.
    """
    counts = parameter_counts(setup.arch, setup.task, setup.labels)
    matrices = [(shape.count, shape.inputs * shape.outputs) for shape in counts.shapes]
    tables = 1 if setup.arch.tied_embeddings else 2
    matrices.append((tables, setup.arch.vocab * setup.arch.hidden))
    sizes = [(count, values * each / setup.shards) for count, values in matrices if values]
    pinned = sum(count * 2.0 ** (max(int(size) - 1, 1)).bit_length() for count, size in sizes)
    return max(1.0, pinned / sum(count * size for count, size in sizes))
