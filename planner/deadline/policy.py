"""The deadline policy: wait, spot (where) or on-demand, once a tick; never late while on-demand can be had.

Each zone is believed to follow one of a few semi-Markov models; a value table holds, for each model, the least
expected cost from any state; the choice is the cheapest under the mixture. Several regions count as one market that is
up where any of them is; a region's own spell corrects the market's. A hard rule on top allows a choice only if
on-demand from scratch would still be in time afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from planner.deadline.belief import ZoneBelief, ZoneBeliefs
from planner.deadline.decision import Decision, Option
from planner.deadline.given import past_states, usd_of
from planner.deadline.loss_factors import loss_factors
from planner.deadline.models import SpotModels, shipped_models, with_losses
from planner.deadline.outlook import Outlook
from planner.deadline.own_loss import OWN_STAGE_H, kept, own_losses_per_h, stage
from planner.deadline.placement import Placement
from planner.deadline.problem import posed
from planner.deadline.shelf import table_for
from planner.deadline.tables import USUAL_BYTES, ValueTable

_EPS = 1e-7
#: A table is made for one spot price; a new one when the price has been further off than this for as long as this.
_PRICE_DRIFT, _PRICE_PATIENCE_H = 0.1, 1.0
#: Prices are rounded up to a grid of this ratio, from this share of the on-demand price on.
_PRICE_STEP, _LEAST_PRICE = 0.04, 0.05
#: Of equal costs the earlier finish wins: what an hour without progress costs besides, over the on-demand price.
TIME_SHARE = 0.005
#: The same of a launched run, where somebody waits: an hour sooner is worth a tenth of an hour on demand.
LIVE_TIME_SHARE = 0.1
#: Spot prices over the on-demand price beyond this are all the same; the on-demand price is at least so much.
_DEAREST, _LEAST_USD = 100.0, 1e-9
#: Where on-demand cannot be had anywhere, spot is valued as if it were so many times as dear.
_NOWHERE = 3.0
#: A deadline further off is none.
_FAR_H = 1e6
#: Hours over which a region's own spell and price are compared with the market's.
_OUTLOOK_H = 4.0


def on_grid(price: float) -> float:
    """The price, up to the next step of the grid, so that jobs and hours whose prices differ little share a table.

    >>> [round(on_grid(price), 3) for price in (0.3, 0.301, 0.31)]
    [0.304, 0.304, 0.316]
    """
    steps = math.ceil(math.log(max(price, _LEAST_PRICE) / _LEAST_PRICE) / math.log1p(_PRICE_STEP) - 1e-9)
    return float(_LEAST_PRICE * (1 + _PRICE_STEP) ** steps)


class _Made(NamedTuple):
    """A choice and what it was made from; told in full (`Decision`) only to who asks."""

    chosen: Option
    options: list[Option]
    left: int
    work_h: float
    again_h: float
    up: list[bool | None]


class DeadlinePolicy:
    """Decides for one job; one object a job, asked once a tick."""

    def __init__(
        self,
        work_h: float,
        deadline_h: float,
        restart_overhead_h: float,
        tick_h: float,
        on_demand_usd_per_h: Sequence[float],
        history: Iterable[Iterable[bool | float | None]] | None = None,
        seed: int = 0,
        *,
        models: SpotModels | None = None,
        most_bytes: int = USUAL_BYTES,
        time_share: float = TIME_SHARE,
        losses: Sequence[float | None] | None = None,
    ) -> None:
        """Prepare for a job.

        Args:
            work_h: Hours of work on a running machine.
            deadline_h: Hours from now; whole ticks of it count.
            restart_overhead_h: Billed hours from a launch to the first progress.
            tick_h: Hours between decisions.
            on_demand_usd_per_h: Price by region; infinite or NaN where on-demand cannot be had.
            history: 0/1 spot capacity of past ticks by region, oldest first, all up to now; None was not probed.
            seed: Kept for callers that give one; the policy draws nothing at random.
            models: Bank of spot models; None is the shipped one.
            time_share: What an hour without progress costs besides, over the on-demand price.
            most_bytes: A value table up to this size is kept in full; a larger one is made again in parts.
            losses: How many times as often as the models say spot is lost, by region, as of `loss_factors`.
        """
        self._losses = loss_factors(losses, len(on_demand_usd_per_h))
        bank = models or shipped_models()
        self._models, self._most_bytes = with_losses(bank, self._losses.market), most_bytes
        self._time_share = time_share
        self._work_h, self._overhead_h = float(work_h), float(restart_overhead_h)
        self._tick_h = float(tick_h)
        self._ticks = int(min(float(deadline_h), _FAR_H) / self._tick_h + 1e-9)
        self._on_demand = [usd_of(price) for price in on_demand_usd_per_h]
        self._cheapest = int(np.argmin(self._on_demand))
        self._sold = math.isfinite(self._on_demand[self._cheapest])
        self._base_usd = max(self._on_demand[self._cheapest], _LEAST_USD) if self._sold else 1.0
        self._market = ZoneBelief(self._models, self._tick_h)
        regions = len(self._on_demand)
        by_region = self._losses.regions
        self._zones = ZoneBeliefs(bank, self._tick_h, regions, losses=by_region) if regions > 1 else None
        self._table: ValueTable | None = None
        self._table_price, self._off_price_h = 0.0, 0.0
        self._made: _Made | None = None
        for states in past_states(history if history is not None else (), regions):
            self._see(states)

    @property
    def price_memory(self) -> tuple[float, float]:
        """Relative price that the value table is made for (0: none yet), and for how many hours it has been off."""
        return self._table_price, self._off_price_h

    @price_memory.setter
    def price_memory(self, memory: tuple[float, float]) -> None:
        self._table_price, self._off_price_h = memory

    def decide(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: Sequence[bool | None],
        spot_usd_per_h: Sequence[float],
        current: Placement | None,
        overhead_left_h: float,
    ) -> Placement | None:
        """Choose for the tick that starts now; see `weigh`.

        Returns:
            Where to run for this tick; None is to wait.
        """
        made = self._choose(elapsed_h, remaining_work_h, available, spot_usd_per_h, current, overhead_left_h)
        return made.chosen.placement

    def weigh(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: Sequence[bool | None],
        spot_usd_per_h: Sequence[float],
        current: Placement | None,
        overhead_left_h: float,
        uncommitted_h: float = 0.0,
    ) -> Decision:
        """Choose for the tick that starts now, with what else was open.

        Args:
            elapsed_h: Hours since the start, a multiple of the tick.
            remaining_work_h: Work left.
            available: Whether each region has spot now; None if not probed.
            spot_usd_per_h: Spot price by region.
            current: Where the job runs; None if nowhere, as after a preemption.
            overhead_left_h: Start-up time left of the current machine.
            uncommitted_h: Work done there that no checkpoint has: whoever leaves, or loses the machine, does it again.
        """
        made = self._choose(
            elapsed_h,
            remaining_work_h,
            available,
            spot_usd_per_h,
            current,
            overhead_left_h,
            uncommitted_h,
        )
        return self._decision(made)

    def _choose(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: Sequence[bool | None],
        spot_usd_per_h: Sequence[float],
        current: Placement | None,
        overhead_left_h: float,
        uncommitted_h: float = 0.0,
    ) -> _Made:
        current = Placement(*current) if current is not None else None
        up = [current == (region, "spot") or state for region, state in enumerate(available)]
        self._see(up)
        left = self._ticks - round(float(elapsed_h) / self._tick_h)
        start_h = {current: float(overhead_left_h)}
        work_h = float(remaining_work_h)
        again_h = work_h + float(uncommitted_h)
        prices = self._relative(spot_usd_per_h, current)
        open_now = [state and price < math.inf for state, price in zip(up, prices, strict=True)]
        options = self._options(left, work_h, again_h, open_now, prices, current, start_h)
        chosen = min(options, key=lambda option: option.cost_usd + self._delay_usd(option.placement, start_h))
        self._made = _Made(chosen, options, left, work_h, again_h, up)
        return self._made

    @property
    def last(self) -> Decision | None:
        """The last decision, with what else was open; None before the first."""
        return None if self._made is None else self._decision(self._made)

    def explain(self) -> str:
        """The last decision in plain words, with the slack and the expected cost of each option."""
        decision = self.last
        return "No decision yet." if decision is None else decision.explain()

    def _decision(self, made: _Made) -> Decision:
        return Decision(
            chosen=made.chosen,
            options=tuple(made.options),
            time_left_h=made.left * self._tick_h,
            work_left_h=made.work_h,
            slack_h=(made.left - self._ticks_needed(made.again_h)) * self._tick_h,
            spot_regions=tuple(region for region, state in enumerate(made.up) if state),
            spell_h=self._market.age_h,
            next_hour=self._market.lasts(1.0),
        )

    def _see(self, up: Sequence[bool | None]) -> None:
        self._market.see(any(up) if any(up) or None not in up else None)
        if self._zones is not None:
            self._zones.see(up)

    def _relative(self, spot_usd_per_h: Sequence[float | None], current: Placement | None) -> list[float]:
        """Spot prices over the cheapest on-demand price; infinite, which nobody takes, where a price is unknown.

        What runs is not left for that: it is taken to cost what spot did before.
        """
        usd = [usd_of(price) for price in spot_usd_per_h]
        if not self._sold:
            self._base_usd = _NOWHERE * max([price for price in usd if 0 < price < math.inf], default=1.0)
        prices = [price / self._base_usd for price in usd]
        return [
            self._table_price or 1.0 if price == math.inf and current == (region, "spot") else price
            for region, price in enumerate(prices)
        ]

    def _options(
        self,
        left: int,
        work_h: float,
        again_h: float,
        up: Sequence[bool | None],
        prices: Sequence[float],
        current: Placement | None,
        start_h: dict[Placement | None, float],
    ) -> list[Option]:
        """Every allowed choice with its expected cost; on-demand always comes first.

        `work_h` is left where the job runs, `again_h` anywhere else and after a loss, of which the hard rule thinks.
        """
        base_usd = self._base_usd
        table = self._solved(prices, up, again_h)
        hold_h = max(table.problem.step_h, self._tick_h)
        view = Outlook(table, self._market, hold_h, left * self._tick_h, work_h)
        away = (
            view if again_h == work_h else Outlook(table, self._market, hold_h, left * self._tick_h, again_h)
        )
        options = []
        for place in self._on_demand_places(current, left, again_h):
            start = start_h.get(place, self._overhead_h)
            price = self._on_demand_usd(place.region) / base_usd
            todo_h, seen = (work_h, view) if place == current else (again_h, away)
            cost = price * self._bill(todo_h + start, hold_h) + seen.on_demand(start)
            cost += (price - 1) * max(0.0, min(todo_h, _OUTLOOK_H) - hold_h)
            options.append(Option(place, cost * base_usd))
        if self._in_time(again_h, left):
            options.append(Option(None, away.wait() * base_usd))
        now, then = self._stages(start_h, hold_h)
        corrections = self._corrections(view, prices, up, now, min(_OUTLOOK_H, work_h), hold_h)
        for region, state in enumerate(up):
            place = Placement(region, "spot")
            start = start_h.get(place, self._overhead_h)
            todo_h, seen = (work_h, view) if place == current else (again_h, away)
            done_h = max(0.0, self._tick_h - start)
            if state and (todo_h - done_h <= _EPS or self._in_time(again_h - done_h, left)):
                cost = prices[region] * self._bill(todo_h + start, hold_h) + seen.spot(start, then[region])
                options.append(Option(place, (cost + corrections[region]) * base_usd))
        return options

    def _stages(self, start_h: dict[Placement | None, float], hold_h: float) -> tuple[list[int], list[int]]:
        """Stage of each region's spell, now for a machine that is ready by the end of the step, and at that end."""
        if self._zones is None:
            return [0], [0]
        spells_h = self._zones.ages_h()
        starts_h = [
            start_h.get(Placement(region, "spot"), self._overhead_h) for region in range(len(spells_h))
        ]
        now = [
            stage(spell_h) if start <= hold_h else 0
            for spell_h, start in zip(spells_h, starts_h, strict=True)
        ]
        return now, [stage(spell_h + hold_h) for spell_h in spells_h]

    def _corrections(
        self,
        view: Outlook,
        prices: Sequence[float],
        up: Sequence[bool | None],
        stages: Sequence[int],
        horizon_h: float,
        hold_h: float,
    ) -> list[float]:
        """How the cost of spot in each region differs from the market's, by its own spell and price."""
        premiums = [max(0.0, price - self._table_price - 0.02) for price in prices]
        if not any(up) or (self._zones is None and premiums[0] == 0):
            return [0.0] * len(up)
        market_lasts = self._market.survival(horizon_h)
        if self._zones is None:
            lasts, gains = [market_lasts], [0.0]
        else:
            lasts = self._zones.survival(horizon_h)
            gains = [
                (market_lasts * kept(at, horizon_h, self._losses.market) - one) * view.loss(at)
                for at, one in zip(stages, lasts, strict=True)
            ]
        return [
            gain + premium * max(0.0, 0.5 * (1 + one) * horizon_h - hold_h)
            if premium < math.inf
            else math.inf
            for gain, premium, one in zip(gains, premiums, lasts, strict=True)
        ]

    def _delay_usd(self, place: Placement | None, start_h: dict[Placement | None, float]) -> float:
        """Price of the time until there is progress: of a start, and of a step without a machine before it."""
        hold_h = max(self._tick_h, 0.0 if self._table is None else self._table.problem.step_h)
        idle_h = hold_h + self._overhead_h if place is None else start_h.get(place, self._overhead_h)
        return self._time_share * self._base_usd * idle_h

    def _on_demand_usd(self, region: int) -> float:
        """Price of on-demand there; where it is unknown and yet runs, the cheapest."""
        usd = self._on_demand[region] if region < len(self._on_demand) else math.inf
        return usd if math.isfinite(usd) else self._base_usd

    def _on_demand_places(self, current: Placement | None, left: int, work_h: float) -> list[Placement]:
        """Where on-demand is worth a thought: where it runs, and where it is cheapest if moving is in time."""
        sold = [Placement(self._cheapest, "on_demand")] if self._sold else []
        if current is None or current.market != "on_demand" or current in sold:
            return sold
        return [current, *sold] if self._in_time(work_h, left + 1) else [current]

    def _bill(self, busy_h: float, hold_h: float) -> float:
        """Billed hours of the next step: whole ticks, no longer than the job."""
        return min(hold_h, math.ceil(busy_h / self._tick_h - 1e-6) * self._tick_h)

    def _ticks_needed(self, work_h: float) -> int:
        """Ticks that on-demand from scratch takes."""
        return math.ceil((work_h + self._overhead_h) / self._tick_h - _EPS)

    def _in_time(self, work_h: float, left: int) -> bool:
        """The hard rule: on-demand from scratch still ends in time if `work_h` are left after this tick.

        Without on-demand there is nothing to go back to, and no rule.
        """
        return not self._sold or self._ticks_needed(work_h) <= left - 1

    def _solved(self, prices: Sequence[float], up: Sequence[bool | None], work_h: float) -> ValueTable:
        """The value table; made anew where the price has moved or the work has grown beyond it."""
        open_now = [price for price, state in zip(prices, up, strict=True) if state]
        known = open_now or [price for price in prices if price < math.inf]
        price = on_grid(min(_DEAREST, min(known, default=1.0)))
        off = bool(open_now) and abs(price / (self._table_price or price) - 1) > _PRICE_DRIFT
        self._off_price_h = self._off_price_h + self._tick_h if off else 0.0
        moved = self._off_price_h > _PRICE_PATIENCE_H
        if moved or self._table_price == 0:
            self._table_price, self._off_price_h = price, 0.0
            self._table = None
        if self._table is None or work_h > self._work_h + _EPS:
            self._work_h = max(work_h, self._work_h)
            own = (own_losses_per_h(self._losses.market), OWN_STAGE_H) if len(prices) > 1 else ()
            deadline_h = self._ticks * self._tick_h
            problem = posed(self._work_h, deadline_h, self._overhead_h, self._tick_h, self._table_price, *own)
            self._table = table_for(problem, self._models, self._most_bytes)
        return self._table
