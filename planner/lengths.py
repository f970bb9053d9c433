"""How long the examples are: a distribution of lengths, and what padding and cutting make of it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import NamedTuple

_POINTS = 64
_MOST_QUANTILES = 4096
#: Spread (sigma of the logarithm) where only the mean is known. Instruction and chat sets lie at 0.4-0.9.
ASSUMED_LOG_SIGMA = 0.6


class Lengths(NamedTuple):
    """Lengths of examples as equally likely quantiles, ascending, in tokens."""

    quantiles: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean length."""
        return sum(self.quantiles) / len(self.quantiles)

    @property
    def mean_of_tokens(self) -> float:
        """Mean length of the example that a token stands in: attention's work goes by it, not by the mean.

        >>> lengths_of([1.0, 3.0]).mean_of_tokens
        2.5
        """
        return sum(value * value for value in self.quantiles) / sum(self.quantiles)

    @property
    def longest(self) -> float:
        """The longest one."""
        return self.quantiles[-1]

    def cut(self, most: float) -> Lengths:
        """The same with longer ones cut."""
        if self.longest <= most:
            return self
        return Lengths(tuple(min(value, most) for value in self.quantiles))

    def scaled(self, factor: float) -> Lengths:
        """Every length times a factor."""
        return Lengths(tuple(value * factor for value in self.quantiles))

    def plus(self, tokens: float) -> Lengths:
        """Every length with so many tokens more."""
        return Lengths(tuple(value + tokens for value in self.quantiles))

    def mean_of_longest(self, rows: int) -> float:
        """Mean of the longest of `rows` random examples: the length to which a batch of them is padded.

        The longest of m has the distribution F^m: its quantile at u is the examples' at u^(1/m).

        >>> lengths_of([10.0] * 5).mean_of_longest(8)
        10.0
        """
        if rows == 1:
            return self.mean
        count = len(self.quantiles)
        points = ((step + 0.5) / _POINTS for step in range(_POINTS))
        longest = (self.quantiles[min(int(u ** (1 / rows) * count), count - 1)] for u in points)
        return sum(longest) / _POINTS

    def share_within(self, most: float) -> float:
        """Share of examples of at most this length."""
        return bisect_left(self.quantiles, most + 1e-9) / len(self.quantiles)


def lengths_of(values: Sequence[float], most: int = _MOST_QUANTILES) -> Lengths:
    """The distribution of counted lengths, thinned to at most `most` points that keep the longest.

    Raises:
        ValueError: No values.
    """
    return lengths_of_counts([(value, 1) for value in values], most)


def lengths_of_counts(counts: Sequence[tuple[float, int]], most: int = _MOST_QUANTILES) -> Lengths:
    """The same of lengths with the number of examples of each.

    >>> lengths_of_counts([(7.0, 1), (3.0, 2)]).quantiles
    (3.0, 3.0, 7.0)

    Raises:
        ValueError: No values.
    """
    if not counts:
        raise ValueError("no lengths")
    ordered = sorted(counts)
    ends = list(accumulate(count for _, count in ordered))
    points = min(ends[-1], most)
    step = (ends[-1] - 1) / max(points - 1, 1)
    return Lengths(tuple(ordered[bisect_right(ends, round(index * step))][0] for index in range(points)))


def assumed_lengths(mean: float, longest: float | None) -> Lengths:
    """A lognormal of this mean, cut at the longest and scaled back to the mean.

    Args:
        mean: Mean tokens of an example.
        longest: Tokens of the longest one, None if unknown. Where it is close to the mean the spread is small:
            a lognormal's largest of many is about exp(2.5 sigma) times its median.
    """
    sigma = ASSUMED_LOG_SIGMA
    if longest is not None:
        sigma = min(sigma, math.log(max(longest / mean, 1.0)) / 2.5)
    normal = NormalDist()
    raw = [math.exp(sigma * normal.inv_cdf((step + 0.5) / _POINTS)) for step in range(_POINTS)]
    factor = mean * _POINTS / sum(raw)
    top = math.inf if longest is None else longest
    return Lengths(tuple(min(value * factor, top) for value in raw))
