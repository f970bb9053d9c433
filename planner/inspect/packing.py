"""What rows of a fixed length make of examples: cut, filled, padded. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

from planner.lengths import Lengths

MICRO_BATCHES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class RowUse:
    """How well rows of one length are used.

    Attributes:
        truncated_share: Share of examples that are longer than a row.
        lost_token_share: Share of tokens cut off.
        best_fit: Share of real tokens in rows filled by best fit, examples whole.
        wrapped: The same with examples cut at the row's end and gone on with in the next.
        padding: Micro-batch -> share of padding where rows hold one example each.
    """

    truncated_share: float
    lost_token_share: float
    best_fit: float
    wrapped: float
    padding: dict[int, float]


def row_use(lengths: Lengths, row_tokens: int) -> RowUse:
    """Cutting, packing and padding of examples of these lengths.

    Args:
        lengths: Of the examples, in tokens.
        row_tokens: Length of a row.
    """
    cut = lengths.cut(float(row_tokens))
    sizes = [max(round(value), 1) for value in cut.quantiles]
    total = sum(sizes)
    rows = best_fit_rows(sizes, row_tokens)
    wrapped_rows = -(-sum(max(round(value), 1) for value in lengths.quantiles) // row_tokens)
    whole = sum(max(round(value), 1) for value in lengths.quantiles)
    return RowUse(
        truncated_share=1 - lengths.share_within(float(row_tokens)),
        lost_token_share=1 - cut.mean / lengths.mean,
        best_fit=total / (rows * row_tokens),
        wrapped=whole / (wrapped_rows * row_tokens),
        padding={rows: max(1 - cut.mean / cut.mean_of_longest(rows), 0.0) for rows in MICRO_BATCHES},
    )


def best_fit_rows(sizes: Sequence[int], row_tokens: int) -> int:
    """Rows that best-fit decreasing fills: each example goes where it leaves the least room.

    >>> best_fit_rows([6, 5, 5, 4], 10)
    2
    """
    rooms: list[int] = []
    rows = 0
    for size in sorted(sizes, reverse=True):
        place = bisect_left(rooms, size)
        if place == len(rooms):
            rows += 1
            left = row_tokens - size
        else:
            left = rooms.pop(place) - size
        if left > 0:
            insort(rooms, left)
    return rows
