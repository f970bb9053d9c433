"""Trainable parameters of adapters, as PEFT counts them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from planner.architecture.linears import LAYOUTS, LinearShape, linear_shapes
from planner.architecture.model import ModelArchitecture

_ALL_LINEAR = ("all-linear",)


class Adapter(NamedTuple):
    """A parameter-efficient method.

    Attributes:
        kind: PEFT's name of the method: lora, dora, rslora ...
        rank: Adapter rank r.
        targets: Module names as in PEFT, or ("all-linear",) or ("attention",).
        fp32: Whether PEFT keeps the adapter's weights in fp32 (its default under mixed precision).
        dropout: Whether the adapter's input is dropped out, which keeps a copy and a mask for each module.
        virtual_tokens: Learned embeddings before each row, for prompt_tuning.
    """

    kind: str
    rank: int
    targets: tuple[str, ...]
    fp32: bool = True
    dropout: bool = False
    virtual_tokens: int = 20


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
    """Trainable parameters, as PEFT has them: the sum of `_of_module` over the targets.

    Short names (q, k, v, o, gate, up, down) mean the family's own modules. Prompt tuning learns a vector of the
    hidden width for each virtual token, whatever the targets.

    >>> from planner.architecture import load_architecture
    >>> adapter_parameters(load_architecture("llama-7b"), Adapter("lora", 8, ("q_proj", "v_proj")))
    4194304
    """
    if adapter.kind == "prompt_tuning":
        return adapter.virtual_tokens * arch.hidden
    return sum(
        shape.count * _of_module(adapter, shape, LAYOUTS[arch.layout].down)
        for shape in adapter_targets(arch, adapter)
    )


def _of_module(adapter: Adapter, shape: LinearShape, down: str) -> int:
    """Parameters on one module: r (inputs + outputs) for LoRA, and a magnitude of each output more for DoRA.

    LoHa multiplies two such products. VeRA learns only a scale of each rank and each output. IA3 scales the
    outputs, and the inputs of the feed-forward block's second map.
    """
    plain = adapter.rank * (shape.inputs + shape.outputs)
    if adapter.kind == "loha":
        return 2 * plain
    if adapter.kind == "vera":
        return adapter.rank + shape.outputs
    if adapter.kind == "ia3":
        return shape.inputs if shape.role != "attention" and shape.name == down else shape.outputs
    return plain + shape.outputs if "dora" in adapter.kind else plain
