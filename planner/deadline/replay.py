"""One job on one record of the spot market, tick by tick: what a policy would have cost.

Time is whole seconds. A launch (a change of region or market, or after a preemption) bills `overhead_s` without
progress; work survives; whole ticks are billed; the job is late if work is left after the deadline's whole ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from planner.deadline.models import FloatArray
from planner.deadline.placement import Placement


@dataclass(frozen=True, eq=False)
class Market:
    """A record of the spot market.

    Attributes:
        tick_s: Length of a tick.
        up: Whether a region has spot, [tick, region].
        spot_usd_per_h: Spot price, [tick, region].
        on_demand_usd_per_h: On-demand price by region.
    """

    tick_s: int
    up: npt.NDArray[np.bool_]
    spot_usd_per_h: FloatArray
    on_demand_usd_per_h: FloatArray


@dataclass(frozen=True, slots=True)
class DeadlineJob:
    """A job with a deadline: its work, the time to start a machine, and the time it has, in seconds."""

    work_s: int
    overhead_s: int
    deadline_s: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay came to.

    Attributes:
        cost_usd: Money paid.
        finish_s: End of the last tick used.
        late: Whether work was left at the deadline.
        launches: Machines started.
        spot_s: Time billed on spot.
        on_demand_s: Time billed on on-demand.
    """

    cost_usd: float
    finish_s: int
    late: bool
    launches: int
    spot_s: int
    on_demand_s: int


class Policy(Protocol):
    """Anything that decides once a tick; see `DeadlinePolicy.decide`."""

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


class _Machine:
    """The job's work and machine while it is replayed."""

    def __init__(self, job: DeadlineJob) -> None:
        self.work_s, self.overhead_s = job.work_s, job.overhead_s
        self.place: Placement | None = None
        self.start_s = self.launches = self.spot_s = self.on_demand_s = 0
        self.cost_usd = 0.0

    def lose(self, up: npt.NDArray[np.bool_]) -> None:
        """Preempts a spot machine whose region has none left."""
        if self.place is not None and self.place.market == "spot" and not up[self.place.region]:
            self.place, self.start_s = None, 0

    def run(self, place: Placement | None, usd_per_h: float, tick_s: int) -> None:
        """Spends a tick."""
        if place is not None:
            if place != self.place:
                self.start_s, self.launches = self.overhead_s, self.launches + 1
            started_s = min(self.start_s, tick_s)
            self.start_s -= started_s
            self.work_s -= tick_s - started_s
            self.cost_usd += usd_per_h * tick_s / 3600
            self.spot_s += tick_s * (place.market == "spot")
            self.on_demand_s += tick_s * (place.market == "on_demand")
        self.place = place


def replay(job: DeadlineJob, market: Market, policy: Policy) -> Outcome:
    """Run `policy` on the record; it sees one tick at a time. A spot launch where there is none wastes the tick."""
    ticks, tick_s = job.deadline_s // market.tick_s, market.tick_s
    machine = _Machine(job)
    tick = 0
    while tick < ticks and machine.work_s > 0:
        up, spot = market.up[tick], market.spot_usd_per_h[tick]
        machine.lose(up)
        place = policy.decide(
            tick * tick_s / 3600,
            machine.work_s / 3600,
            up.tolist(),
            spot.tolist(),
            machine.place,
            machine.start_s / 3600,
        )
        if place is not None and place.market == "spot" and not up[place.region]:
            place = None
        price = 0.0
        if place is not None:
            price = float((spot if place.market == "spot" else market.on_demand_usd_per_h)[place.region])
        machine.run(place, price, tick_s)
        tick += 1
    return Outcome(
        cost_usd=machine.cost_usd,
        finish_s=tick * tick_s,
        late=machine.work_s > 0,
        launches=machine.launches,
        spot_s=machine.spot_s,
        on_demand_s=machine.on_demand_s,
    )


def merged(market: Market) -> Market:
    """The market as one region that is up where any is, at the cheapest price there: moving is free."""
    cheapest = np.where(market.up, market.spot_usd_per_h, np.inf).min(axis=1, keepdims=True)
    up = np.asarray(market.up.any(axis=1, keepdims=True))
    listed = market.spot_usd_per_h.min(axis=1, keepdims=True)
    on_demand = market.on_demand_usd_per_h.min(keepdims=True)
    return Market(market.tick_s, up, np.where(up, cheapest, listed), on_demand)
