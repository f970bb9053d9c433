"""What an attempt costs: the price it was launched at times the time it ran, in whole micro-dollars."""

from __future__ import annotations

_MS_PER_HOUR = 3_600_000


def cost_micro_usd(micro_usd_per_hour: int | None, seconds: float) -> int | None:
    """Price x time, rounded up so that a cap is never passed by rounding; None if the price is unknown.

    >>> cost_micro_usd(1_000_000, 1800.0), cost_micro_usd(1, 1.0), cost_micro_usd(None, 5.0)
    (500000, 1, None)
    """
    if micro_usd_per_hour is None:
        return None
    return -(-micro_usd_per_hour * round(seconds * 1000) // _MS_PER_HOUR)
