"""What interruptions add to a run: checkpoint interval, expected losses, rework, restarts and waits.

Pure: no clock, no disk. `hazards` says how likely a machine is lost, `preemption` solves what follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from planner.hazards import SpotHazards
from planner.preemption import Preemptions
from planner.quantiles import Quantiles

#: Spell age at which the checkpoint interval is chosen, at most: later it matters less.
_TYPICAL_AGE_H = 4.0
#: Factor that a place's losses may be off by, beyond the kinds of zones: makes the p90 hold on campaigns left out.
PLACE_DOUBT = 4.0
#: A machine that stays still crashes now and then: a checkpoint at least so often, unless saving took more than this
#: share of the time. The worker's own limits are the same (`jobs.interval`).
_LONGEST_INTERVAL_S, MOST_SAVING = 1800.0, 0.05
_NONE = Quantiles(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Interruptions:
    """What interruptions add to a job of known length.

    Attributes:
        per_h: Expected interruptions of the machine group in an hour of running, by kind of zone.
        checkpoint_interval_s: Chosen time between checkpoints.
        expected: Expected number of interruptions.
        count: How many it may be.
        checkpoint_h: Hours the training waits for checkpoints.
        rework_h: Hours computed twice.
        restart_h: Billed hours of starting again.
        wait_h: Hours without a machine, not billed.
        billed_mean_h: Expected rework and restarts together; the mean, above the p50.
    """

    per_h: Quantiles
    checkpoint_interval_s: float
    expected: float
    count: Quantiles
    checkpoint_h: float
    rework_h: Quantiles
    restart_h: Quantiles
    wait_h: Quantiles
    billed_mean_h: float


def checkpoint_interval_s(save_s: float, hazard_per_h: float, *, least_s: float = 60.0) -> float:
    """Young's first-order optimum sqrt(2 x save time x mean time between failures), Comm. ACM 17 (1974) 530.

    Neglects the time to restart, which does not move the optimum at first order. A job that cannot be interrupted
    still saves every 30 minutes against crashes, or as seldom as keeps saving below a twentieth of the time.

    >>> round(checkpoint_interval_s(15, 0.2) / 60), checkpoint_interval_s(15, 0), checkpoint_interval_s(1200, 0) / 3600
    (12, 1800.0, 6.666666666666667)
    """
    longest_s = max(_LONGEST_INTERVAL_S, save_s / MOST_SAVING)
    if hazard_per_h <= 0:
        return longest_s
    return min(max(math.sqrt(2 * save_s * 3600 / hazard_per_h), least_s), longest_s)


def interruptions(
    work_h: float, *, hazards: SpotHazards | None, save_s: float, restart_h: float
) -> Interruptions:
    """What losing machines adds to a job, from a first start that finds a machine.

    Each loss takes back half a checkpoint interval on average and costs a whole start; hazards fall with the age of a
    spell, so that the first machine, found running, is safer than the ones after a loss. Error of the means against
    simulation of the same hazards: 5 %; the hazards themselves are known to a factor of two.

    Args:
        work_h: Uninterrupted hours of the job.
        hazards: Of the machine group on spot; None where nothing is taken away (on demand, own machine).
        save_s: Seconds that one checkpoint stops the training.
        restart_h: Billed hours from a new machine's start to the first new step.
    """
    if hazards is None:
        interval_s = checkpoint_interval_s(save_s, 0.0)
        checkpoint_h = work_h * save_s / interval_s
        return Interruptions(_NONE, interval_s, 0.0, _NONE, checkpoint_h, _NONE, _NONE, _NONE, 0.0)
    age_h = min(work_h / 2, _TYPICAL_AGE_H)
    interval_s = checkpoint_interval_s(save_s, hazards.losses_per_h(age_h))
    rework_h = interval_s / 7200
    checkpoint_h = work_h * save_s / interval_s
    waste = _solved(hazards, _rounded(restart_h, 0.1), _rounded(rework_h, 0.4)).waste(work_h + checkpoint_h)
    delay, billed = waste.delay_h, waste.billed_h
    count = billed.scaled(1 / (restart_h + rework_h))
    return Interruptions(
        per_h=hazards.losses_spread_per_h(age_h),
        checkpoint_interval_s=interval_s,
        expected=waste.losses,
        count=count,
        checkpoint_h=checkpoint_h,
        rework_h=count.scaled(rework_h),
        restart_h=count.scaled(restart_h),
        wait_h=_ascending(delay.p10 - billed.p10, delay.p50 - billed.p50, delay.p90 - billed.p90),
        billed_mean_h=waste.billed_mean_h,
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


@lru_cache(maxsize=256)
def _solved(hazards: SpotHazards, restart_h: float, rework_h: float) -> Preemptions:
    return Preemptions(hazards, restart_h, rework_h, doubt=PLACE_DOUBT)


def _rounded(hours: float, step: float) -> float:
    """To a step of the logarithm, so that machines that differ by seconds share a solution."""
    return math.exp(round(math.log(max(hours, 1e-4)) / step) * step)


def _ascending(p10: float, p50: float, p90: float) -> Quantiles:
    low = max(p10, 0.0)
    middle = max(p50, low)
    return Quantiles(low, middle, max(p90, middle))
