"""From the release date backwards: the latest safe start of each way, its chance and cost, and where the time goes.

Works on an estimate. Only the mix of spot and on-demand, and what a later start costs, are simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from planner.errors import NothingFitsError
from planner.estimate import Estimate
from planner.money import usd_text
from planner.overheads import DOWNLOAD_BYTES_PER_S
from planner.pricing import Priced
from planner.ranking import EVEN_CHANCE, SURE_ENOUGH, lateness
from planner.relax import enough_machines
from planner.risk import probability_by
from planner.simulation import Mix, cheapest_mix, on_demand_beside
from providers.offers import UNTRUSTED_FLAGS, PriceSnapshot

#: Means of a few dozen simulated jobs that differ by less are equal.
_CLEARLY = 0.95
_FARTHEST_H = 24 * 365 * 1000.0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to be done by the date.

    Attributes:
        name: on_demand, spot, fastest (by its p90) or more_machines (than the spec allows).
        item: The candidate.
        p_in_time: Chance to be done by the date if it is started now.
        latest_start_h: Hours from now until which a start is in time in nine of ten cases; negative: it was earlier.
    """

    name: str
    item: Priced
    p_in_time: float
    latest_start_h: float


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the time to the model.

    Attributes:
        hours: p50, of the way that is recommended.
        cut: What would make it shorter.
        saves_h: By how much, at best.
        extra_usd: What that adds to the mean cost, negative where it saves; None is unknown.
    """

    name: str
    hours: float
    cut: str
    saves_h: float
    extra_usd: float | None


@dataclass(frozen=True, slots=True)
class Release:
    """The answer.

    Attributes:
        now: UTC.
        deadline: UTC.
        budget_usd: None for no budget.
        ways: Each kind once.
        mix: The policy's cheapest mix, by hours of delay of the start; None where it cannot be had.
        chosen: The cheapest way that is sure enough, else the likeliest.
        parts: Its time, in order.
        possible: Whether any way, the mix included, has an even chance.
        nearest_h: Hours after which the fastest way is done in half and in nine of ten cases.
        needed_usd: Mean cost of the cheapest sure way, the mix included; None if there is none.
        affordable: The earliest way within the budget; None without a budget, or if nothing is.
        more_machines: Where no way is sure enough, the smallest number of machines that is or at least likely; None if
            none is.
    """

    now: datetime
    deadline: datetime
    budget_usd: float | None
    ways: tuple[Way, ...]
    mix: Mix | None
    chosen: Way
    parts: tuple[Part, ...]
    possible: bool
    nearest_h: tuple[float, float]
    needed_usd: float | None
    affordable: Priced | None
    more_machines: Way | None = None

    @property
    def over_budget(self) -> bool:
        """Whether being in time costs more than the budget."""
        return self.budget_usd is not None and (self.needed_usd or 0.0) > self.budget_usd

    @property
    def mix_is_best(self) -> bool:
        """Whether the mix is sure enough, and the way chosen is not, or is dearer beyond what a simulation may err."""
        if self.mix is None or not self.mix.is_sure:
            return False
        clearly = self.mix.starts[0].mean_usd < _CLEARLY * self.chosen.item.expected_usd
        return clearly or self.chosen.p_in_time < SURE_ENOUGH

    @property
    def first_cut(self) -> tuple[Part, float] | None:
        """Where to save time first, and how much at best; None if nothing saves.

        A way that is late by its p50 is late without a wait or a loss: then only what the p50 has can be cut.
        """
        late = self.chosen.latest_start_h + self.chosen.item.finish_h.p90 < self.chosen.item.finish_h.p50
        saves = [(part, min(part.saves_h, part.hours) if late else part.saves_h) for part in self.parts]
        best = max(saves, key=lambda pair: pair[1])
        return best if best[1] > 0.005 else None

    def at(self, hours: float) -> datetime:
        """A moment, by hours from now; a thousand years away at most, since dates end."""
        return self.now + timedelta(hours=min(max(hours, -_FARTHEST_H), _FARTHEST_H))

    def document(self) -> dict[str, Any]:
        """Body of the `tuneplan/deadline` answer."""
        return {
            "now": _text(self.now),
            "deadline_at": _text(self.deadline),
            "possible": self.possible,
            "over_budget": self.over_budget,
            "budget_usd": usd_text(self.budget_usd),
            "needed_usd": usd_text(self.needed_usd),
            "nearest_at": {
                "p50": _text(self.at(self.nearest_h[0])),
                "p90": _text(self.at(self.nearest_h[1])),
            },
            "affordable_at": None
            if self.affordable is None
            else _text(self.at(self.affordable.finish_h.p90)),
            "chosen": self.chosen.name,
            "ways": [self._way(way) for way in self.ways],
            "more_machines": None if self.more_machines is None else self._more(self.more_machines),
            "mix": None
            if self.mix is None
            else {
                "spot": where_of(self.mix.spot),
                "on_demand": where_of(self.mix.on_demand),
                "is_best": self.mix_is_best,
            },
            "start_delays": [
                {
                    "delay_h": row.delay_h,
                    "start_at": _text(self.at(row.delay_h)),
                    "mean_cost_usd": usd_text(row.mean_usd),
                    "p90_cost_usd": usd_text(row.p90_usd),
                    "spot_share": row.spot_share,
                    "p_in_time": row.p_in_time,
                }
                for row in (() if self.mix is None else self.mix.starts)
            ],
            "time_to_model": [
                {
                    "part": part.name,
                    "hours": part.hours,
                    "cut": part.cut,
                    "saves_h": part.saves_h,
                    "extra_usd": usd_text(part.extra_usd),
                }
                for part in self.parts
            ],
        }

    def _more(self, way: Way) -> dict[str, Any]:
        nodes = way.item.nodes
        return {"set": {"where.nodes": f"1..{nodes}"}, "nodes": nodes, **self._way(way)}

    def _way(self, way: Way) -> dict[str, Any]:
        offer, finish = way.item.offer, way.item.finish_h
        return {
            "way": way.name,
            "where": where_of(way.item),
            "market": offer.market,
            "may_not_fit": way.item.may_not_fit,
            "mean_cost_usd": usd_text(way.item.expected_usd),
            "cost_usd": {
                "p10": usd_text(way.item.cost_usd.p10),
                "p50": usd_text(way.item.cost_usd.p50),
                "p90": usd_text(way.item.cost_usd.p90),
            },
            "finish_h": {"p10": finish.p10, "p50": finish.p50, "p90": finish.p90},
            "p_in_time": way.p_in_time,
            "latest_start_at": _text(self.at(way.latest_start_h)),
            "latest_start_h": way.latest_start_h,
        }


def plan_release(estimate: Estimate, snapshot: PriceSnapshot, *, jobs: int, seed: int) -> Release:
    """Plan backwards from the goal's deadline.

    Args:
        estimate: With every candidate, and a deadline.
        snapshot: Its offers.
        jobs: Simulated jobs for each start of the mix.
        seed: Of the simulation.

    Raises:
        NothingFitsError: The job runs nowhere.
        ValueError: There is no deadline.
    """
    goal = estimate.question.goal
    if goal.deadline is None or goal.deadline_h is None:
        raise ValueError("no deadline")
    items = _trusted(estimate)
    ways = tuple(_ways(items, goal.deadline_h))
    chosen = min(ways, key=lambda way: _worth(way.item, goal.deadline_h or 0.0))
    is_sure = chosen.p_in_time >= SURE_ENOUGH
    mix = cheapest_mix(estimate, items, jobs, seed)
    sure_usd = [mix.starts[0].mean_usd] if mix is not None and mix.is_sure else []
    sure_usd += [chosen.item.expected_usd] if is_sure else []
    more = None if sure_usd else enough_machines(estimate.question, snapshot)
    fastest = min(items, key=lambda item: item.finish_h.p90)
    cheap = [item for item in items if goal.budget_usd is not None and item.expected_usd <= goal.budget_usd]
    return Release(
        now=goal.now,
        deadline=goal.deadline,
        budget_usd=goal.budget_usd,
        ways=ways,
        mix=mix,
        chosen=chosen,
        parts=tuple(_parts(chosen.item, items if more is None else [*items, more], estimate)),
        possible=max(way.p_in_time for way in ways) >= EVEN_CHANCE or bool(sure_usd),
        nearest_h=(fastest.finish_h.p50, fastest.finish_h.p90),
        needed_usd=min(sure_usd, default=None),
        affordable=min(cheap, key=lambda item: item.finish_h.p90, default=None),
        more_machines=None if more is None else _way("more_machines", more, goal.deadline_h),
    )


def _trusted(estimate: Estimate) -> list[Priced]:
    """Candidates of believable price that surely fit, as far as there are any."""
    items = [item for item in estimate.priced if UNTRUSTED_FLAGS.isdisjoint(item.offer.flags)]
    if not items:
        raise NothingFitsError(
            "the job fits nothing that is offered", hint="`plan estimate SPEC` says what would help"
        )
    return [item for item in items if not item.may_not_fit] or items


def _ways(items: list[Priced], deadline_h: float) -> Iterator[Way]:
    """Of each market the cheapest that is sure enough, or else the likeliest; and the fastest of all by its p90."""
    for name in ("on_demand", "spot"):
        same = [item for item in items if item.offer.market == name]
        if same:
            yield _way(name, min(same, key=lambda item: _worth(item, deadline_h)), deadline_h)
    yield _way("fastest", min(items, key=lambda item: (item.finish_h.p90, item.expected_usd)), deadline_h)


def _worth(item: Priced, deadline_h: float) -> tuple[float, ...]:
    return (*lateness(item, deadline_h), item.expected_usd)


def _way(name: str, item: Priced, deadline_h: float) -> Way:
    return Way(name, item, probability_by(item.finish_h, deadline_h), deadline_h - item.finish_h.p90)


def _parts(item: Priced, items: list[Priced], estimate: Estimate) -> Iterator[Part]:
    """Where the time goes, and what would make it shorter."""
    around, line, lost = item.solved.around, item.solved.line, item.solved.line.interruptions
    starts, usd_per_h = 1 + lost.expected, (item.offer.price_usd_per_hour or 0.0) * item.nodes
    start_h = {name: value.p50 / 3600 for name, value in around.start_parts_s.items()}
    download_h = 0.0
    if item.offer.market != "local":
        download_h = min(estimate.question.stored_bytes / DOWNLOAD_BYTES_PER_S / 3600, start_h["model"])

    def saved(hours: float) -> float:
        """What fewer billed hours at each start bring."""
        return -hours * starts * usd_per_h

    setup_h = start_h["environment"] + start_h["imports"] + start_h["model"] - download_h
    pack_h, evaluate_h = start_h["environment"], around.evaluate_s.p50 / 3600
    training_h = max(line.compute_h - sum(start_h.values()) - evaluate_h - _tail_h(item), 0.0)
    steady = on_demand_beside(list(items), item)
    steady_usd = None if steady is None else steady.expected_usd - item.expected_usd
    yield Part("waiting", lost.wait_h.p50, "on-demand, or a reservation", lost.wait_h.p90, steady_usd)
    yield Part("provisioning", start_h["boot"], "a machine that runs already", start_h["boot"], None)
    yield Part("set-up", setup_h, "an image with the packages (environment)", pack_h * starts, saved(pack_h))
    yield Part(
        "download",
        download_h,
        "the model on a disk beside the machine",
        download_h * starts,
        saved(download_h),
    )
    yield _training(training_h, item, items)
    rework_h = line.rework_h + line.reprovision_h
    lost_h = lost.rework_h.p90 + lost.restart_h.p90
    yield Part("lost work", rework_h, "on-demand", lost_h, steady_usd)
    yield Part(
        "evaluation", evaluate_h, "fewer rows in data.eval", evaluate_h / 2, -evaluate_h / 2 * usd_per_h
    )
    yield Part("saving", _tail_h(item), "nothing", 0.0, None)


def _tail_h(item: Priced) -> float:
    """Tokenising, checkpoints, the result."""
    around = item.solved.around
    return (around.prepare_s.p50 + around.finish_s.p50) / 3600 + item.solved.line.interruptions.checkpoint_h


def _training(hours: float, item: Priced, items: Iterable[Priced]) -> Part:
    """The cheapest machine that takes a quarter of the time off, or the fastest."""
    faster = [other for other in items if other.solved.line.compute_h <= 0.75 * item.solved.line.compute_h]
    if not faster:
        return Part("training", hours, "no faster machine is offered", 0.0, None)
    best = min(faster, key=lambda other: other.expected_usd)
    saves_h = item.solved.line.compute_h - best.solved.line.compute_h
    return Part("training", hours, where_of(best), saves_h, best.expected_usd - item.expected_usd)


def where_of(item: Priced) -> str:
    """Machines, market and place in words."""
    offer = item.offer
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    return f"{item.nodes} x {offer.gpu}:{offer.gpus_per_node} {offer.market.replace('_', '-')} in {place}"


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
