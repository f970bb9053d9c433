"""What of a set-up stays the same over GPUs, micro-batches and lengths is computed once.

An estimate looks at thousands of set-ups that differ in their batch alone; hashing a whole set-up for each would cost
more than the arithmetic. So would hashing the same one a dozen times: one that is still there is known by itself.
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
    # by identity, which is a set-up's own as long as it is held here
    known: dict[int, tuple[TrainingSetup, T]] = {}

    def cached(setup: TrainingSetup) -> T:
        at_hand = known.get(id(setup))
        if at_hand is not None:
            return at_hand[1]
        key = setup.shape
        found = cache.get(key)
        if found is None:
            if len(cache) >= _LARGEST:
                cache.clear()
            found = cache[key] = function(setup)
        if len(known) >= _LARGEST:
            known.clear()
        known[id(setup)] = (setup, found)
        return found

    return cached
