"""A spec's best spot candidate, simulated: cost and finish on spot alone, on demand, and by the deadline policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.errors import NothingFitsError
from planner.estimate import Estimate
from planner.hazards import SpotHazards
from planner.money import usd_text
from planner.place_hazards import hazards_source, place_hazards
from planner.pricing import Priced
from planner.quantiles import Z90, Quantiles
from planner.ranking import SURE_ENOUGH, lateness
from planner.risk import probability_by
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from planner.deadline.simulate import DrawnJobs

#: Later starts that are looked at, as shares of the time to spare, and shapes of machines.
_DELAYS = (0.25, 0.5, 0.75, 1.0)
_SHAPES = 4
#: Factor that a drawn place's loss rates may be off, either way. With it the simulated p90 of cost and finish of a run
#: that waits for spot are those of the estimate (within 2 and 20 % of them); without it jobs are too often in time.
_DOUBT = 2.0
#: Longer jobs are not simulated: a tick would be longer than most spells of capacity.
LONGEST_H = 5000.0
#: The work's uncertainty is taken at so many equally likely values; of 16 the p10 and the p90 are one.
_WORKS = 16
WAYS = {
    "ours": "deadline policy",
    "spot": "spot only, waiting",
    "on_demand": "on-demand only",
}


@dataclass(frozen=True, eq=False)
class Way:
    """One way of running the job.

    Attributes:
        name: Key of `WAYS`.
        cost_usd: Of each simulated job.
        finish_h: Of each simulated job; infinite if it was not done in the time drawn.
    """

    name: str
    cost_usd: npt.NDArray[np.float64]
    finish_h: npt.NDArray[np.float64]

    def within(self, deadline_h: float | None) -> float | None:
        """Share of the jobs that were done in time."""
        return None if deadline_h is None else float((self.finish_h <= deadline_h + 1e-9).mean())


@dataclass(frozen=True, eq=False)
class Simulation:
    """What came out.

    Attributes:
        spot: The spot candidate.
        on_demand: The on-demand candidate beside it, None if there is none of this shape.
        deadline_h: Hours to the deadline, None if there is none.
        ways: Ways of running it.
        jobs: Simulated jobs.
        source: Of the hazards.
    """

    spot: Priced
    on_demand: Priced | None
    deadline_h: float | None
    ways: tuple[Way, ...]
    jobs: int
    source: str

    @property
    def machines(self) -> str:
        """Machines of the candidate, and where they are."""
        return _machines(self.spot)

    def document(self) -> dict[str, Any]:
        """Body of the `tuneplan/simulate` answer."""
        return {
            "jobs": self.jobs,
            "deadline_h": self.deadline_h,
            "hazards": self.source,
            "spot": self.machines,
            "on_demand": None if self.on_demand is None else _machines(self.on_demand),
            "ways": [
                {
                    "way": way.name,
                    "cost_usd": {k: usd_text(v) for k, v in _three(way.cost_usd).items()},
                    "mean_cost_usd": usd_text(float(way.cost_usd.mean())),
                    "finish_h": {k: _finite(v) for k, v in _three(way.finish_h).items()},
                    "p_finish_by_deadline": way.within(self.deadline_h),
                }
                for way in self.ways
            ],
        }

    def text(self) -> str:
        """For a person."""
        lines = [
            f"{self.jobs} simulated jobs on {self.machines}, spot at ${_usd_per_h(self.spot):.2f}/h",
            f"{'way':20} {'mean $':>9} {'$ p50':>9} {'$ p90':>9} {'h p50':>7} {'h p90':>7}"
            + ("" if self.deadline_h is None else "  in time"),
        ]
        for way in self.ways:
            usd, hours = _three(way.cost_usd), _three(way.finish_h)
            sure = way.within(self.deadline_h)
            lines.append(
                f"{WAYS[way.name]:20} {way.cost_usd.mean():9.2f} {usd['p50']:9.2f} {usd['p90']:9.2f} "
                f"{_hours(hours['p50'])} {_hours(hours['p90'])}" + ("" if sure is None else f"  {sure:7.1%}")
            )
        if self.on_demand is None:
            lines.append("no on-demand offer of this shape: a deadline cannot be made sure")
        else:
            lines.append(f"on demand: {_machines(self.on_demand)}, ${_usd_per_h(self.on_demand):.2f}/h")
        lines.append(f"hazards: {self.source}")
        return "\n".join(lines)


def simulate_estimate(
    estimate: Estimate, jobs: int, seed: int, told: Callable[[int], None] = lambda _: None
) -> Simulation:
    """Simulate the best spot candidate, with on-demand machines of the same shape beside it.

    The first start finds a machine; the zone's later capacity is drawn from its hazards; step time is uncertain as in
    the estimate. `told` is called with the number of jobs that are done.

    Raises:
        NothingFitsError: There is no spot candidate.
        UsageError: The job is longer than `LONGEST_H`.
    """
    from planner.deadline.simulate import monte_carlo

    spot = next((item for item in estimate.priced if item.offer.market == "spot"), None)
    if spot is None:
        raise NothingFitsError("no spot candidate to simulate", hint="look at `plan estimate --why`")
    on_demand = on_demand_beside(estimate.priced, spot)
    drawn, hazards = _drawn(estimate, spot, on_demand)
    if max(drawn.work_h) > LONGEST_H:
        raise UsageError(
            f"a job of {max(drawn.work_h):,.0f} h (p90) is too long to simulate: {LONGEST_H:,.0f} h at most",
            hint="`plan estimate` prices it; more or faster GPUs (--gpu, --count) make it shorter",
        )
    found = monte_carlo(drawn, hazards, jobs, seed, doubt=_DOUBT, told=told)
    ways = tuple(Way(name, *found[name][:2]) for name in WAYS if name in found)
    source = hazards_source(estimate.question, spot.offer, spot.nodes)
    return Simulation(spot, on_demand, drawn.deadline_h, ways, jobs, source)


class Start(NamedTuple):
    """The policy's mix of spot and on-demand, from one start.

    Attributes:
        delay_h: Hours from now to the start.
        mean_usd: Mean cost.
        p90_usd: 90 % quantile of the cost.
        spot_share: Of the billed hours.
        p_in_time: Share of the jobs that were done by the deadline.
    """

    delay_h: float
    mean_usd: float
    p90_usd: float
    spot_share: float
    p_in_time: float


class Mix(NamedTuple):
    """Machines of one shape, on spot as long as time allows, then on demand.

    Attributes:
        spot: The spot candidate.
        on_demand: The cheapest on demand of this shape.
        starts: From now to the latest start that on-demand can keep; now alone where there is no later one.
    """

    spot: Priced
    on_demand: Priced
    starts: tuple[Start, ...]

    @property
    def is_sure(self) -> bool:
        """Whether it is in time often enough if it is started now."""
        return self.starts[0].p_in_time >= SURE_ENOUGH


def cheapest_mix(estimate: Estimate, items: Sequence[Priced], jobs: int, seed: int) -> Mix | None:
    """The mix that is in time at the least mean cost, with what a later start costs; else the likeliest.

    Looks at the shapes whose spot machines cost least where on-demand alone is sure enough, and at the spot machines
    that suit the deadline best by themselves. None where there is no spot, no on-demand of the same shape, no chance to
    be in time, or the job is longer than `LONGEST_H`.
    """
    deadline_h = estimate.question.goal.deadline_h
    if deadline_h is None:
        return None
    found = []
    for spot, on_demand in _pairs(items, deadline_h):
        drawn, hazards = _drawn(estimate, spot, on_demand)
        if max(drawn.work_h) <= LONGEST_H:
            now = _start(drawn, hazards, 0.0, jobs, seed)
            found += [] if now is None else [(now, spot, on_demand, drawn, hazards)]
    if not found:
        return None
    now, spot, on_demand, drawn, hazards = min(
        found, key=lambda one: (-min(one[0].p_in_time, SURE_ENOUGH), one[0].mean_usd)
    )
    slack_h = _slack_h(drawn, deadline_h)
    later = [_start(drawn, hazards, share * slack_h, jobs, seed) for share in _DELAYS if slack_h > 0]
    return Mix(spot, on_demand, (now, *(start for start in later if start is not None)))


def _pairs(items: Sequence[Priced], deadline_h: float) -> list[tuple[Priced, Priced]]:
    """Spot machines worth a simulation, each with the cheapest on-demand machines of its shape."""
    spots = [item for item in items if item.offer.market == "spot"]
    if not spots:
        return []
    pairs: list[tuple[Priced, Priced]] = []
    best = min(spots, key=lambda item: (*lateness(item, deadline_h), item.expected_usd))
    for spot in (best, *sorted(spots, key=lambda item: item.expected_usd)):
        if all(_shape(spot) != _shape(other) for other, _ in pairs):
            on_demand = on_demand_beside(items, spot)
            if on_demand is not None and (
                spot is best or probability_by(on_demand.finish_h, deadline_h) >= SURE_ENOUGH
            ):
                pairs.append((spot, on_demand))
        if len(pairs) == _SHAPES:
            break
    return pairs


def _slack_h(drawn: DrawnJobs, deadline_h: float) -> float:
    """Hours that the start may be put off while on-demand is in time with the longest work, whole ticks considered."""
    from planner.deadline.simulate import tick_of

    return deadline_h - max(drawn.work_h) - drawn.restart_h - tick_of(drawn) / 3600


def _start(drawn: DrawnJobs, hazards: SpotHazards, delay_h: float, jobs: int, seed: int) -> Start | None:
    """The policy from a start so much later; None if not even the shortest work could be in time."""
    from planner.deadline.simulate import monte_carlo

    left_h = (drawn.deadline_h or 0.0) - delay_h
    later = replace(drawn, deadline_h=left_h)
    ours = monte_carlo(later, hazards, jobs, seed, only="ours", doubt=_DOUBT).get("ours")
    if ours is None:
        return None
    cost, finish, spot_share = ours
    in_time = float((finish <= left_h + 1e-9).mean())
    return Start(delay_h, float(cost.mean()), _three(cost)["p90"], float(spot_share.mean()), in_time)


def on_demand_beside(items: Sequence[Priced], spot: Priced) -> Priced | None:
    """The cheapest on-demand machines of the same shape."""
    same = [item for item in items if item.offer.market == "on_demand" and _shape(item) == _shape(spot)]
    return min(same, key=lambda item: item.expected_usd, default=None)


def _drawn(estimate: Estimate, spot: Priced, on_demand: Priced | None) -> tuple[DrawnJobs, SpotHazards]:
    """The job as it is simulated, and its zone's hazards."""
    from planner.deadline.simulate import DrawnJobs

    offer, line, around = spot.offer, spot.solved.line, spot.solved.around
    start_h = around.start_s.p50 / 3600
    hazards = place_hazards(estimate.question, offer, spot.nodes)
    drawn = DrawnJobs(
        work_h=_works(line.compute_h - start_h, (on_demand or spot).solved.line.wall_clock_h),
        restart_h=start_h + line.interruptions.checkpoint_interval_s / 7200,
        deadline_h=estimate.question.goal.deadline_h,
        spot_usd_per_h=_usd_per_h(spot),
        on_demand_usd_per_h=None if on_demand is None else _usd_per_h(on_demand),
    )
    return drawn, hazards


def _shape(item: Priced) -> tuple[object, ...]:
    return (item.offer.gpu, item.offer.gpus_per_node, item.nodes)


def _machines(item: Priced) -> str:
    offer = item.offer
    return f"{item.nodes} x {offer.gpu}:{offer.gpus_per_node} in {offer.cloud} {offer.zone or offer.region}"


def _usd_per_h(item: Priced) -> float:
    return (item.offer.price_usd_per_hour or 0.0) * item.nodes


def _works(work_h: float, billed_h: Quantiles) -> tuple[float, ...]:
    """Equally likely values of the work, as wide as the estimate's hours where nothing is taken away."""
    low, high = (math.log(billed_h.p50 / billed_h.p10), math.log(billed_h.p90 / billed_h.p50))
    normal = [NormalDist().inv_cdf((index + 0.5) / _WORKS) for index in range(_WORKS)]
    return tuple(work_h * math.exp(z / Z90 * (high if z > 0 else low)) for z in normal)


def _three(values: npt.NDArray[np.float64]) -> dict[str, float]:
    import numpy as np

    found = np.quantile(values, (0.1, 0.5, 0.9), method="inverted_cdf")
    return dict(zip(("p10", "p50", "p90"), map(float, found), strict=True))


def _finite(hours: float) -> float | None:
    return hours if math.isfinite(hours) else None


def _hours(hours: float) -> str:
    return f"{hours:7.1f}" if math.isfinite(hours) else "  never"
