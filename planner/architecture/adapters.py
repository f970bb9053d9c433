"""Trainable parameters of adapters, as PEFT counts them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from planner.architecture.counts import norm_count, norm_parameters
from planner.architecture.linears import LAYOUTS, LinearShape, linear_shapes
from planner.architecture.model import ModelArchitecture

_ALL_LINEAR = ("all-linear",)


class Adapter(NamedTuple):
    """A parameter-efficient method.

    Attributes:
        kind: PEFT's name of the method: lora, dora, rslora ...
        rank: Adapter rank r; of oft and boft the size of a block.
        targets: Module names as in PEFT, or ("all-linear",) or ("attention",).
        fp32: Whether PEFT keeps the adapter's weights in fp32 (its default under mixed precision).
        dropout: Whether the adapter's input is dropped out, which keeps a copy and a mask for each module.
        experts: Each expert of a mixture has its own, beside the targets (peft's `target_parameters`; Megatron's
            grouped modules under all-linear).
        older: DoRA before PEFT 0.14 (December 2024).
        virtual_tokens: Learned embeddings before each row, for prompt_tuning and its kin.
        whole: "embedding" and "head" where a copy of them is trained whole beside the adapter (modules_to_save).
    """

    kind: str
    rank: int
    targets: tuple[str, ...]
    fp32: bool = True
    dropout: bool = False
    virtual_tokens: int = 20
    whole: tuple[str, ...] = ()
    older: bool = False
    experts: bool = False

    @property
    def multiplies_again(self) -> bool:
        """Whether DoRA multiplies its input by the base's weights once more: where it is dropped out (PEFT's
        `DoraLinearVariant`), and before PEFT 0.14 always (`DoraLinearLayer.forward`), the base's own output is not what
        it scales.
        """
        return "dora" in self.kind and (self.dropout or self.older)


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

    Short names (q, k, v, o, gate, up, down) mean the family's own modules. Whatever the targets: prompt tuning
    learns a vector of the hidden width for each virtual token, p-tuning three square maps more that make them,
    prefix tuning a key and a value for each token and block, LN tuning every norm of the hidden width.

    >>> from planner.architecture import load_architecture
    >>> adapter_parameters(load_architecture("llama-7b"), Adapter("lora", 8, ("q_proj", "v_proj")))
    4194304
    """
    if adapter.kind in WITHOUT_TARGETS:
        return WITHOUT_TARGETS[adapter.kind](arch, adapter.virtual_tokens)
    return sum(
        shape.count * _of_module(adapter, shape, LAYOUTS[arch.layout].down)
        for shape in adapter_targets(arch, adapter)
    )


def expert_adapter_parameters(arch: ModelArchitecture, adapter: Adapter) -> int:
    """Trainable parameters on the experts, which are far more than on all else.

    >>> from planner.architecture import load_architecture
    >>> on_experts = Adapter("lora", 32, (), experts=True)
    >>> round(expert_adapter_parameters(load_architecture("Qwen/Qwen3-30B-A3B"), on_experts) / 1e9, 2)
    1.26
    """
    if not adapter.experts or adapter.kind in WITHOUT_TARGETS:
        return 0
    shapes = (shape for shape in linear_shapes(arch) if shape.role == "expert")
    return sum(shape.count * _of_module(adapter, shape, LAYOUTS[arch.layout].down) for shape in shapes)


def whole_parameters(arch: ModelArchitecture, adapter: Adapter) -> int:
    """Parameters of the modules that are trained whole beside an adapter; peft copies tied ones apart."""
    return len(adapter.whole) * arch.vocab * arch.hidden


def _of_module(adapter: Adapter, shape: LinearShape, down: str) -> int:
    """Parameters on one module: r (inputs + outputs) for LoRA, and a magnitude of each output more for DoRA.

    LoHa multiplies two such products; AdaLoRA has a scale of each rank more. VeRA learns only a scale of each rank
    and each output. IA3 scales the outputs, and the inputs of the feed-forward block's second map. OFT turns the
    inputs in blocks of b, by b (b - 1) / 2 angles each; BOFT has a matrix for each block and a scale of each output.
    """
    plain = adapter.rank * (shape.inputs + shape.outputs)
    if adapter.kind == "loha":
        return 2 * plain
    if adapter.kind == "adalora":
        return plain + adapter.rank
    if adapter.kind == "lokr":
        return _kronecker(adapter.rank, shape)
    if adapter.kind in ("oft", "boft"):
        whole = adapter.kind == "boft"
        return (
            shape.inputs * adapter.rank + shape.outputs if whole else shape.inputs * (adapter.rank - 1) // 2
        )
    if adapter.kind == "vera":
        return adapter.rank + shape.outputs
    if adapter.kind == "ia3":
        return shape.inputs if shape.role != "attention" and shape.name == down else shape.outputs
    return plain + shape.outputs if "dora" in adapter.kind else plain


def _kronecker(rank: int, shape: LinearShape) -> int:
    """Two factors of a weight's Kronecker product; the larger is itself a product of that rank, where that is less."""
    (few_out, many_out), (few_in, many_in) = _factors(shape.outputs), _factors(shape.inputs)
    larger = rank * (many_out + many_in) if rank < max(many_out, many_in) / 2 else many_out * many_in
    return few_out * few_in + larger


@lru_cache(maxsize=512)
def _factors(number: int) -> tuple[int, int]:
    """The two factors nearest to each other, the smaller first.

    >>> _factors(128), _factors(4096), _factors(127)
    ((8, 16), (64, 64), (1, 127))
    """
    few = next(n for n in range(math.isqrt(number), 0, -1) if number % n == 0)
    return few, number // few


#: Kinds that are put on no modules -> their parameters, of a number of learned tokens.
WITHOUT_TARGETS: dict[str, Callable[[ModelArchitecture, int], int]] = {
    "prompt_tuning": lambda arch, tokens: tokens * arch.hidden,
    "p_tuning": lambda arch, tokens: tokens * arch.hidden + 3 * (arch.hidden + 1) * arch.hidden,
    "prefix_tuning": lambda arch, tokens: 2 * tokens * arch.layers * arch.kv_size,
    "ln_tuning": lambda arch, _: norm_count(arch) * norm_parameters(arch),
}
