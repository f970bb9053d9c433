"""What a row keeps on the host, in what memory, and how many threads work on it there."""

from __future__ import annotations

import re

from planner.backtest.cells import Row, cell, dated_before, denied

# Trainers that start their ranks by torchrun, which leaves each one thread (`OMP_NUM_THREADS=1`; torch's
# distributed/run.py, 2.9), or by `accelerate launch`, which does too (accelerate 1.14's utils/launch.py, where
# DeepSpeed's ranks on one machine go through torchrun), or as workers of Ray's, with as many threads as the CPUs that
# each asked for, one where none is said.
_ONE_THREAD = (
    "accelerate",
    "trl",
    "axolotl",
    "factory",
    "swift",
    "ray",
    "torchtune",
    "torchtitan",
    "megatron",
)


def offloads_activations(row: Row) -> bool:
    """Whether recomputed blocks' inputs lie on the host, whatever else does: as stated, in unsloth's notebooks since
    April 2024, and in prime-rl unasked.
    """
    stated, recomputed = cell(row, "offload"), cell(row, "grad_checkpointing")
    if denied(stated):
        return False
    left_open = not (stated or denied(recomputed) or dated_before(row, "2024-04"))
    unasked = "unsloth" in recomputed or ("unsloth" in cell(row, "framework") and left_open)
    return unasked or _offloads_unasked(row) or re.search(r"activation|checkpoint", stated) is not None


#: Of prime-rl's pull request 2868, in which both offloads became the default.
_OFFLOADS_SINCE = "2026-06"


def _offloads_unasked(row: Row) -> bool:
    """prime-rl keeps optimizer states and blocks' inputs on the host (`optim_cpu_offload`, `ac_offloading`)."""
    return "prime-rl" in cell(row, "framework") and not dated_before(row, _OFFLOADS_SINCE)


def tiles_mlp(row: Row) -> bool:
    """Arctic Long Sequence Training tiles MLPs (`tiled_mlp_compute`) where it puts checkpoints on the host, in nearly
    all recipes of ArcticTraining's projects/sequence-parallelism (May 2025).
    """
    return "alst" in cell(row, "framework") and offloads_activations(row)


def offload_of(row: Row) -> str:
    """none, optimizer or parameters."""
    stated = cell(row, "offload")
    if denied(stated):
        return "none"
    if _offloads_unasked(row) and not stated:
        return "optimizer"
    texts = (stated, cell(row, "parallelism"))
    stated, spread = (re.sub(r"\b(?:no|without)[\w\s-]*offload", "", text) for text in texts)
    text = f"{stated} {spread}" if re.search("offload|cpu|nvme|infinity", spread) else stated
    if stated.startswith("activation") and not re.search("param|opt|weight|zero|infinity", text):
        return "none"
    lesser = re.search(r"zero[- ]?[12]\b.*offload|zero[- ]?offload", text)
    if (
        "adam" in text
        or ("opt" in text and "param" not in text)
        or lesser
        or "cpuadam" in cell(row, "optimizer")
    ):
        return "optimizer"
    everything = ("cpu", "offload", "nvme", "infinity", "disk", "param")
    stated_plainly = stated in ("true", "yes", "1", "on")
    return "parameters" if stated_plainly or any(word in text for word in everything) else "none"


def pins_host_memory(row: Row) -> bool:
    """DeepSpeed pins nothing unless it is told to. Everybody's file of settings does, transformers' examples first;
    accelerate's own settings (`DeepSpeedPlugin` without a file) have no word for it.
    """
    return "accelerate" not in cell(row, "framework")


def one_thread_a_rank(row: Row, kind: str) -> bool:
    """Whether each rank works on the host with one thread.

    DeepSpeed's own launcher leaves the number of threads alone, or divides the cores by ranks where it binds them
    (`--bind_cores_to_rank`; deepspeed/launcher/launch.py, 0.9 to 0.18), and with it run scripts over DeepSpeed of which
    no other launcher is known, transformers' Trainer first; Lightning divides the cores (lightning/fabric/utilities/
    distributed.py, `_set_num_threads_if_needed`, since 2.1).

    Args:
        row: The run.
        kind: How it shards, as in `Parallelism`.
    """
    text = cell(row, "framework")
    if "lightning" in text:
        return dated_before(row, "2023-10")
    return not kind.startswith("zero") or any(name in text for name in _ONE_THREAD)
