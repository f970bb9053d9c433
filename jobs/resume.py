"""What a checkpoint directory must hold to be resumed from exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from providers.errors import CorruptDataError

# The trainer goes on silently, with another result, where one of these is missing.
_OPTIMIZER = "optimizer.pt"
_REQUIRED = (
    ("scheduler.pt",),
    ("rng_state.pth", "rng_state_0.pth"),  # of one process, of the first of several
    ("trainer_state.json",),
)
SHARDS = "shards.json"
"""Says which shards make a checkpoint whole, where several processes saved one each."""
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")


def check_resumable(directory: Path) -> None:
    """Make sure that every part is there and can be loaded without running code from it.

    Raises:
        CorruptDataError: A part is missing, cannot be read, or holds more than plain data.
    """
    sharded = (directory / SHARDS).is_file()
    for names in (*_REQUIRED, *(() if sharded else ((_OPTIMIZER,), _WEIGHTS))):
        if not any((directory / name).is_file() for name in names):
            raise CorruptDataError(f"{names[0]} is not part of the checkpoint", path=names[0])
    step_of(directory)
    if sharded:
        _check_shards(directory)
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


def _check_shards(directory: Path) -> None:
    """Every value of every tensor must be in one of the shards; read from their headers."""
    from safetensors import SafetensorError, safe_open

    try:
        whole = json.loads((directory / SHARDS).read_text(encoding="utf-8"))
        files, shapes = list(whole["files"]), dict(whole["shapes"])
        missing = {name: math.prod(shape) for name, shape in shapes.items()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptDataError(f"{SHARDS} cannot be read: {error}", path=SHARDS) from error
    for name in files:
        path = directory / Path(str(name)).name
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - no dictionary
                    missing[key] = missing.get(key, 0) - math.prod(file.get_slice(key).get_shape())
        except (SafetensorError, OSError) as error:
            raise CorruptDataError(f"{path.name} cannot be read: {error}", path=path.name) from error
    gap = next((name for name, values in missing.items() if values), None)
    if gap is not None:
        raise CorruptDataError(f"the shards do not hold {gap} exactly once", path=SHARDS)
