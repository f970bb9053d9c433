"""What adapters add beside their products, counted in PEFT's `lora.Linear`: kernels to launch, bytes to move."""

from __future__ import annotations

from planner.architecture import LinearShape, adapter_targets
from planner.memory.precision import is_sharded, widths
from planner.setup import TrainingSetup

_WITHOUT_MODULES = frozenset({"prompt_tuning", "p_tuning", "prefix_tuning", "ln_tuning"})
_KERNELS = 8  # forward, under autocast: casts of input and both weights, two products, scale, sum, cast back
# Bytes for each value of a module's input and of its output, forward and backward, of an adapter in fp32 under
# autocast: its input is cast there and back and read; its output is written, scaled and added to the base's.
_FORWARD, _BACKWARD = (14.0, 12.0), (22.0, 8.0)
_DROPOUT = 5.0  # of an input, forward and backward: read, written, with its mask
_REACHED = 0.8  # of the memory's rate


def adapted_modules(setup: TrainingSetup) -> tuple[LinearShape, ...]:
    """Modules that run an adapter beside their own product."""
    if setup.adapter is None or setup.adapter.kind in _WITHOUT_MODULES:
        return ()
    return adapter_targets(setup.arch, setup.adapter)


def adapter_kernels(setup: TrainingSetup) -> int:
    """Launches of a forward pass."""
    return _KERNELS * sum(shape.count for shape in adapted_modules(setup))


def adapter_bytes(setup: TrainingSetup) -> float:
    """Moved for one token, recomputation included; 0 where adapters are kept or gathered in the base's type.

    Those move half as much or less, and published runs with them (torchtune, FSDP) do not show it.
    """
    adapter = setup.adapter
    if (
        adapter is None
        or not adapter.fp32
        or widths(setup).activation == 4.0
        or is_sharded(setup.parallelism.kind)
    ):
        return 0.0
    again = 2.0 if setup.gradient_checkpointing else 1.0
    dropout = (again + 1) * _DROPOUT if adapter.dropout else 0.0
    of_input = again * _FORWARD[0] + _BACKWARD[0] + dropout
    of_output = again * _FORWARD[1] + _BACKWARD[1]
    moved = sum(
        shape.count * (shape.inputs * of_input + shape.outputs * of_output)
        for shape in adapted_modules(setup)
    )
    return moved / _REACHED
