"""A quantity that is not known exactly: its 10 %, 50 % and 90 % quantiles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

#: Standard normal quantile of 0.9.
Z90 = 1.2816


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Quantiles of one quantity, in the unit of the field that holds them.

    Raises:
        ValueError: If not p10 <= p50 <= p90.
    """

    p10: float
    p50: float
    p90: float

    def __post_init__(self) -> None:
        """Refuse quantiles out of order."""
        if not self.p10 <= self.p50 <= self.p90:
            raise ValueError(f"quantiles out of order: {self.p10} {self.p50} {self.p90}")

    def scaled(self, factor: float) -> Quantiles:
        """All three multiplied by a non-negative factor.

        >>> Quantiles(1, 2, 4).scaled(2)
        Quantiles(p10=2, p50=4, p90=8)
        """
        return Quantiles(self.p10 * factor, self.p50 * factor, self.p90 * factor)

    def widened(self, log_sd: float) -> Quantiles:
        """With an independent relative error more; its logarithm has this standard deviation.

        >>> Quantiles(1, 2, 4).widened(0.0)
        Quantiles(p10=1.0, p50=2, p90=4.0)
        """
        if log_sd == 0 or self.p10 <= 0:
            return Quantiles(float(self.p10), self.p50, float(self.p90))
        more = Z90 * log_sd
        low, high = (
            math.hypot(math.log(self.p50 / self.p10), more),
            math.hypot(math.log(self.p90 / self.p50), more),
        )
        return Quantiles(self.p50 / math.exp(low), self.p50, self.p50 * math.exp(high))

    def shifted(self, offset: float) -> Quantiles:
        """All three plus a known amount."""
        return Quantiles(self.p10 + offset, self.p50 + offset, self.p90 + offset)

    def billed(self, factor: float, offset: float) -> Quantiles:
        """Scaled by a non-negative factor, then shifted: hours at a price, and what else there is to pay.

        >>> Quantiles(1, 2, 4).billed(2, 1)
        Quantiles(p10=3, p50=5, p90=9)
        """
        return Quantiles(self.p10 * factor + offset, self.p50 * factor + offset, self.p90 * factor + offset)


def added(parts: Iterable[Quantiles]) -> Quantiles:
    """Sum of quantities that share their causes, quantile by quantile.

    >>> added([Quantiles(1, 2, 4), Quantiles(1, 1, 1)])
    Quantiles(p10=2.0, p50=3.0, p90=5.0)
    """
    low, middle, high = 0.0, 0.0, 0.0
    for part in parts:
        low, middle, high = low + part.p10, middle + part.p50, high + part.p90
    return Quantiles(low, middle, high)
