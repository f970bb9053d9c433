"""What a job needs of reserved machines: which kinds it fits on, how many, for how long. Pure but for the intake."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.estimate import Estimate
from planner.pricing import Priced, Solver
from planner.quantiles import Quantiles
from planner.question import Question
from planner.reserve.sold import sells
from planner.risk import probability_by
from providers.offers import Offer
from providers.reservations import CapacityNeed, CapacityOffer, Machine, ProviderName

#: Kinds of machine that one provider is asked for, the best first.
MOST_KINDS = 3
#: Time on top of the p90, for what the estimate does not know of: a share of it and at least so much.
_MARGIN_SHARE, _LEAST_MARGIN_H = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Sized:
    """The job on one kind of machine.

    Attributes:
        machine: The kind.
        nodes: Machines.
        hours: Billed hours from machine start to release, without interruptions.
        margin_h: Added to the p90.
        regions: Where the price snapshot knows the kind and the spec allows it.
        sold_in: Where it is known at all.
        on_demand_usd: What the job costs there on demand, None if no price is known.
    """

    machine: Machine
    nodes: int
    hours: Quantiles
    margin_h: float
    regions: tuple[str, ...]
    sold_in: tuple[str, ...]
    on_demand_usd: Quantiles | None

    @property
    def gpus_total(self) -> int:
        """GPUs over all machines."""
        return self.nodes * self.machine.gpus_per_node

    @property
    def needed_h(self) -> float:
        """Usable hours to reserve."""
        return self.hours.p90 + self.margin_h

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that the job is expected to use."""
        return self.hours.p50 * self.gpus_total

    def need(self, start_from: datetime, end_by: datetime, regions: Sequence[str]) -> CapacityNeed:
        """What a provider is asked for."""
        return CapacityNeed(
            self.machine, self.nodes, self.needed_h, start_from, end_by, tuple(regions) or self.regions
        )

    def chance(self, offer: CapacityOffer, deadline: datetime | None) -> float | None:
        """Chance that the job, started with the capacity, is done in it and by the deadline; None without one."""
        if deadline is None:
            return None
        last = min(offer.usable_until, deadline)
        return probability_by(self.hours, (last - offer.start_at).total_seconds() / 3600)


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The same job without a reservation: the cheapest machine that the spec allows, by market; None if none."""

    spot: Priced | None
    on_demand: Priced | None


def margin_h(hours: Quantiles, wanted_h: float | None = None) -> float:
    """Time on top of the p90: what was asked for, else a tenth of it and at least half an hour.

    >>> margin_h(Quantiles(1, 2, 3)), margin_h(Quantiles(10, 20, 30)), margin_h(Quantiles(1, 2, 3), 0)
    (0.5, 3.0, 0)
    """
    return wanted_h if wanted_h is not None else max(_MARGIN_SHARE * hours.p90, _LEAST_MARGIN_H)


def sizes(
    question: Question,
    offers: Iterable[Offer],
    provider: ProviderName,
    *,
    wanted_margin_h: float | None = None,
    most: int = MOST_KINDS,
) -> list[Sized]:
    """The kinds of a provider's machines that the job fits on, those first that take the fewest GPU-hours of money.

    Args:
        question: The job; its choice of market and prices does not count here.
        offers: The price snapshot.
        provider: Who is to be asked.
        wanted_margin_h: Hours on top of the p90, None for the usual.
        most: Kinds to keep.
    """
    allowed = question.filter._replace(markets=frozenset({"spot", "on_demand"}), max_usd_per_hour=None)
    solver = Solver(question._replace(filter=allowed))
    found = []
    for rows in _kinds(provider, offers):
        if not any(allowed.refuses(_priced(row)) is None for row in rows):
            continue
        usable = [row for row in rows if allowed.refuses(_priced(row)) is None]
        for nodes in question.nodes:
            sold_in = tuple(sorted({row.region for row in rows}))
            sized = _size(solver, usable, nodes, wanted_margin_h, sold_in)
            if sized is not None:
                found.append(sized)
    return sorted(found, key=_order)[:most]


def alternatives(estimate: Estimate) -> Alternatives:
    """The cheapest candidates of each market."""
    cheapest: dict[str, Priced] = {}
    for row in estimate.priced:
        best = cheapest.get(row.offer.market)
        if best is None or row.cost_usd.p50 < best.cost_usd.p50:
            cheapest[row.offer.market] = row
    return Alternatives(cheapest.get("spot"), cheapest.get("on_demand"))


def _kinds(provider: ProviderName, offers: Iterable[Offer]) -> Iterator[list[Offer]]:
    """Rows of the snapshot by kind of machine."""
    kinds: dict[str, list[Offer]] = {}
    for offer in offers:
        if offer.instance_type is not None and sells(provider, offer):
            kinds.setdefault(offer.instance_type, []).append(offer)
    yield from kinds.values()


def _priced(row: Offer) -> Offer:
    """For the filter: reserved capacity has a price of its own, so a missing one here does not matter."""
    return row if row.price_usd_per_hour is not None else row._replace(price_usd_per_hour=0.0)


def _size(
    solver: Solver, rows: list[Offer], nodes: int, wanted_margin_h: float | None, sold_in: tuple[str, ...]
) -> Sized | None:
    on_demand = [row for row in rows if row.market == "on_demand"]
    listed = [row for row in on_demand if row.price_usd_per_hour is not None]
    cheapest = min(listed, key=lambda row: row.price_usd_per_hour or 0.0, default=None)
    row = cheapest or rows[0]._replace(market="on_demand")
    priced = solver.price(row, nodes)
    if not isinstance(priced, Priced):
        return None
    hours = priced.solved.line.wall_clock_h
    return Sized(
        machine=Machine(str(row.instance_type), row.gpu, row.gpus_per_node, row.gpu_mem_gib),
        nodes=nodes,
        hours=hours,
        margin_h=margin_h(hours, wanted_margin_h),
        regions=tuple(sorted({one.region for one in rows})),
        sold_in=sold_in,
        on_demand_usd=None if cheapest is None else priced.cost_usd,
    )


def _order(sized: Sized) -> tuple[bool, float, float]:
    cost = sized.on_demand_usd
    return cost is None, 0.0 if cost is None else cost.p50, sized.gpu_hours
