"""What the headers of safetensors files say of the weights behind them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.errors import StorageError

#: Stored as whole numbers or single bytes: these are packed values, not parameters.
_PACKED = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's safetensors files hold.

    Attributes:
        parameters: Numbers by their type, as in {"BF16": 8030261248}.
        bytes: All tensors together.
        files: How many files.
    """

    parameters: dict[str, int]
    bytes: int
    files: int

    @property
    def total(self) -> int | None:
        """Parameters, None if some are packed, so that they cannot be counted."""
        return None if _PACKED & set(self.parameters) else sum(self.parameters.values())


def weights_of(headers: Iterable[Mapping[str, Any]]) -> Weights:
    """All that files hold whose headers these are.

    Raises:
        StorageError: A header makes no sense.
    """
    parameters: Counter[str] = Counter()
    size = files = 0
    for header in headers:
        files += 1
        for kind, number, end in _tensors(header):
            parameters[kind] += number
            size += end
    return Weights(dict(sorted(parameters.items())), size, files)


def _tensors(header: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """Type, numbers and bytes of each tensor."""
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            start, end = (int(place) for place in tensor["data_offsets"])
            yield str(tensor["dtype"]), math.prod(int(side) for side in tensor["shape"]), end - start
        except (KeyError, TypeError, ValueError):
            raise StorageError(
                f"a safetensors file has a tensor {name!r} without shape", code="bad_answer"
            ) from None
