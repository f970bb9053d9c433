"""What functions of torch do otherwise on CUDA than on the meta device that `planner.trace` runs on.

A dropout keeps a mask of one byte a value there, and its noise here. Autocast there is none here: which operations
compute in the lower type and which in fp32 is from the lists in torch's `aten/src/ATen/autocast_mode.h` (2.13), as far
as models of transformers use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

_LOWER = (
    "addmm", "addmv", "addbmm", "baddbmm", "bmm", "mm", "mv", "matmul", "einsum", "chain_matmul", "conv1d", "conv2d",
    "prelu",
)  # fmt: skip
_FULL = ("exp", "expm1", "log", "log1p", "log2", "log10", "pow", "reciprocal", "rsqrt", "cosh", "sinh", "tan")
_FULL_LOSSES = (
    "layer_norm", "group_norm", "softplus", "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss",
    "huber_loss", "binary_cross_entropy_with_logits", "kl_div",
)  # fmt: skip
#: These take their type as an argument, which autocast sets where nobody did.
_TYPED = ("softmax", "log_softmax", "sum", "prod", "cumsum", "cumprod")


class AsOnCuda:
    """Dropouts with masks, and where there is a lower type autocast: products in it, fp32 for what needs it, and one
    copy of each weight.

    Attributes:
        kind: The lower type, None without autocast.
        forward: Whether copies of weights are held until the forward pass is over, as the context of a training step
            does; what is computed again in the backward pass keeps those that its own products keep.
    """

    def __init__(self, kind: Any) -> None:
        """Takes the lower type."""
        self.kind = kind
        self.forward = False
        self._held: dict[int, Any] = {}
        self._seen: WeakValueDictionary[int, Any] = WeakValueDictionary()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around a forward pass; copies that no product keeps are gone with it."""
        self.forward = True
        with self.mode():
            yield
        self.forward = False
        self._held.clear()

    def low(self, value: Any) -> Any:
        """A tensor as it enters a product."""
        import torch

        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.dtype == self.kind:
            return value
        if not (value.is_leaf and value.requires_grad and value.dtype == torch.float32):
            return value.to(self.kind)
        copy = self._seen.get(id(value))
        if copy is None:
            copy = self._seen[id(value)] = value.to(self.kind)
        if self.forward:
            self._held[id(value)] = copy
        return copy

    def mode(self) -> Any:
        """A context in which functions of torch do so."""
        import torch
        from torch.nn import functional
        from torch.overrides import TorchFunctionMode

        lower, full, typed = _functions()

        def wide(value: Any) -> Any:
            low = isinstance(value, torch.Tensor) and value.dtype in (torch.bfloat16, torch.float16)
            return value.float() if low else value

        def call(_: Any, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if function is functional.dropout:
                return _dropped(function, *args, **kwargs)
            if self.kind is None:
                return function(*args, **kwargs)
            if function in lower:
                args = tuple(_mapped(self.low, value) for value in args)
                kwargs = {name: _mapped(self.low, value) for name, value in kwargs.items()}
            elif function in full:
                args = tuple(wide(value) for value in args)
                kwargs = {name: wide(value) for name, value in kwargs.items()}
            elif function in typed and kwargs.get("dtype") is None and args[0].is_floating_point():
                kwargs = {**kwargs, "dtype": torch.float32}
                kwargs.pop("_stacklevel", None)
            return function(*args, **kwargs)

        return type("AsOnCudaMode", (TorchFunctionMode,), {"__torch_function__": call})()


def _dropped(function: Any, values: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    import torch

    if not training or p == 0.0:
        return function(values, p, training, inplace)
    return torch.native_dropout(values, p, True)[0]


def _mapped(change: Any, value: Any) -> Any:
    return type(value)(change(one) for one in value) if isinstance(value, list | tuple) else change(value)


def _functions() -> tuple[frozenset[Any], frozenset[Any], frozenset[Any]]:
    """Functions of torch, of its tensors and of its modules by those names."""
    import torch
    from torch.nn import functional

    def named(names: tuple[str, ...]) -> frozenset[Any]:
        places = (torch, torch.Tensor, functional)
        return frozenset(getattr(place, name) for place in places for name in names if hasattr(place, name))

    products = {functional.linear, torch.Tensor.__matmul__, functional.scaled_dot_product_attention}
    powers = {torch.Tensor.__pow__}
    return named(_LOWER) | products, named((*_FULL, *_FULL_LOSSES)) | powers, named(_TYPED)
