"""What a checkpoint directory must hold to be resumed from exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from providers.errors import CorruptDataError

# The trainer goes on silently, with another result, where one of these is missing.
_REQUIRED = (
    ("optimizer.pt",),
    ("scheduler.pt",),
    ("rng_state.pth", "rng_state_0.pth"),  # of one process, of the first of several
    ("trainer_state.json",),
)
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def check_resumable(directory: Path) -> None:
    """Make sure that every part is there and can be loaded without running code from it.

    Raises:
        CorruptDataError: A part is missing, cannot be read, or holds more than plain data.
    """
    for names in _REQUIRED:
        if not any((directory / name).is_file() for name in names):
            raise CorruptDataError(f"{names[0]} is not part of the checkpoint", path=names[0])
    if not any((directory / name).is_file() for name in _WEIGHTS):
        raise CorruptDataError("no weights are part of the checkpoint", path=_WEIGHTS[0])
    step_of(directory)
    for path in sorted(directory.glob("*.safetensors")):
        _check_weights(path)
    for path in sorted([*directory.glob("*.pt"), *directory.glob("*.pth")]):
        _check_tensors(path)


def step_of(directory: Path) -> int:
    """Optimizer steps done, as the trainer's state has it.

    Raises:
        CorruptDataError: The state cannot be read.
    """
    try:
        return int(json.loads((directory / "trainer_state.json").read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptDataError(f"trainer_state.json cannot be read: {error}") from error


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise CorruptDataError(f"{path.name} cannot be read: {error}", path=path.name) from error


def _check_tensors(path: Path) -> None:
    """Load with weights_only, which refuses a pickle that would run code; mapped, so nothing big is read."""
    import pickle

    import torch
    from transformers.trainer_pt_utils import safe_globals

    try:
        with safe_globals():
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptDataError(f"{path.name} is refused: {first_line}", path=path.name) from error
    if not isinstance(loaded, dict):
        raise CorruptDataError(f"{path.name} holds no state", path=path.name)
