"""What interruptions cost: hazard priors, checkpoint interval, expected rework and restarts.

Pure: no clock, no disk. The full survival model and the deadline policy build on these terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.quantiles import Quantiles

PRIOR_SOURCE = (
    "pooled public spot traces 2022-2025 (AWS V100 0.24-0.60/h, GCP H100 0.25/h), halved: see docstring"
)

_GPU_HAZARD_PER_H = Quantiles(0.03, 0.12, 0.40)
_GCP_CPU_HAZARD_PER_H = Quantiles(0.005, 0.017, 0.07)

#: Hours without a machine per interruption: short, median and mean of the same traces' down spells.
WAIT_AFTER_PREEMPTION_H = Quantiles(0.05, 0.35, 0.9)


@dataclass(frozen=True, slots=True)
class Interruptions:
    """What interruptions add to a job of known length.

    Attributes:
        hazard_per_h: Interruptions per machine-group hour.
        checkpoint_interval_s: Chosen time between checkpoints.
        count: Expected number of interruptions.
        checkpoint_h: Hours the training waits for checkpoints.
        rework_h: Hours computed twice.
        restart_h: Billed hours of starting again.
        wait_h: Hours without a machine, not billed.
    """

    hazard_per_h: Quantiles
    checkpoint_interval_s: float
    count: Quantiles
    checkpoint_h: float
    rework_h: Quantiles
    restart_h: Quantiles
    wait_h: Quantiles


def spot_hazard_per_h(gpu: str, nodes: int) -> Quantiles:
    """Prior rate at which a spot gang of `nodes` machines loses one of them, per hour.

    The public traces probe availability, which bounds the preemption of a running machine from above, and their
    hazard falls with the age of the spell (1.98/h in the first ten minutes, 0.04/h after a day). The prior is half
    of the pooled rate for the median and spans a factor of about four both ways. Machines of one gang share their
    fate only partly: the rate grows with the square root of their number. Expected error: a factor of three on
    another zone; the user's own runs replace it.

    >>> spot_hazard_per_h("H100", 1).p50
    0.12
    """
    base = _GCP_CPU_HAZARD_PER_H if gpu == "CPU" else _GPU_HAZARD_PER_H
    return base.scaled(math.sqrt(nodes))


def checkpoint_interval_s(save_s: float, hazard_per_h: float, *, least_s: float = 60.0) -> float:
    """Young's first-order optimum sqrt(2 x save time x mean time between failures), Comm. ACM 17 (1974) 530.

    Neglects the time to restart, which does not move the optimum at first order. A job that cannot be interrupted
    still saves every 30 minutes, against crashes.

    >>> round(checkpoint_interval_s(15, 0.2) / 60)
    12
    """
    if hazard_per_h <= 0:
        return 1800.0
    return min(max(math.sqrt(2 * save_s * 3600 / hazard_per_h), least_s), 1800.0)


def interruptions(
    work_h: Quantiles, *, hazard_per_h: Quantiles, save_s: float, restart_h: Quantiles
) -> Interruptions:
    """Expected cost in hours of interruptions at a constant rate.

    Each interruption loses half a checkpoint interval on average, plus the whole restart. Rework and restarts can be
    interrupted themselves: the count is divided by the share of time that makes progress. Neglects the fall of the
    hazard with age, which makes the p50 pessimistic for jobs over a few hours.

    Args:
        work_h: Uninterrupted hours of the job.
        hazard_per_h: Interruptions per hour; zeros for on-demand.
        save_s: Seconds that one checkpoint stops the training.
        restart_h: Billed hours from a new machine's start to the first new step.
    """
    interval_s = checkpoint_interval_s(save_s, hazard_per_h.p50)
    lost_h = interval_s / 7200
    counts = [
        _count(work, rate, lost_h + again)
        for work, rate, again in zip(_three(work_h), _three(hazard_per_h), _three(restart_h), strict=True)
    ]
    count = Quantiles(*counts)
    return Interruptions(
        hazard_per_h=hazard_per_h,
        checkpoint_interval_s=interval_s,
        count=count,
        checkpoint_h=work_h.p50 * save_s / interval_s,
        rework_h=count.scaled(lost_h),
        restart_h=_product(count, restart_h),
        wait_h=_product(count, WAIT_AFTER_PREEMPTION_H),
    )


def probability_by(finish_h: Quantiles, deadline_h: float) -> float:
    """Chance that a quantity with these quantiles is at most `deadline_h`.

    Two half-lognormals that meet at the median; 1.2816 is the normal's 90 % quantile.

    >>> probability_by(Quantiles(1, 2, 4), 2)
    0.5
    """
    if deadline_h <= 0:
        return 0.0
    offset = math.log(deadline_h / finish_h.p50)
    far = finish_h.p90 / finish_h.p50 if offset > 0 else finish_h.p50 / finish_h.p10
    sigma = math.log(max(far, 1.0001)) / 1.2816
    return 0.5 * (1 + math.erf(offset / sigma / math.sqrt(2)))


def _count(work_h: float, rate_per_h: float, lost_h: float) -> float:
    """Expected interruptions until the work is done; capped where restarts eat nearly all time."""
    share = max(1 - rate_per_h * lost_h, 0.05)
    return work_h * rate_per_h / share


def _three(value: Quantiles) -> tuple[float, float, float]:
    return value.p10, value.p50, value.p90


def _product(a: Quantiles, b: Quantiles) -> Quantiles:
    return Quantiles(a.p10 * b.p10, a.p50 * b.p50, a.p90 * b.p90)
