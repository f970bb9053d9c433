"""What callers of the policy give, as it reckons with it: unknown prices, gaps and records of different lengths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator


def usd_of(price: float | None) -> float:
    """A price as a number; infinite where it is unknown, or none."""
    usd = math.inf if price is None else float(price)
    return max(usd, 0.0) if math.isfinite(usd) else math.inf


def past_states(
    history: Iterable[Iterable[bool | float | None]], regions: int
) -> Iterator[tuple[bool | None, ...]]:
    """The regions' states by tick, oldest first; before a shorter record began, its region was not probed."""
    unseen: list[bool | None] = [None]
    records = [[None if s is None or s != s else bool(s) for s in record] for record in history]
    if records and len(records) != regions:
        raise ValueError(f"history: {len(records)} records of {regions} regions")
    most = max(map(len, records), default=0)
    return zip(*(unseen * (most - len(record)) + record for record in records), strict=True)
