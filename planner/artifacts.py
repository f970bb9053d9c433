"""Bytes that leave the GPU: one checkpoint, the finished result, and the disk that they need."""

from __future__ import annotations

from planner.memory.precision import is_sharded
from planner.setup import TrainingSetup

#: Optimizer state per trained parameter: two moments for Adam and its kin, one for momentum methods.
_STATE_VALUES = {"sgd": 1, "lion": 1, "adafactor": 0.01}
#: torch with CUDA, transformers and the rest as installed, and their archives while they are.
_SOFTWARE_BYTES = 15 * 2.0**30
#: Ids, labels and mask as the data library keeps them, 8 bytes each.
_BYTES_PER_TOKEN = 24.0
_SPARE_BYTES = 2.0**30
_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")


def checkpoint_bytes(setup: TrainingSetup, trainable: int) -> float:
    """Trained weights with their optimizer state, as the trainer saves them.

    A rank-16 adapter of a 135M model was measured at 59 MB, its optimizer two thirds of it, which this meets within
    10 %; frozen weights are never saved.
    """
    width = weight_width_bytes(setup)
    state_width = 1 if setup.optimizer in _EIGHT_BIT else width
    return trainable * (width + _STATE_VALUES.get(setup.optimizer, 2) * state_width)


def machine_share(setup: TrainingSetup, nodes: int) -> float:
    """Share of a checkpoint that one of several machines writes: each process its own shard, or one process all."""
    return 1.0 / nodes if is_sharded(setup.parallelism.kind) else 1.0


def result_bytes(setup: TrainingSetup, trainable: int) -> float:
    """The adapter, or the whole model, without optimizer state."""
    return float(trainable * weight_width_bytes(setup))


def disk_bytes(
    *,
    local: bool,
    weight_bytes: float,
    checkpoint: float,
    result: float,
    data_tokens: float,
    keep: int,
    share: float = 1.0,
) -> float:
    """Disk of one machine: weights, tokenised data, checkpoints, the result, and on a rented one the software.

    A machine holds the checkpoint that it goes on from, whole, until its first step is done; then its share of three,
    one that is written, one that is sent and one that waits, which is no more than one and its share of two. One's own
    disk also holds those that stay, the best one among them.

    Args:
        local: On one's own machine, whose disk is the store as well.
        weight_bytes: Base model as stored.
        checkpoint: Bytes of one.
        result: Bytes of it.
        data_tokens: Tokens of the data set.
        keep: Checkpoints that stay.
        share: What the machine writes of a checkpoint, as in `machine_share`.
    """
    held = 1 + 2 * share + (keep + 1 if local else 0)
    software = 0.0 if local else _SOFTWARE_BYTES
    return (
        weight_bytes
        + held * checkpoint
        + 2 * result
        + _BYTES_PER_TOKEN * data_tokens
        + software
        + _SPARE_BYTES
    )


def weight_width_bytes(setup: TrainingSetup) -> int:
    """Bytes of one trained value: adapters and sharded full training are kept in fp32, one-GPU bf16 is not."""
    if setup.precision == "fp32":
        return 4
    if setup.adapter is not None:
        return 4 if setup.adapter.fp32 else 2
    return 4 if setup.parallelism.kind == "fsdp" else 2
