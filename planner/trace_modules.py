"""Modules that keep what CUDA's kernels keep, for tensors without a device: fused attention, quantised products."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

#: Heads that a task adds, by the first part of their names; they are not quantised, and trained whole.
NEW_HEADS = frozenset({"score", "classifier", "pre_classifier", "qa_outputs"})
_KEPT_WHOLE = ("lm_head", "score", "classifier", "gate")


def _function(name: str, forward: Any, backward: Any) -> Any:
    """An autograd function from its two halves."""
    import torch

    halves = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), halves)


@cache
def fused_attention() -> Any:
    """Attention that keeps queries, keys, values, output and one statistic a row, as the fused kernels do."""
    import torch

    def forward(context: Any, query: Any, key: Any, value: Any) -> Any:
        rows, heads, length, _ = query.shape
        out = query.new_empty((rows, length, heads, value.shape[-1])).transpose(1, 2)
        statistic = query.new_empty((rows, heads, length), dtype=torch.float32)
        context.save_for_backward(query, key, value, out, statistic)
        return out

    def backward(context: Any, gradient: Any) -> Any:
        query, key, value, _, _ = context.saved_tensors
        gradient = gradient.contiguous()
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)

    return _function("FusedAttention", forward, backward)


def register_fused_attention() -> str:
    """`fused_attention` as an attention of transformers'; its name there."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    fused = fused_attention()

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> Any:
        query, key = query.to(value.dtype), key.to(value.dtype)  # rotated in fp32 under autocast
        return fused.apply(query, key, value).transpose(1, 2).contiguous(), None

    ALL_ATTENTION_FUNCTIONS.register("tuneplan_fused", attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register("tuneplan_fused", lambda *_, **__: None)
    return "tuneplan_fused"


def quantise(model: Any, packed: Callable[[Any], Any]) -> None:
    """Linear modules become quantised ones, but those of a new head."""
    import torch

    for path, module in list(model.named_modules()):
        if path.split(".")[0] in NEW_HEADS:
            continue
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear and name not in (*_KEPT_WHOLE, *NEW_HEADS):
                setattr(module, name, packed(child))


@cache
def _quantised_linear(eight: bool) -> Any:
    """A linear module whose product dequantises its weight, forward and backward; in 8 bits it multiplies integers and
    keeps its input.
    """
    import torch

    def forward(context: Any, values: Any, shape: Any) -> Any:
        context.shape = shape
        if not eight:
            return torch.nn.functional.linear(values, values.new_empty(shape))
        context.save_for_backward(values)
        integers = torch.empty(values.shape, dtype=torch.int8, device="meta")
        sums = integers.new_empty((*values.shape[:-1], shape[0]), dtype=torch.int32)
        return sums.to(values.dtype)

    def backward(context: Any, gradient: Any) -> Any:
        return gradient @ gradient.new_empty(context.shape), None

    product = _function("DequantisedProduct", forward, backward)

    def call(self: Any, values: Any) -> Any:
        out = product.apply(values, (self.out_features, self.in_features))
        return out if self.bias is None else out + self.bias

    return type("QuantisedLinear", (torch.nn.Linear,), {"forward": call})


def _without_weight(plain: Any, *, eight: bool) -> Any:
    import torch

    kind = _quantised_linear(eight)
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    made.in_features, made.out_features, made.bias = plain.in_features, plain.out_features, plain.bias
    return made


def rounded(plain: Any) -> Any:
    """One byte a weight and a scale for each output."""
    import torch

    made = _without_weight(plain, eight=True)
    shape = (plain.out_features, plain.in_features)
    made.weight = torch.nn.Parameter(torch.empty(shape, dtype=torch.int8, device="meta"), requires_grad=False)
    made.register_buffer("scales", torch.empty(plain.out_features, dtype=torch.float32, device="meta"))
    return made


def packed(plain: Any) -> Any:
    """Half a byte a weight, and a scale for each 64."""
    import torch

    packed = _without_weight(plain, eight=False)
    count = plain.in_features * plain.out_features
    halves = torch.empty((count // 2, 1), dtype=torch.uint8, device="meta")
    packed.weight = torch.nn.Parameter(halves, requires_grad=False)
    for name, size, width in (("scales", 64, torch.uint8), ("scales_of_scales", 64 * 256, torch.float32)):
        packed.register_buffer(name, torch.empty(-(-count // size), dtype=width, device="meta"))
    return packed
