"""What adapters add beside their products, counted in PEFT's `lora.Linear`: kernels to launch, bytes to move."""

from __future__ import annotations

from planner.architecture import WITHOUT_TARGETS, LinearShape, adapter_targets
from planner.memory.precision import is_sharded, widths
from planner.recomputation import recomputed
from planner.setup import TrainingSetup

_KERNELS = 8  # forward, under autocast: casts of input and both weights, two products, scale, sum, cast back
# Bytes for each value of a module's input and of its output, forward and backward, of an adapter in fp32 under
# autocast: its input is cast there and back and read; its output is written, scaled and added to the base's.
_FORWARD, _BACKWARD = (14.0, 12.0), (22.0, 8.0)
_DROPOUT = 5.0  # of an input, forward and backward: read, written, with its mask
_REACHED = 0.8  # of the memory's rate
# DoRA in PEFT's `DoraLinearLayer`, beside LoRA: kernels for the magnitudes over the norms; for each value of a module's
# output the base's is scaled, added to the scaled adapter's, and both gradients back; for each element of a weight its
# change is multiplied out and the sum's norm taken in fp32, from an identity as wide as the input.
_DORA_KERNELS, _DORA_FORWARD, _DORA_BACKWARD = 14, 20.0, 32.0
_DORA_WEIGHT, _DORA_IDENTITY = 26.0, 12.0
_DORA_CAST = 6.0  # of a weight that it multiplies by again, from fp32 to 16 bits
# Bytes that one element of LoHa's change of a weight costs in fp32: two products, their product, its scaling and cast;
# backward twice the sum of a factor's recomputation and the gradients of both its halves.
_PRODUCT, _PRODUCT_BACKWARD = 34.0, 60.0


def adapted_modules(setup: TrainingSetup) -> tuple[LinearShape, ...]:
    """Modules that run an adapter beside their own product."""
    if setup.adapter is None or setup.adapter.kind in WITHOUT_TARGETS:
        return ()
    return adapter_targets(setup.arch, setup.adapter)


def products_again(setup: TrainingSetup) -> float:
    """Parameters of base weights by which DoRA multiplies a second time, forward and for its input's gradient."""
    if setup.adapter is None or not setup.adapter.multiplies_again:
        return 0.0
    return float(sum(shape.count * shape.inputs * shape.outputs for shape in adapted_modules(setup)))


def adapter_kernels(setup: TrainingSetup) -> int:
    """Launches of a forward pass."""
    each = _KERNELS + (_DORA_KERNELS if _is_dora(setup) else 0)
    return each * sum(shape.count for shape in adapted_modules(setup))


def _is_dora(setup: TrainingSetup) -> bool:
    return setup.adapter is not None and "dora" in setup.adapter.kind


def weight_bytes(setup: TrainingSetup) -> float:
    """Moved for each micro-batch, whatever its tokens: of LoHa, LoKr and DoRA, which multiply the weights' changes out.

    DoRA's norms are taken without a gradient.
    """
    passes = 1.0 + recomputed(setup).products
    if _is_dora(setup):
        weight = _DORA_WEIGHT + (_DORA_CAST if setup.adapter and setup.adapter.multiplies_again else 0.0)
        each = (
            s.count * s.inputs * (s.outputs * weight + s.inputs * _DORA_IDENTITY)
            for s in adapted_modules(setup)
        )
        return passes * sum(each)
    if setup.adapter is None or setup.adapter.kind not in ("loha", "lokr"):
        return 0.0
    elements = sum(s.count * s.inputs * s.outputs for s in adapted_modules(setup))
    return elements * (passes * _PRODUCT + _PRODUCT_BACKWARD)


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
    again = 1.0 + recomputed(setup).elementwise
    dropout = (again + 1) * _DROPOUT if adapter.dropout else 0.0
    of_input = again * _FORWARD[0] + _BACKWARD[0] + dropout
    of_output = again * _FORWARD[1] + _BACKWARD[1]
    if _is_dora(setup):
        of_output += again * _DORA_FORWARD + _DORA_BACKWARD
    moved = sum(
        shape.count * (shape.inputs * of_input + shape.outputs * of_output)
        for shape in adapted_modules(setup)
    )
    return moved / _REACHED
