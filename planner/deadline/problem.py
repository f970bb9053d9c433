"""The problem that a value table solves, and the grid it is solved on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

#: Parts of a step that work and slack are counted in.
PARTS = 2
#: Steps to choose from: the finest whose grid is small enough to be solved in about a second.
_STEPS_H = (1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)
_MOST_CELLS = 170_000
#: Finer ones for short jobs, of which a step should be an eighth, in so many steps at most.
_SHORT_STEPS_H = (1 / 360, 1 / 120, 1 / 60, 1 / 30, 1 / 12)
_SHORT_H, _EIGHTH, _MOST_STEPS = 2.0, 8, 600
#: Slack beyond this is worth nothing more.
_MOST_SLACK_H = 96.0


@dataclass(frozen=True)
class Problem:
    """All that the values depend on besides the models.

    Attributes:
        work_steps: Most work, in steps.
        slack_parts: Most slack, in parts.
        step_h: Length of a step.
        parts: Parts of a step.
        overhead_steps: Start-up of a machine, in steps (may be fractional).
        spot_price: Spot price over the on-demand price.
        tick_steps: Time that is billed as a whole, in steps.
        own_loss_per_h: Rates at which our spot machine is lost while the market stays, by stage of its region's spell;
            (0,) for a single region.
        own_stage_h: Mean hours of each stage but the last.
    """

    work_steps: int
    slack_parts: int
    step_h: float
    parts: int
    overhead_steps: float
    spot_price: float
    tick_steps: float
    own_loss_per_h: tuple[float, ...] = (0.0,)
    own_stage_h: tuple[float, ...] = ()

    @cached_property
    def steps(self) -> int:
        """Longest time left, in steps."""
        return self.work_steps + -(-self.slack_parts // self.parts)

    @cached_property
    def levels(self) -> int:
        """Steps after which a machine started now is ready, at least 1."""
        return max(1, math.ceil(self.overhead_steps - 1e-9))

    @cached_property
    def machines(self) -> int:
        """States of a spot machine: the levels of its start, the last of which is the first stage, and later stages."""
        return self.levels + len(self.own_stage_h)

    def slacks(self, n: int) -> tuple[int, int]:
        """First slack that can be met with `n` steps left, and the one after the last."""
        most_steps = self.work_steps + self.levels  # on-demand counts its start-up as work
        return max(0, (n - most_steps) * self.parts), min(self.slack_parts, (n + 1) * self.parts) + 1

    def covers(self, other: Problem) -> bool:
        """Whether its values are those of the other one too: they do not depend on where a job begins."""
        larger = self.work_steps >= other.work_steps and self.slack_parts >= other.slack_parts
        return larger and replace(other, work_steps=self.work_steps, slack_parts=self.slack_parts) == self


def posed(
    work_h: float,
    deadline_h: float,
    overhead_h: float,
    tick_h: float,
    spot_price: float,
    own_loss_per_h: tuple[float, ...] = (0.0,),
    own_stage_h: tuple[float, ...] = (),
) -> Problem:
    """The problem on the finest grid that is quick to solve: 10 minutes up to about 48 h of work in 92 h.

    Jobs of less than two hours have finer steps.

    >>> posed(0.2, 0.5, 0.1, 1 / 360, 0.3).step_h * 60
    1.0
    >>> posed(48, 52, 0.2, 1 / 6, 0.3).step_h * 60
    10.0
    >>> posed(200, 240, 0.2, 1 / 6, 0.3).step_h * 60
    20.0
    """
    slack_h = min(max(deadline_h - work_h, 0.0), _MOST_SLACK_H)
    for step_h in (*_short_steps_h(work_h, slack_h, overhead_h), *_STEPS_H):
        work_steps = math.ceil(work_h / step_h) + 1
        slack_parts = math.ceil(slack_h / step_h * PARTS) + 2
        if work_steps * slack_parts <= _MOST_CELLS:
            break
    return Problem(
        work_steps=work_steps,
        slack_parts=slack_parts,
        step_h=step_h,
        parts=PARTS,
        overhead_steps=overhead_h / step_h,
        spot_price=spot_price,
        tick_steps=min(1.0, tick_h / step_h),
        own_loss_per_h=own_loss_per_h,
        own_stage_h=own_stage_h,
    )


def _short_steps_h(work_h: float, slack_h: float, overhead_h: float) -> list[float]:
    """Steps below 10 minutes that suit a short job."""
    if work_h >= _SHORT_H:
        return []
    fits = [step_h for step_h in _SHORT_STEPS_H if (work_h + slack_h) / step_h <= _MOST_STEPS]
    return [step_h for step_h in fits if step_h >= max(work_h, overhead_h) / _EIGHTH / 2][:1]
