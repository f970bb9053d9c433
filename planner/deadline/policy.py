"""The deadline policy: wait, spot (where) or on-demand, once a tick; never late while on-demand can be had.

Each zone is believed to follow one of a few semi-Markov models; a value table holds, for each model, the least
expected cost from any state; the choice is the cheapest under the mixture. A hard rule on top allows a choice only if
on-demand from scratch would still be in time afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from planner.deadline.belief import ZoneBelief
from planner.deadline.models import DOWN, UP, FloatArray, SpotModels, shipped_models
from planner.deadline.placement import Placement
from planner.deadline.tables import Problem, Values, ValueTable

_EPS = 1e-7
#: Markets in the table besides the levels of a spot machine, which count from 0.
_NONE, _ON_DEMAND = -2, -1
_PARTS = 2
_STEP_H = 1 / 6
_OWN_LOSS = 1 / 3
_PREMIUM_HORIZON_H = 4.0


@dataclass(frozen=True, slots=True)
class Option:
    """One choice that was open, with its expected cost.

    Attributes:
        placement: Where; None is to wait without a machine.
        cost_h: Expected cost to the end, in hours at the cheapest on-demand price.
    """

    placement: Placement | None
    cost_h: float


@lru_cache(maxsize=4)
def _table(problem: Problem, models: SpotModels) -> ValueTable:
    return ValueTable(problem, models)


class DeadlinePolicy:
    """Decides for one job; one object a job, asked once a tick."""

    def __init__(
        self,
        work_h: float,
        deadline_h: float,
        restart_overhead_h: float,
        tick_h: float,
        on_demand_usd_per_h: Sequence[float],
        history: Sequence[npt.NDArray[np.int_]] | None = None,
        seed: int = 0,
        *,
        models: SpotModels | None = None,
    ) -> None:
        """Prepare for a job.

        Args:
            work_h: Hours of work on a running machine.
            deadline_h: Hours from now; whole ticks of it count.
            restart_overhead_h: Billed hours from a launch to the first progress.
            tick_h: Hours between decisions.
            on_demand_usd_per_h: Price by region.
            history: 0/1 spot capacity of past ticks by region, same length, oldest first.
            seed: Kept for callers that give one; the policy draws nothing at random.
            models: Bank of spot models; None is the shipped one.
        """
        self._models = models or shipped_models()
        self._work_h, self._overhead_h, self._tick_h = work_h, restart_overhead_h, tick_h
        self._ticks = int(deadline_h / tick_h + 1e-9)
        self._on_demand = [float(price) for price in on_demand_usd_per_h]
        self._cheapest = int(np.argmin(self._on_demand))
        self._hold_h = max(_STEP_H, tick_h)
        self._zones = [ZoneBelief(self._models, tick_h) for _ in self._on_demand]
        many = len(self._on_demand) > 1
        self._market = ZoneBelief(self._models, tick_h) if many else self._zones[0]
        self._table: ValueTable | None = None
        for states in zip(*(history or ()), strict=True):
            self._see([bool(state) for state in states])

    def decide(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: Sequence[bool | None],
        spot_usd_per_h: Sequence[float],
        current: Placement | None,
        overhead_left_h: float,
    ) -> Placement | None:
        """Choose for the tick that starts now.

        Args:
            elapsed_h: Hours since the start, a multiple of the tick.
            remaining_work_h: Work left.
            available: Whether each region has spot now; None if not probed.
            spot_usd_per_h: Spot price by region.
            current: Where the job runs; None if nowhere, as after a preemption.
            overhead_left_h: Start-up time left of the current machine.

        Returns:
            Where to run for this tick; None is to wait.
        """
        up = list(available)
        if current is not None and current.market == "spot":
            up[current.region] = True
        self._see(up)
        left = self._ticks - round(elapsed_h / self._tick_h)
        options = self._options(left, remaining_work_h, up, spot_usd_per_h, current, overhead_left_h)
        self.options = options
        return min(options, key=lambda option: option.cost_h).placement

    def _see(self, up: Sequence[bool | None]) -> None:
        for zone, state in zip(self._zones, up, strict=True):
            zone.see(state)
        if self._market is not self._zones[0]:
            self._market.see(any(up) if any(up) or None not in up else None)

    def _options(
        self,
        left: int,
        work_h: float,
        up: Sequence[bool | None],
        spot_usd_per_h: Sequence[float],
        current: Placement | None,
        overhead_left_h: float,
    ) -> list[Option]:
        """Every allowed choice with its expected cost; on-demand always comes first."""
        base = self._on_demand[self._cheapest]
        prices = [price / base for price in spot_usd_per_h]
        view = _View(self._value_table(prices, up), self._market, self._hold_h, left * self._tick_h)
        kept = current if current is not None and current.market == "on_demand" else None
        place = kept or Placement(self._cheapest, "on_demand")
        start_h = overhead_left_h if kept else self._overhead_h
        options = [Option(place, self._bill(work_h + start_h) + view.on_demand(work_h, start_h))]
        if self._in_time(work_h, left):
            options.append(Option(None, view.wait(work_h)))
        candidates: list[tuple[float, int, float]] = []
        for region, state in enumerate(up):
            held = current is not None and current == (region, "spot")
            start_h = overhead_left_h if held else self._overhead_h
            after_h = work_h - max(0.0, self._tick_h - start_h)
            if not state or (after_h > _EPS and not self._in_time(after_h, left)):
                continue
            candidates.append(
                (self._spot_cost(view, region, prices[region], work_h, start_h, True), region, start_h)
            )
        if candidates:
            cost, region, start_h = min(candidates)
            if len(self._zones) > 1:
                cost = self._spot_cost(view, region, prices[region], work_h, start_h, False)
            options.append(Option(Placement(region, "spot"), cost))
        return options

    def _spot_cost(
        self, view: _View, region: int, price: float, work_h: float, start_h: float, own: bool
    ) -> float:
        """Expected cost of spot in a region that has it; `own`: with the region's own hazard."""
        cost = price * self._bill(work_h + start_h)
        if len(self._zones) == 1:
            return cost + view.spot(work_h, start_h, None)
        hazard = self._zones[region].hazard_per_h(UP)
        lost = 1 - math.exp(-hazard * self._hold_h) if own else None
        cost += view.spot(work_h, start_h, lost)
        stint_h = min(1 / max(hazard, 0.02), work_h, _PREMIUM_HORIZON_H)
        premium = max(0.0, price - view.table.problem.spot_price - 0.02)
        return cost + premium * max(0.0, stint_h - self._hold_h)

    def _bill(self, busy_h: float) -> float:
        """Billed hours of the next step: whole ticks, no longer than the job."""
        return min(self._hold_h, math.ceil(busy_h / self._tick_h - 1e-6) * self._tick_h)

    def _in_time(self, work_h: float, left: int) -> bool:
        """Whether on-demand from scratch still ends in time if `work_h` are left after this tick."""
        return math.ceil((work_h + self._overhead_h) / self._tick_h - _EPS) <= left - 1

    def _value_table(self, prices: Sequence[float], up: Sequence[bool | None]) -> ValueTable:
        if self._table is None:
            open_now = [price for price, state in zip(prices, up, strict=True) if state] or list(prices)
            horizon_h = self._ticks * self._tick_h
            slack_h = max(horizon_h - self._work_h, 0.0)
            problem = Problem(
                work_steps=math.ceil((self._work_h + self._overhead_h) / _STEP_H) + 2,
                slack_parts=math.ceil(slack_h / _STEP_H * _PARTS) + 2,
                step_h=_STEP_H,
                parts=_PARTS,
                overhead_steps=self._overhead_h / _STEP_H,
                spot_price=max(0.05, round(min(open_now), 3)),
                tick_steps=min(1.0, self._tick_h / _STEP_H),
                own_loss=_OWN_LOSS if len(prices) > 1 else 0.0,
            )
            self._table = _table(problem, self._models)
        return self._table


class _View:
    """The value table as seen from now: expected cost after holding a choice for the next step."""

    def __init__(self, table: ValueTable, belief: ZoneBelief, hold_h: float, left_h: float) -> None:
        self.table = table
        self._hold_h, self._belief = hold_h, belief
        p = table.problem
        self._steps = max(0.0, (left_h - hold_h) / p.step_h)
        self._state = belief.up or DOWN
        bucket = belief.bucket()
        self._bucket, self._older = bucket, belief.bucket(hold_h)
        rates = table.models.hazard_per_h[:, self._state, bucket]
        self._weights = belief.weights()
        self._ends = 1 - np.exp(-rates * hold_h)
        self._own = 1 - np.exp(-rates * p.own_loss * hold_h)

    def wait(self, work_h: float) -> float:
        return self._after(work_h, _NONE, _NONE)

    def on_demand(self, work_h: float, start_h: float) -> float:
        return self._after(max(0.0, work_h + start_h - self._hold_h), _ON_DEMAND, _ON_DEMAND)

    def spot(self, work_h: float, start_h: float, lost: float | None) -> float:
        """After a step on spot; `lost`: chance that our machine goes, None: as the table has it."""
        p = self.table.problem
        overhead_h = p.overhead_steps * p.step_h
        start_left_h = max(0.0, start_h - self._hold_h)
        work_h -= max(0.0, self._hold_h - start_h)
        level = max(1, p.levels - math.ceil(start_left_h / p.step_h - 1e-6))
        work_h = 0.0 if work_h <= 1e-9 else work_h + start_left_h - max(0.0, overhead_h - p.step_h * level)
        own = (
            self._own
            if lost is None
            else np.maximum(0.0, lost - self._ends) / np.maximum(1e-6, 1 - self._ends)
        )
        return self._after(work_h, level - 1, _NONE, own)

    def _after(self, work_h: float, market: int, fallback: int, own: FloatArray | None = None) -> float:
        """Mixture of the models: the spell goes on or ends (then `fallback`), or only our machine is lost (`own`)."""
        if work_h <= 0:
            return 0.0
        stays = self._look(work_h, self._state, self._older, market)
        if own is not None and own.any():
            stays = stays + own * (self._look(work_h, self._state, self._older, fallback) - stays)
        gone = self._look(work_h, 1 - self._state, 0, fallback)
        return float(self._weights @ (self._ends * gone + (1 - self._ends) * stays))

    def _look(self, work_h: float, state: int, bucket: int, market: int) -> FloatArray:
        """Value by model at real-valued time and slack, bilinear along lines of constant slack."""
        p = self.table.problem
        parts = work_h / p.step_h * p.parts
        steps = min(self._steps, (parts + p.slack_parts) / p.parts)
        slack = max(0.0, steps * p.parts - parts)
        n, z = min(int(steps), p.steps - 1), min(int(slack), p.slack_parts - 1)
        share_n, share_z = steps - n, slack - z
        low, high = (self._row(m, state, bucket, market, z) for m in (n, n + 1))
        corner = (1 - share_n) * low + share_n * high
        result: FloatArray = (1 - share_z) * corner[:, 0] + share_z * corner[:, 1]
        return result

    def _row(self, n: int, state: int, bucket: int, market: int, z: int) -> Values:
        layer = self.table.at(n)
        z = max(0, z - layer.first)
        if market >= 0:
            return layer.spot[:, market, bucket, z : z + 2]
        ages = layer.spot.shape[2]
        return layer.fixed[:, market - _NONE, state * ages + bucket, z : z + 2]
