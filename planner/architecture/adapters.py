"""Trainable parameters of adapters, as PEFT counts them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from planner.architecture.linears import LAYOUTS, LinearShape, linear_shapes
from planner.architecture.model import ModelArchitecture

_ALL_LINEAR = ("all-linear",)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A parameter-efficient method.

    Attributes:
        kind: PEFT's name of the method: lora, dora, rslora ...
        rank: Adapter rank r.
        targets: Module names as in PEFT, or ("all-linear",) or ("attention",).
        fp32: Whether PEFT keeps the adapter's weights in fp32 (its default under mixed precision).
        dropout: Whether the adapter's input is dropped out, which keeps a copy and a mask for each module.
    """

    kind: str
    rank: int
    targets: tuple[str, ...]
    fp32: bool = True
    dropout: bool = False


def adapter_targets(arch: ModelArchitecture, adapter: Adapter) -> tuple[LinearShape, ...]:
    """The linear modules that the adapter is put on; routers and fused experts are never."""
    return _targets(arch, adapter.targets)


@lru_cache(maxsize=512)
def _targets(arch: ModelArchitecture, targets: tuple[str, ...]) -> tuple[LinearShape, ...]:
    usable = [shape for shape in linear_shapes(arch) if shape.role in ("attention", "mlp", "shared")]
    if targets == _ALL_LINEAR:
        return tuple(usable)
    layout = LAYOUTS[arch.layout]
    wanted = {getattr(layout, name) if name in layout._fields else name for name in targets}
    roles = {"attention"} if "attention" in targets else set()
    return tuple(shape for shape in usable if shape.role in roles or shape.name in wanted)


@lru_cache(maxsize=512)
def adapter_parameters(arch: ModelArchitecture, adapter: Adapter) -> int:
    """Trainable parameters: r (inputs + outputs) a module, and a magnitude vector more for DoRA.

    Short names (q, k, v, o, gate, up, down) mean the family's own modules.

    >>> from planner.architecture import load_architecture
    >>> adapter_parameters(load_architecture("llama-7b"), Adapter("lora", 8, ("q_proj", "v_proj")))
    4194304
    """
    total = 0
    for shape in adapter_targets(arch, adapter):
        one = adapter.rank * (shape.inputs + shape.outputs)
        if "dora" in adapter.kind:
            one += shape.outputs
        total += shape.count * one
    return total
