"""Trains a job as `python -m jobs.train` does, and tells the peak of torch's CPU allocator in every step.

    python -m benchmarks.step_peaks PEAKS.json JOB.json

Writes pairs of bytes for each optimizer step from the third on: what lay there at its start (weights, optimizer, frozen
copy) and the most that was held beside it. TRL's head runs as on a GPU: on the scored positions only, and its kernels
keep nothing beside their tile; in torch's own operations they would keep seven copies of it. Nor is the head's weight
copied for each sampled row, as a CPU does in bf16 for the last positions of the prompts, which do not lie together.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FIRST_STEP = 2  # the optimizer has its state, and what is made once is there
_ROWS, _COLUMNS = 8, 64


class Watch:
    """Steps of one training."""

    def __init__(self) -> None:
        self.peaks: list[tuple[int, int]] = []
        self._profile: Any = None
        self._lying = 0

    def begin(self, trainer: Any) -> None:
        """A step begins."""
        from torch.profiler import ProfilerActivity, profile

        if trainer.state.global_step < _FIRST_STEP:
            return
        self._lying = _lying(trainer)
        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
        self._profile.__enter__()

    def end(self) -> None:
        """It is over."""
        if self._profile is None:
            return
        watched, self._profile = self._profile, None
        watched.__exit__(None, None, None)
        self.peaks.append((self._lying, most_held(watched)))


def most_held(watched: Any) -> int:
    """The most bytes that the CPU allocator held while a profile was taken, beyond those at its start."""
    held = most = 0
    for event in watched.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def _lying(trainer: Any) -> int:
    """Bytes of weights, optimizer and frozen copy."""
    tensors = [*trainer.model.parameters(), *trainer.model.buffers()]
    for state in trainer.optimizer.state.values():
        tensors += [value for value in state.values() if hasattr(value, "untyped_storage")]
    frozen = getattr(trainer, "ref_model", None)
    tensors += [] if frozen is None else list(frozen.parameters())
    mine = (tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors)  # of shards
    storages = (tensor.untyped_storage() for tensor in mine)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def _in_rows(fold: Callable[..., None]) -> Callable[..., None]:
    """A tile's kernel in torch, on few rows at once."""

    def sliced(tile: Any, stride: int, *rest: Any, **options: Any) -> None:
        for start in range(0, len(tile), _ROWS):
            part = slice(start, start + _ROWS)
            parts = (value[part] if getattr(value, "ndim", 0) else value for value in rest)
            fold(tile[part], stride, *parts, **options)

    return sliced


def _add(sums: Any, left: Any, right: Any) -> None:
    """sums += left @ right in fp32, without whole copies of the factors in fp32."""
    for start in range(0, len(right), _COLUMNS):
        part = slice(start, start + _COLUMNS)
        sums.addmm_(left[:, part].float(), right[part].float())


def _as_on_a_gpu() -> None:
    import trl.trainer.utils
    from trl.kernels import chunked_logprob

    trl.trainer.utils._use_triton = lambda device: True
    for name in ("_forward_tile", "_backward_tile"):
        setattr(chunked_logprob, name, _in_rows(getattr(chunked_logprob, name)))
    chunked_logprob._addmm_fp32 = _add


def _watched(watch: Watch) -> None:
    """Tell the watch of every step of every trainer."""
    from transformers import Trainer
    from transformers.trainer_callback import TrainerCallback

    class Tell(TrainerCallback):
        def __init__(self, trainer: Any) -> None:
            self._trainer = trainer

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.begin(self._trainer)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            watch.end()

    made = Trainer.__init__

    def make(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.add_callback(Tell(self))
        for name, module in self.model.named_modules():
            if name.endswith("lm_head"):
                module.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))

    Trainer.__init__ = make


def main(arguments: list[str]) -> int:
    """Train; the worker's exit code."""
    from jobs.train import main as train

    out, job = arguments
    watch = Watch()
    _as_on_a_gpu()
    _watched(watch)
    code = train([job])
    Path(out).write_text(json.dumps(watch.peaks), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
