"""Memory of one machine, beside its GPUs'."""

from __future__ import annotations

from planner.architecture import parameter_counts
from planner.memory.model_state import ModelState
from planner.memory.precision import Widths, is_sharded
from planner.setup import Cluster, TrainingSetup

_GIB = float(2**30)
#: Threads of transformers that bring weights.
_TENSORS_AT_ONCE = 4


def host_parts(setup: TrainingSetup, state: ModelState, width: Widths, cluster: Cluster) -> dict[str, float]:
    """Bytes of one machine by what they are for: offloaded state, a checkpoint or the loading, a few GiB a process.

    Weights in the type of their file are mapped and read once, whoever loads them; in fp32 each process that is not one
    of many shards makes a copy of its own (measured: a bf16 file of 534 MB took 6 MB and 1,024 MB). What bitsandbytes
    packs goes to the GPU a tensor at a time, so that a few of the largest are here at once (read in transformers
    5.17, where a quantised model's device is the GPU from the start; not measured). Of a model in shards each machine
    saves its own; the finished one is gathered, without optimizer states, on one of them. A shard is put together in
    memory before it is written (torch 2.13's `distributed/checkpoint/filesystem.py`; safetensors 0.8's `save` takes one
    copy, measured), also of what is on the host already.
    """
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
    parts["loading or saving"] = max(_loading(setup, state, cluster), _saving(setup, state, width, cluster))
    parts["processes"] = (4.0 + 2.5 * processes) * _GIB
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


def _loading(setup: TrainingSetup, state: ModelState, cluster: Cluster) -> float:
    processes = cluster.gpus_per_node
    if setup.quantization in ("4bit", "8bit") and cluster.gpu.vendor != "cpu":
        return _TENSORS_AT_ONCE * processes * 4.0 * setup.arch.vocab * setup.arch.hidden
    copied = setup.precision in ("fp32", "tf32") or (setup.precision == "fp16" and setup.adapter is None)
    loaders = 1 if is_sharded(setup.parallelism.kind) else processes
    return state.total * (4.0 * loaders if copied else 2.0)


def _saving(setup: TrainingSetup, state: ModelState, width: Widths, cluster: Cluster) -> float:
    saving = state.trainable * (width.weight + width.state + width.master)
    if is_sharded(setup.parallelism.kind):
        return max(saving / cluster.nodes, state.trainable * width.weight)
    return saving
