"""From step time to billed hours: training, overheads and interruptions of one fit in one market."""

from __future__ import annotations

from dataclasses import dataclass

from planner.overheads import Overheads
from planner.quantiles import Quantiles
from planner.risk import Interruptions, interruptions

_NEVER = Quantiles(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Hours of one run.

    Attributes:
        wall_clock_h: Billed, machine start to release; p50 is the sum of the four lines below.
        finish_h: From the first machine's start to the result, with unbilled waits for capacity.
        compute_h: Training, evaluation, checkpoints and the first start.
        rework_h: Steps computed twice after interruptions.
        reprovision_h: Starting again after interruptions.
        idle_h: Between the end of the job and the release of the machine.
        interruptions: The terms behind it.
    """

    wall_clock_h: Quantiles
    finish_h: Quantiles
    compute_h: float
    rework_h: float
    reprovision_h: float
    idle_h: float
    interruptions: Interruptions


def timeline(
    steps: int, step_time_s: Quantiles, around: Overheads, hazard_per_h: Quantiles | None
) -> Timeline:
    """Billed hours and finish of one run.

    Quantiles of the parts are added: steps, overheads and interruptions share their causes (a slow machine is slow in
    all), so the sum's interval is slightly too wide rather than too narrow.

    Args:
        steps: Optimizer steps.
        step_time_s: Seconds of one.
        around: Overheads.
        hazard_per_h: Interruptions per hour, None where there are none (on demand, own machine).
    """
    training_h = step_time_s.scaled(steps / 3600)
    work_h = _add(training_h, around.once_s.scaled(1 / 3600))
    lost = interruptions(
        training_h,
        hazard_per_h=hazard_per_h or _NEVER,
        save_s=around.save_s,
        restart_h=around.start_s.scaled(1 / 3600),
    )
    work_h = work_h.shifted(lost.checkpoint_h)
    idle_h = around.idle_s.scaled(1 / 3600)
    result_h = _add(work_h, lost.rework_h, lost.restart_h)
    return Timeline(
        wall_clock_h=_add(result_h, idle_h),
        finish_h=_add(result_h, lost.wait_h),
        compute_h=work_h.p50,
        rework_h=lost.rework_h.p50,
        reprovision_h=lost.restart_h.p50,
        idle_h=idle_h.p50,
        interruptions=lost,
    )


def _add(*parts: Quantiles) -> Quantiles:
    return Quantiles(sum(p.p10 for p in parts), sum(p.p50 for p in parts), sum(p.p90 for p in parts))
