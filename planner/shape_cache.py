"""What of a set-up stays the same over GPUs, micro-batches and lengths is computed once.

An estimate looks at thousands of set-ups that differ in their batch alone; hashing a whole set-up for each would cost
more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from planner.setup import TrainingSetup

T = TypeVar("T")
_LARGEST = 4096


def by_shape(function: Callable[[TrainingSetup], T]) -> Callable[[TrainingSetup], T]:
    """Cache a function of everything in a set-up but micro-batch, lengths and the exact number of accumulations."""
    cache: dict[tuple[object, ...], T] = {}

    def cached(setup: TrainingSetup) -> T:
        key = setup.shape
        found = cache.get(key)
        if found is None:
            if len(cache) >= _LARGEST:
                cache.clear()
            found = cache[key] = function(setup)
        return found

    return cached
