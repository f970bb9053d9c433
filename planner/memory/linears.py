"""What quantised and adapted linear modules keep for the backward pass, and what it makes of them."""

from __future__ import annotations

from planner.architecture import Adapter, adapter_targets
from planner.memory.precision import Widths, is_mixed, widths
from planner.setup import TrainingSetup
from planner.stacks import stack_of


def quantised_inputs(setup: TrainingSetup, width: Widths) -> tuple[float, float]:
    """Bytes that quantised products keep of a value of their inputs, once for those that share it and each for itself.

    An 8-bit product keeps its input in every version of bitsandbytes, and in older ones its transposed integers; a
    4-bit one kept it, cast by the module to the type it computes in.
    """
    older = setup.keeps_quantised_inputs
    if setup.quantization == "8bit":
        return width.activation, 1.0 if older else 0.0
    if not older:
        return 0.0, 0.0
    return (0.0, width.compute) if width.activation > width.compute else (width.activation, 0.0)


def adapter_input(setup: TrainingSetup, width: Widths) -> float:
    """An fp32 adapter on a smaller base casts its input; under autocast, as we launch it, back again to compute."""
    if setup.adapter is None or not setup.adapter.fp32 or width.activation == 4.0:
        return 0.0
    if not is_mixed(setup) or setup.adapter.kind == "ia3":
        return 4.0  # ia3 multiplies in fp32 whatever the context
    gathered = setup.parallelism.kind == "fsdp"  # in the type that is computed in
    return 0.0 if gathered else width.compute


def adapter_products(setup: TrainingSetup) -> tuple[float, float]:
    """Bytes of the weights' changes that LoHa and LoKr multiply out: those of one block, kept until the backward pass,
    and what that pass makes of the largest one (its gradient, the same scaled; for LoHa two products of factors more).

    Where DoRA multiplies by the base's weights again, the product keeps the copies that it casts or unpacks of them.
    """
    adapter = setup.adapter
    if adapter is not None and adapter.multiplies_again:
        return _copies_of_weights(setup, adapter), 0.0
    if adapter is None or adapter.kind not in ("loha", "lokr"):
        return 0.0, 0.0
    width, arch = 4.0 if adapter.fp32 else 2.0, setup.arch
    targets = adapter_targets(arch, adapter)
    # autocast multiplies LoHa's factors in the lower type; its backward pass is outside of it
    kept = widths(setup).compute if adapter.kind == "loha" and is_mixed(setup) else width
    total = sum(kept * s.count * s.inputs * s.outputs for s in targets)
    largest = max((width * s.inputs * s.outputs for s in targets), default=0.0)
    return total / (arch.layers + arch.decoder_layers), largest * (4 if adapter.kind == "loha" else 2)


def _copies_of_weights(setup: TrainingSetup, adapter: Adapter) -> float:
    """In one block; an adapter in fp32 takes them in fp32, and autocast in the type that it computes in."""
    if not adapter.fp32:
        width = 2.0 if setup.quantization != "none" else 0.0
    else:
        width = widths(setup).compute if stack_of(setup.framework).autocast else 4.0
    blocks = setup.arch.layers + setup.arch.decoder_layers
    targets = adapter_targets(setup.arch, adapter)
    return sum(width * s.count * s.inputs * s.outputs for s in targets) / blocks


def dequantised_bytes(setup: TrainingSetup, width: Widths) -> float:
    """Bytes of the largest quantised weight as it enters the product that takes a gradient back through it.

    The MLP's last product is the first: half of what the others hold is not there yet.
    """
    if setup.quantization not in ("4bit", "8bit"):
        return 0.0
    linears = adapter_targets(setup.arch, Adapter("lora", 1, ("all-linear",)))
    return max(width.compute * shape.inputs * shape.outputs for shape in linears)
