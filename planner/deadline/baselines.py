"""Simple policies on one region (or many merged into one), to compare with."""

from __future__ import annotations

from typing import Literal

from planner.deadline.placement import Placement
from planner.deadline.replay import DeadlineJob

Rule = Literal["on_demand", "spot_else_on_demand", "greedy", "uniform_progress"]

_SPOT, _ON_DEMAND = Placement(0, "spot"), Placement(0, "on_demand")


class RulePolicy:
    """On-demand only; spot, else on-demand at once; spot, else wait (greedy); or Uniform Progress.

    Greedy is what managed spot jobs do. Uniform Progress (Wu et al., NSDI 2024) waits only while it is ahead of the
    straight line from start to deadline and leaves on-demand two overheads ahead of it. All but the first end on
    on-demand once nothing else is surely in time.
    """

    def __init__(self, rule: Rule, job: DeadlineJob, tick_s: int) -> None:
        """Prepare for a job on one region."""
        self._rule, self._job, self._tick_s = rule, job, tick_s
        self._ticks = job.deadline_s // tick_s
        self._sealed = rule == "on_demand"

    def decide(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: list[bool | None],
        spot_usd_per_h: list[float],
        current: Placement | None,
        overhead_left_h: float,
    ) -> Placement | None:
        """Where to run for the tick that starts now."""
        work_s, tick = round(remaining_work_h * 3600), round(elapsed_h * 3600 / self._tick_s)
        up = bool(available[0])
        left = self._ticks - tick
        choice = self._wish(work_s, tick, up, current)
        if self._rule != "on_demand" and self._needed(work_s, 1) >= left:
            if current == _SPOT and overhead_left_h == 0:
                return _SPOT
            self._sealed = True
        if self._sealed and self._rule != "uniform_progress":
            return _ON_DEMAND
        return _ON_DEMAND if self._needed(work_s, 1) >= left else choice

    def _wish(self, work_s: int, tick: int, up: bool, current: Placement | None) -> Placement | None:
        """What the rule does before the deadline presses."""
        if self._rule == "on_demand":
            return _ON_DEMAND
        if self._rule == "spot_else_on_demand":
            return _SPOT if up else _ON_DEMAND
        if self._rule == "greedy":
            return _SPOT if up else None
        return self._uniform(work_s, tick, up, current)

    def _uniform(self, work_s: int, tick: int, up: bool, current: Placement | None) -> Placement | None:
        done_s, job = self._job.work_s - work_s, self._job
        if self._needed(work_s, 2) >= self._ticks - tick and current != _SPOT:
            return _ON_DEMAND
        line_s = tick * self._tick_s + 2 * job.overhead_s
        if current == _ON_DEMAND and (not up or line_s * job.work_s >= done_s * self._ticks * self._tick_s):
            return _ON_DEMAND
        if up:
            return _SPOT
        return _ON_DEMAND if done_s * self._ticks < tick * job.work_s else None

    def _needed(self, work_s: int, overheads: int) -> int:
        """Ticks for the work left and this many starts."""
        return -(-(work_s + overheads * self._job.overhead_s) // self._tick_s)
