"""Fits, borderline or out of memory."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["fits", "borderline", "oom"]


# Shares of the predicted need by which a run may turn out larger or smaller than predicted.
_LARGER, _SMALLER = 0.13, 0.08
_ROUNDING = 1.03  # the allocator's blocks against the tensors in them


def verdict_of(
    allocated: float, context: float, limit: float, doubt: float = 1.0, *, weights: float = 0.0
) -> Verdict:
    """Decide on the tensors with a margin for the allocator, and the CUDA context.

    The allocator gives cached blocks back before it fails, so what counts near the limit is the tensors and
    a few per cent of rounding, not the reserved peak of a roomy run. A promise that fails costs more than a
    doubt, so the margin on the side of "fits" is the wider one.

    Args:
        allocated: Predicted peak of the tensors, bytes.
        context: CUDA context and communication library, bytes.
        limit: What a process can get, bytes.
        doubt: Widens the margins, 1 for set-ups that published runs cover well.
        weights: The part of `allocated` that no doubt makes smaller, bytes.

    >>> [verdict_of(allocated, 1e9, 24e9) for allocated in (10e9, 21.5e9, 30e9)]
    ['fits', 'borderline', 'oom']
    >>> verdict_of(26e9, 1e9, 24e9, 3.0), verdict_of(26e9, 1e9, 24e9, 3.0, weights=25e9)
    ('borderline', 'oom')
    """
    need = allocated * _ROUNDING
    if need * (1 + _LARGER * doubt) + context <= limit:
        return "fits"
    least = max(need * (1 - _SMALLER * doubt), weights)
    return "borderline" if least + context <= limit else "oom"
