"""Fits, borderline or out of memory."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["fits", "borderline", "oom"]


def verdict_of(allocated: float, context: float, limit: float, band: float) -> Verdict:
    """Decide on the tensors with a margin for the allocator, and the CUDA context.

    The allocator gives cached blocks back before it fails, so what counts near the limit is the tensors and
    a few per cent of rounding, not the reserved peak of a roomy run.

    Args:
        allocated: Predicted peak of the tensors, bytes.
        context: CUDA context and communication library, bytes.
        limit: What a process can get, bytes.
        band: Relative doubt; within it the answer is borderline.

    >>> [verdict_of(allocated, 1e9, 24e9, 0.06) for allocated in (10e9, 21.5e9, 30e9)]
    ['fits', 'borderline', 'oom']
    """
    need = allocated * 1.03
    if need * (1 + band) + context <= limit:
        return "fits"
    return "borderline" if need * (1 - band) + context <= limit else "oom"
