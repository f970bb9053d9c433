"""How many parameters the files of a model hold, from their headers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.architecture.counts import parameter_counts
from planner.architecture.model import ModelArchitecture
from providers.errors import TuneplanError
from providers.weights import weights_of

_MOST_HEADER_BYTES = 100_000_000


def completed(arch: ModelArchitecture, stored: int | None) -> ModelArchitecture:
    """The architecture with what its files hold beyond its configuration (a vision tower) as further parameters."""
    more = 0 if stored is None else stored - parameter_counts(arch).total
    return arch if more <= 0 else replace(arch, extra_parameters=arch.extra_parameters + more)


def stored_parameters(directory: Path) -> int | None:
    """Numbers in a directory's safetensors files; None without such files, or where they are packed or unreadable."""
    files = sorted(directory.glob("*.safetensors"))
    try:
        return weights_of(map(_header, files)).total if files else None
    except (OSError, ValueError, AttributeError, RecursionError, TuneplanError):
        return None


def _header(file: Path) -> dict[str, Any]:
    """What a file begins with, after its length in eight bytes."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > _MOST_HEADER_BYTES:
            raise ValueError("not a safetensors file")
        header: dict[str, Any] = json.loads(stream.read(size))
    return header
