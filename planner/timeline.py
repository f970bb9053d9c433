"""From step time to billed hours: training, overheads and interruptions of one fit in one market."""

from __future__ import annotations

import math
from typing import NamedTuple

from planner.hazards import SpotHazards
from planner.overheads import Overheads
from planner.quantiles import Quantiles, added
from planner.risk import Interruptions, interruptions


class Timeline(NamedTuple):
    """Hours of one run.

    Attributes:
        wall_clock_h: Billed, machine start to release; p50 is the sum of the four lines below.
        billed_mean_h: Expected billed hours, above the p50 where machines may be lost.
        finish_h: From the first machine's start to the result, with unbilled waits for capacity.
        compute_h: Training, evaluation, checkpoints and the first start.
        rework_h: Steps computed twice after interruptions.
        reprovision_h: Starting again after interruptions.
        idle_h: Between the end of the job and the release of the machine.
        interruptions: The terms behind it.
    """

    wall_clock_h: Quantiles
    billed_mean_h: float
    finish_h: Quantiles
    compute_h: float
    rework_h: float
    reprovision_h: float
    idle_h: float
    interruptions: Interruptions


def timeline(
    steps: float, step_time_s: Quantiles, around: Overheads, hazards: SpotHazards | None
) -> Timeline:
    """Billed hours and finish of one run.

    Quantiles of steps and overheads are added: they share their causes (a slow machine is slow in all), so the sum's
    interval is slightly too wide rather than too narrow. Losing machines is independent of them.

    Args:
        steps: Optimizer steps of a whole batch.
        step_time_s: Seconds of one.
        around: Overheads.
        hazards: Of the machines, None where nothing is taken away (on demand, own machine).
    """
    training_h = step_time_s.scaled(steps / 3600)
    work_h = added((training_h, around.once_s.scaled(1 / 3600)))
    lost = interruptions(
        training_h.p50, hazards=hazards, save_s=around.save_s, restart_h=around.start_s.p50 / 3600
    )
    work_h = work_h.shifted(lost.checkpoint_h)
    idle_h = around.idle_s.scaled(1 / 3600)
    billed_h = added((work_h, idle_h))
    return Timeline(
        wall_clock_h=_independent(billed_h, added((lost.rework_h, lost.restart_h))),
        billed_mean_h=billed_h.p50 + lost.billed_mean_h,
        finish_h=_independent(work_h, added((lost.rework_h, lost.restart_h, lost.wait_h))),
        compute_h=work_h.p50,
        rework_h=lost.rework_h.p50,
        reprovision_h=lost.restart_h.p50,
        idle_h=idle_h.p50,
        interruptions=lost,
    )


def _independent(one: Quantiles, other: Quantiles) -> Quantiles:
    """Sum of two quantities that have nothing to do with each other: distances from the median in quadrature."""
    p50 = one.p50 + other.p50
    low = math.hypot(one.p50 - one.p10, other.p50 - other.p10)
    return Quantiles(max(p50 - low, one.p10), p50, p50 + math.hypot(one.p90 - one.p50, other.p90 - other.p50))
