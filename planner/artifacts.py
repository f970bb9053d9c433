"""Bytes that leave the GPU: one checkpoint, the finished result, and the disk that they need."""

from __future__ import annotations

from planner.memory.precision import is_sharded, widths
from planner.setup import TrainingSetup

#: torch with CUDA, transformers and the rest, and what uv keeps of them unpacked: 9.8 GiB with torch 2.13 for CUDA 13
#: (measured); builds for older CUDA hold more.
_SOFTWARE_BYTES = 15 * 2.0**30
_SPARE_BYTES = 2.0**30


def checkpoint_bytes(setup: TrainingSetup, trainable: int) -> float:
    """Trained weights with their optimizer state, as the trainer saves them.

    A rank-16 adapter of a 135M model was measured at 59 MB, its optimizer two thirds of it, which this meets within
    10 %; frozen weights are never saved.
    """
    width = widths(setup)
    return trainable * (width.weight + width.state)


def machine_share(setup: TrainingSetup, nodes: int) -> float:
    """Share of a checkpoint that one of several machines writes: each process its own shard, or one process all."""
    return 1.0 / nodes if is_sharded(setup.parallelism.kind) else 1.0


def result_bytes(setup: TrainingSetup, trainable: int) -> float:
    """The adapter, or the whole model, without optimizer state."""
    return trainable * widths(setup).weight


def disk_bytes(
    *,
    local: bool,
    weight_bytes: float,
    checkpoint: float,
    result: float,
    data_bytes: float,
    keep: int,
    share: float = 1.0,
    chooses_best: bool = False,
) -> float:
    """Disk of one machine: weights, checkpoints, the result, and on a rented one software and data.

    A machine holds the checkpoint that it goes on from, whole, until its first step is done; then its share of three:
    one that is written, one that is sent and one that waits; where the best evaluation is handed over, the best so far
    may wait beside the newest, and is fetched whole at the end (`jobs.uploader`, `jobs.choice`). One's own disk also
    holds those that stay, the best one beside them, a new one before an old one goes, and the result once more. Tokens
    lie in memory (`Dataset.from_list` has no file).

    Args:
        local: On one's own machine, whose disk is the store as well.
        weight_bytes: Base model as stored.
        checkpoint: Bytes of one.
        result: Bytes of it.
        data_bytes: Of its files, which a rented machine copies.
        keep: Checkpoints that stay.
        share: What the machine writes of a checkpoint, as in `machine_share`.
        chooses_best: The best evaluation is handed over, not the last step.
    """
    held = max(1.0, (3 + chooses_best) * share) * checkpoint + result
    if local:
        return weight_bytes + held + (keep + 1 + chooses_best) * checkpoint + result + _SPARE_BYTES
    return weight_bytes + held + data_bytes + _SOFTWARE_BYTES + _SPARE_BYTES
