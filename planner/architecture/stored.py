"""How many parameters the files of a model hold, from their headers alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

_MOST_HEADER_BYTES = 100_000_000
#: Types of parameters; whole numbers and bytes are packed values.
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


def stored_parameters(directory: Path) -> int | None:
    """Numbers in a directory's safetensors files; None without such files, or where they are packed or unreadable."""
    files = sorted(directory.glob("*.safetensors"))
    try:
        return sum(map(_parameters, files)) if files else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parameters(file: Path) -> int:
    """Of one file, which begins with the length of its header in eight bytes, and its header."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > _MOST_HEADER_BYTES:
            raise ValueError("not a safetensors file")
        header = json.loads(stream.read(size))
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    if any(tensor["dtype"] not in _FLOATS for tensor in tensors):
        raise ValueError("packed values")
    return sum(math.prod(tensor["shape"]) for tensor in tensors)
