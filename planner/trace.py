"""The exact peak of one training step, from running the real model code without weights or GPU.

The model that transformers and PEFT build is run on torch's meta device: shapes, no numbers. Every storage is counted
from its first operation until it is freed, in blocks of 512 bytes as the CUDA allocator rounds. Where a CUDA kernel
keeps less than the plain formula (fused attention, 4-bit products), a stand-in keeps what the kernel keeps.

Under autocast functions are cast as CUDA's does (`planner.trace_functions`); dropouts keep masks.

Needs the extra [trace]. Takes 1-15 s; the closed form of `planner.memory` is held against it by tests.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from planner.memory.precision import is_mixed, widths
from planner.setup import TrainingSetup
from planner.trace_functions import AsOnCuda
from planner.trace_model import build, check_size, prepare, towers
from planner.workload import rows_of
from providers.errors import MissingExtraError

_BLOCK_BYTES = 512
_TELL_EVERY = 1000


@dataclass(frozen=True, slots=True)
class TracedPeak:
    """What one traced step needs.

    Attributes:
        peak_bytes: Largest sum of live storages.
        phase: loss (forward), backward or optimizer_step.
        static_bytes: Weights before the first step.
        operations: Operations that were traced.
    """

    peak_bytes: int
    phase: str
    static_bytes: int
    operations: int


def trace_step(
    setup: TrainingSetup,
    config: Mapping[str, Any],
    steps: int = 2,
    progress: Callable[[int, str], None] | None = None,
) -> TracedPeak:
    """Trace optimizer steps of a set-up on one GPU.

    Args:
        setup: What to train; sharding is ignored, attention eager or fused.
        config: The model's config.json as a mapping.
        steps: Steps to run; the optimizer's state exists from the second on.
        progress: Called now and then with the operations so far and the phase.

    Raises:
        MissingExtraError: Without torch, transformers and peft.
        UsageError: If transformers cannot build the model.
    """
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingExtraError("trace", "tracing a step")
    import torch

    built = build(setup, config)
    check_size(built, setup)
    functions = AsOnCuda(_lower_type(setup))
    model = prepare(setup, built, functions)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(setup, trained)
    tracker = Tracker(progress)
    tracker.live = int(towers(setup) * widths(setup).frozen)
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.count(tensor)
    static = tracker.live
    rows = setup.micro_batch * rows_of(setup.task)
    ids = torch.empty((rows, setup.sequence_tokens), dtype=torch.long, device="meta")
    given = _inputs(setup, ids)
    with tracker.mode():
        for _ in range(steps):
            tracker.phase = "loss"
            with functions.step():
                loss = _loss(setup, model, given)
            tracker.phase = "backward"
            loss.backward()
            del loss
            tracker.phase = "optimizer_step"
            if optimizer is not None:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return TracedPeak(tracker.peak, tracker.peak_phase, static, tracker.operations)


def _lower_type(setup: TrainingSetup) -> Any:
    """Of autocast, None where there is none."""
    import torch

    if not is_mixed(setup):
        return None
    return torch.float16 if setup.precision.endswith("fp16") else torch.bfloat16


def _inputs(setup: TrainingSetup, ids: Any) -> dict[str, Any]:
    """What the model is called with."""
    first = ids[:, 0].clone()
    if setup.task == "reward":
        return {"input_ids": ids}
    if setup.task == "qa":
        return {"input_ids": ids, "start_positions": first, "end_positions": first}
    return {"input_ids": ids, "labels": first if setup.task == "classification" else ids}


def _loss(setup: TrainingSetup, model: Any, given: dict[str, Any]) -> Any:
    import torch

    if setup.task != "reward":
        return model(**given).loss
    better, worse = model(**given).logits.chunk(2)
    return -torch.nn.functional.logsigmoid(better - worse).mean()


class Tracker:
    """Follows every storage from its birth to its end."""

    def __init__(self, progress: Callable[[int, str], None] | None = None) -> None:
        """Tells progress, if asked, every thousand operations."""
        self.progress = progress
        self.sizes: dict[int, int] = {}
        self.live = self.peak = self.operations = 0
        self.phase = self.peak_phase = "loss"

    def count(self, tensor: Any, *, replaces: bool = False) -> None:
        """Take in a tensor's storage, once; one that replaces another is looked at when that is gone."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        size = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
        if key in self.sizes or size == 0:
            return
        self.sizes[key] = size
        self.live += size
        weakref.finalize(storage, self.forget, key)
        if not replaces:
            self.see()

    def see(self) -> None:
        """Is this the peak so far?"""
        if self.live > self.peak:
            self.peak, self.peak_phase = self.live, self.phase

    def forget(self, key: int) -> None:
        """A storage has gone."""
        self.live -= self.sizes.pop(key, 0)

    def mode(self) -> Any:
        """A context in which every operation passes here."""
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode
        from torch.utils._pytree import tree_iter

        def dispatch(_: Any, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:
                return 1
            self.operations += 1
            if self.progress is not None and self.operations % _TELL_EVERY == 0:
                self.progress(self.operations, self.phase)
            self.see()
            result = function(*args, **(kwargs or {}))
            # The engine adds gradients that meet up in place, where no mode of dispatch is there to see it.
            meets = function is torch.ops.aten.add.Tensor and not torch.is_grad_enabled()
            for value in tree_iter(result):
                if isinstance(value, torch.Tensor) and value.device.type == "meta":
                    self.count(value, replaces=meets and self.phase == "backward")
            return result

        return type("Tracking", (TorchDispatchMode,), {"__torch_dispatch__": dispatch})()


class FusedAdamW:
    """Two moments, and no temporaries: torch's fused kernel, which does not run without a device."""

    def __init__(self, trained: list[Any]) -> None:
        """Takes the parameters that are trained."""
        self.trained = trained
        self.moments: list[Any] = []

    def step(self) -> None:
        """Moments come with the first step."""
        import torch

        self.moments = self.moments or [torch.zeros_like(one) for one in (*self.trained, *self.trained)]

    def zero_grad(self, *, set_to_none: bool = True) -> None:
        """Gradients go."""
        for parameter in self.trained:
            parameter.grad = None if set_to_none else parameter.grad


def _optimizer(setup: TrainingSetup, trained: list[Any]) -> Any:
    import torch

    if setup.optimizer == "sgd":
        return torch.optim.SGD(trained, lr=1e-4)
    if setup.optimizer != "adamw":
        return FusedAdamW(trained)
    return torch.optim.AdamW(trained, lr=1e-4, foreach=True)
