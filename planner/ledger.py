"""Money as whole micro-dollars: sums are exact, and a price is what it was when the machine was taken."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

_MICRO = 1_000_000
_MS_PER_HOUR = 3_600_000


def to_micro_usd(usd: float | Decimal | str) -> int:
    """Micro-dollars of an amount in US dollars, rounded to the nearest.

    >>> to_micro_usd(0.1), to_micro_usd("1.2345678")
    (100000, 1234568)
    """
    return int((Decimal(str(usd)) * _MICRO).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def to_usd(micro_usd: int) -> Decimal:
    """US dollars of micro-dollars, exact.

    >>> to_usd(1500000)
    Decimal('1.5')
    """
    return (Decimal(micro_usd) / _MICRO).normalize()


def cost_micro_usd(micro_usd_per_hour: int | None, seconds: float) -> int | None:
    """Price x time, rounded up so that a cap is never passed by rounding; None if the price is unknown.

    >>> cost_micro_usd(1_000_000, 1800.0), cost_micro_usd(1, 1.0), cost_micro_usd(None, 5.0)
    (500000, 1, None)
    """
    if micro_usd_per_hour is None:
        return None
    return -(-micro_usd_per_hour * round(seconds * 1000) // _MS_PER_HOUR)
