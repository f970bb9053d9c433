"""Memory that a machine needs beside its GPUs': to import, hold the data, load, go on from a checkpoint and save.

Read in transformers 5.17, torch 2.13, safetensors 0.8 and accelerate 1.15, and measured on CPUs where it does not go by
the device. What a file's pages take that are only mapped counts once a machine: the system may have them back.
"""

from __future__ import annotations

from typing import NamedTuple

from planner.memory import MemoryEstimate
from planner.memory.model_state import model_state
from planner.memory.precision import Widths, is_sharded, widths
from planner.setup import Cluster, TrainingSetup

_GIB = 2.0**30
#: The system, its drivers and what is around the worker.
_MACHINE_BYTES = 4.0 * _GIB
#: torch, transformers and TRL with a CUDA context: 2.0 and 2.3 GB of it (pytorch's issues 113326 and 106511).
_PROCESS_BYTES = 2.5 * _GIB
#: Threads of transformers that bring weights.
_TENSORS_AT_ONCE = 4
#: transformers 5 writes weights in files of at most this, each of which is on the host whole (`save_pretrained`).
_FILE_BYTES = 50e9
#: The worker's own files of a sharded checkpoint (`jobs.sharded`), and how often torch and safetensors hold one.
_SHARD_BYTES, _SHARD_COPIES = 1.0 * _GIB, 3
#: Each process reads all rows and tokenises them into memory (`Dataset.from_list` has no file, nor has what is made of
#: it): ids and labels are 12 bytes a token in TRL 1.16, and several times as much stays resident of making them.
#: Measured between 2.1 and 8.5 million tokens of text, 3.9 bytes each: 53 bytes a token and 2.25 copies of the text;
#: conversations, packed rows and pairs took 115, 86 and 70 % of what that makes.
_TEXT_COPIES, _TOKEN_BYTES = 2.25, 53.0
#: Bytes of a value in a file; what has less is packed.
_FP32_FILE, _HALF_FILE = 3.0, 1.5


class Data(NamedTuple):
    """What is read.

    Attributes:
        tokens: Of one pass.
        text_bytes: Of the files.
    """

    tokens: float
    text_bytes: float


def host_memory_parts(
    setup: TrainingSetup, cluster: Cluster, memory: MemoryEstimate, *, stored_bytes: float, data: Data
) -> dict[str, float]:
    """Bytes of one machine by what they are for, at the largest of its moments: loading, going on, saving.

    On a CPU it is what training takes, and the data. Loading has what is mapped too.

    Args:
        setup: The training.
        cluster: Where it runs.
        memory: What training takes on a GPU, or on the CPU.
        stored_bytes: Of the base model's files.
        data: What is trained on.
    """
    processes = cluster.gpus_per_node
    held = processes * (_TEXT_COPIES * data.text_bytes + _TOKEN_BYTES * data.tokens)
    if cluster.gpu.vendor == "cpu":
        return {"training": memory.nvml_bytes * processes, "data": held}
    width = widths(setup)
    moments = (
        _loading(setup, width, processes, stored_bytes),
        _going_on(setup, width),
        _saving(setup, width, cluster),
    )
    return memory.host_parts_bytes | {
        "data": held,
        "loading or saving": max(moments),
        "processes": _MACHINE_BYTES + _PROCESS_BYTES * processes,
    }


def _loading(setup: TrainingSetup, width: Widths, processes: int, stored_bytes: float) -> float:
    """Weights in the type of their file are mapped, whoever loads them; in another each process makes a copy.

    A bf16 file of 534 MB took 6 MB in bf16 and 1,024 MB in fp32. What bitsandbytes packs goes to the GPU a tensor at a
    time, so that a few of the largest are here at once (from the code, not measured). Of a model in shards the leading
    process alone keeps its weights, and widens those that are trained (`jobs.sharded`): 445 MiB for 117 million.
    """
    state = model_state(setup)
    if setup.quantization in ("4bit", "8bit"):
        return _TENSORS_AT_ONCE * processes * 4.0 * setup.arch.vocab * setup.arch.hidden
    loaded = (
        width.weight if setup.adapter is None and not is_sharded(setup.parallelism.kind) else width.frozen
    )
    in_file = stored_bytes / state.total
    alike = in_file >= _FP32_FILE if loaded == 4.0 else _HALF_FILE <= in_file < _FP32_FILE
    alike = alike and setup.precision != "fp16"  # most files of two bytes are in bf16
    models = 2 if state.references else 1
    copies = 0.0 if alike else loaded * state.total * processes * models
    widened = is_sharded(setup.parallelism.kind) and width.weight > loaded and setup.adapter is None
    return stored_bytes + copies + (width.weight * state.trainable if widened else 0.0)


def _going_on(setup: TrainingSetup, width: Widths) -> float:
    """The trainer reads an optimizer's states to the host where one process trains, else each to its GPU."""
    return model_state(setup).trainable * width.state if setup.parallelism.kind == "single" else 0.0


def _saving(setup: TrainingSetup, width: Widths, cluster: Cluster) -> float:
    """One process brings weights to the host, a file at a time, and an optimizer's states tensor by tensor.

    Of a model in shards each process writes its own, a small file at a time, and the finished one is gathered.
    """
    trained = model_state(setup).trainable
    if not is_sharded(setup.parallelism.kind):
        return min(trained * width.weight, _FILE_BYTES)
    share = trained * (width.weight + width.state) / setup.shards
    largest = (
        setup.arch.vocab * setup.arch.hidden * width.weight / setup.shards if setup.adapter is None else 0.0
    )
    file = min(share, max(_SHARD_BYTES, largest))
    return max(_SHARD_COPIES * file * cluster.gpus_per_node, trained * width.weight)
