"""A spec's best spot candidate, simulated: cost and finish on spot alone, on demand, and by the deadline policy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.errors import NothingFitsError
from planner.estimate import Estimate
from planner.hazards import SpotHazards, hazards_of
from planner.money import usd_text
from planner.pricing import Priced
from planner.quantiles import Z90, Quantiles
from providers.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from planner.deadline.simulate import DrawnJobs

#: Later starts that are looked at, as shares of the time to spare.
_DELAYS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: Longer jobs are not simulated: a tick would be longer than most spells of capacity.
LONGEST_H = 5000.0
#: The work's uncertainty is taken at this many equally likely values.
_WORKS = 8
_NORMAL = (-1.534, -0.887, -0.489, -0.157, 0.157, 0.489, 0.887, 1.534)
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
        offer = self.spot.offer
        place = f"{offer.cloud} {offer.zone or offer.region}"
        return f"{self.spot.nodes} x {offer.gpu}:{offer.gpus_per_node} in {place}"

    def document(self) -> dict[str, Any]:
        """Body of the `tuneplan/simulate` answer."""
        return {
            "jobs": self.jobs,
            "deadline_h": self.deadline_h,
            "hazards": self.source,
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
            f"{self.jobs} simulated jobs on {self.machines}",
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
        lines.append(f"hazards: {self.source}")
        return "\n".join(lines)


def simulate_estimate(estimate: Estimate, jobs: int, seed: int) -> Simulation:
    """Simulate the best spot candidate, with on-demand machines of the same shape beside it.

    The first start finds a machine; the zone's later capacity is drawn from its hazards; step time is uncertain as in
    the estimate.

    Raises:
        NothingFitsError: There is no spot candidate.
        UsageError: The job is longer than `LONGEST_H`.
    """
    from planner.deadline.simulate import monte_carlo

    spot = next((item for item in estimate.priced if item.offer.market == "spot"), None)
    if spot is None:
        raise NothingFitsError("no spot candidate to simulate", hint="look at `plan estimate --why`")
    drawn, hazards, on_demand = _drawn(estimate, spot)
    if max(drawn.work_h) > LONGEST_H:
        raise UsageError(
            f"a job of {max(drawn.work_h):,.0f} h (p90) is too long to simulate: {LONGEST_H:,.0f} h at most",
            hint="`plan estimate` prices it; more or faster GPUs (--gpu, --count) make it shorter",
        )
    found = monte_carlo(drawn, hazards, jobs, seed)
    ways = tuple(Way(name, *found[name][:2]) for name in WAYS if name in found)
    return Simulation(spot, on_demand, drawn.deadline_h, ways, jobs, hazards.source)


class Mix(NamedTuple):
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


def mix_by_start(estimate: Estimate, jobs: int, seed: int) -> tuple[Mix, ...]:
    """Cost and chance of the policy if it is started now, or later, up to the latest start that on-demand can keep.

    Empty where there is no spot, no on-demand of the same shape, not enough time for that even now, or the job is
    longer than `LONGEST_H`.
    """
    from planner.deadline.simulate import monte_carlo

    spot = next((item for item in estimate.priced if item.offer.market == "spot"), None)
    deadline_h = estimate.question.goal.deadline_h
    if spot is None or deadline_h is None:
        return ()
    drawn, hazards, on_demand = _drawn(estimate, spot)
    slack_h = deadline_h - max(drawn.work_h) - drawn.restart_h
    if on_demand is None or slack_h <= 0 or max(drawn.work_h) > LONGEST_H:
        return ()
    found = []
    for share in _DELAYS:
        shifted = replace(drawn, deadline_h=deadline_h - share * slack_h)
        cost, finish, spot_share = monte_carlo(shifted, hazards, jobs, seed, only="ours")["ours"]
        in_time = float((finish <= deadline_h - share * slack_h + 1e-9).mean())
        mean_usd, p90_usd = float(cost.mean()), _three(cost)["p90"]
        found.append(Mix(share * slack_h, mean_usd, p90_usd, float(spot_share.mean()), in_time))
    return tuple(found)


def _drawn(estimate: Estimate, spot: Priced) -> tuple[DrawnJobs, SpotHazards, Priced | None]:
    """The job as it is simulated, its zone's hazards, and on-demand of the same shape."""
    from planner.deadline.simulate import DrawnJobs

    offer, line, around = spot.offer, spot.solved.line, spot.solved.around
    same = [
        item for item in estimate.priced if item.offer.market == "on_demand" and _shape(item) == _shape(spot)
    ]
    on_demand = min(same, key=lambda item: item.expected_usd, default=None)
    start_h = around.start_s.p50 / 3600
    hazards = hazards_of(
        estimate.question.calibration.spells, offer.cloud, offer.zone or offer.region, offer.gpu, spot.nodes
    )
    drawn = DrawnJobs(
        work_h=_works(line.compute_h - start_h, line.wall_clock_h),
        restart_h=start_h + line.interruptions.checkpoint_interval_s / 7200,
        deadline_h=estimate.question.goal.deadline_h,
        spot_usd_per_h=_usd_per_h(spot),
        on_demand_usd_per_h=None if on_demand is None else _usd_per_h(on_demand),
    )
    return drawn, hazards, on_demand


def _shape(item: Priced) -> tuple[object, ...]:
    return (item.offer.gpu, item.offer.gpus_per_node, item.nodes)


def _usd_per_h(item: Priced) -> float:
    return (item.offer.price_usd_per_hour or 0.0) * item.nodes


def _works(work_h: float, billed_h: Quantiles) -> tuple[float, ...]:
    """Equally likely values of the work, as wide as the estimate's hours."""
    low, high = (math.log(billed_h.p50 / billed_h.p10), math.log(billed_h.p90 / billed_h.p50))
    return tuple(work_h * math.exp(z / Z90 * (high if z > 0 else low)) for z in _NORMAL[:_WORKS])


def _three(values: npt.NDArray[np.float64]) -> dict[str, float]:
    import numpy as np

    found = np.quantile(values, (0.1, 0.5, 0.9), method="inverted_cdf")
    return dict(zip(("p10", "p50", "p90"), map(float, found), strict=True))


def _finite(hours: float) -> float | None:
    return hours if math.isfinite(hours) else None


def _hours(hours: float) -> str:
    return f"{hours:7.1f}" if math.isfinite(hours) else "  never"
