"""Fits, borderline or out of memory: how likely a prediction is to hold against what a process can get.

The error of a predicted need is a sum of independent doubts, as that of a step's time is (`planner.throughput.doubts`).
Sizes and shares were chosen on published runs at first sight and as they are predicted now, table by table left out;
between neighbouring ones the outcome hardly moves (ACCURACY.md). They are those of a set-up that was read as it ran:
of runs of sources that nobody had looked at half were off by more than a quarter, because something was not told or is
not modelled, and no margin that still says "fits" or "out of memory" would allow for that.
"""

from __future__ import annotations

import math
from typing import Literal

from planner.setup import Cluster, TrainingSetup

Verdict = Literal["fits", "borderline", "oom"]

_BASE = 0.10  # versions, kernels' workspaces, the longest of many batches
# Added where few published runs tell, or stacks differ: one of which little is known, experts, what lies on the host.
_UNKNOWN_STACK, _EXPERTS, _OFFLOAD, _SAMPLING = 0.10, 0.15, 0.10, 0.30
_FITS, _FAILS = 0.85, 0.20  # a promise that fails costs more than a doubt
# What an unknown stack holds is mostly read too large: that it cannot fit must be nearly certain.
_UNKNOWN_FAILS = 0.05
_ROUNDING = 1.03  # the allocator's blocks against the tensors in them
#: Stacks of which nothing is known, or no more than their optimizers' code.
LITTLE_SEEN = ("other", "internevo", "tensorflow")
_LEAST_SD = 0.01  # of a job whose repeats do not differ
_GIB = float(2**30)


def limit_bytes(cluster: Cluster) -> float:
    """What one process can get: the driver keeps a share of the nominal memory."""
    gpu = cluster.gpu
    return (cluster.gpu_mem_gib or gpu.memory_gib) * gpu.usable_gib / gpu.memory_gib * _GIB


def need_log_sd(setup: TrainingSetup) -> float:
    """Standard deviation of log(actual / predicted) of the tensors at the peak."""
    doubts = (
        (setup.framework in LITTLE_SEEN, _UNKNOWN_STACK),
        (setup.arch.is_moe, _EXPERTS),
        (setup.offload != "none", _OFFLOAD),
        (setup.task in ("ppo", "grpo"), _SAMPLING),
    )
    return math.sqrt(_BASE**2 + sum(size**2 for applies, size in doubts if applies))


def fit_probability(allocated: float, context: float, limit: float, log_sd: float = _BASE) -> float:
    """How likely the tensors, with a few per cent of rounding, and the context stay within the limit.

    The allocator gives cached blocks back before it fails, so what counts near the limit is not the reserved peak of a
    roomy run.

    Args:
        allocated: Predicted peak of the tensors, bytes.
        context: CUDA context and communication library, bytes.
        limit: What a process can get, bytes.
        log_sd: Standard deviation of the logarithm of actual / predicted tensors.

    >>> [round(fit_probability(allocated, 1e9, 24e9), 2) for allocated in (18e9, 22e9, 26e9)]
    [0.98, 0.56, 0.06]
    """
    room = limit - context
    if room <= 0 or allocated <= 0:
        return float(room > 0)
    deviations = math.log(room / (allocated * _ROUNDING)) / max(log_sd, _LEAST_SD)
    return (1 + math.erf(deviations / math.sqrt(2))) / 2


def verdict_of(
    allocated: float,
    context: float,
    limit: float,
    log_sd: float = _BASE,
    *,
    certain: float = 0.0,
    unknown: bool = False,
) -> Verdict:
    """Decide by how likely the run is to fit: 17 in 20, or 1 in 5 and less.

    Args:
        allocated: As of `fit_probability`, as are the next three.
        context: Bytes.
        limit: Bytes.
        log_sd: Of a set-up that published runs cover well where it is not given.
        certain: The part of `allocated` that no doubt makes smaller, bytes.
        unknown: The stack is one of which nothing is known.

    >>> [verdict_of(allocated, 1e9, 24e9) for allocated in (10e9, 21.5e9, 30e9)]
    ['fits', 'borderline', 'oom']
    >>> verdict_of(26e9, 1e9, 24e9, 0.3), verdict_of(26e9, 1e9, 24e9, 0.3, certain=25e9)
    ('borderline', 'oom')
    """
    if certain + context > limit:
        return "oom"
    likely = fit_probability(allocated, context, limit, log_sd)
    if likely >= _FITS:
        return "fits"
    return "oom" if likely <= (_UNKNOWN_FAILS if unknown else _FAILS) else "borderline"
