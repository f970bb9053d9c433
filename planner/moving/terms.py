"""Where a run may move and by when: made at launch from the plan, kept with the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planner.candidates import Candidate
from planner.deadline.controller import Mission
from planner.deadline.placement import Placement
from planner.money import micro_usd
from planner.offer_document import offer_document, offer_from_document
from planner.runs import seconds_between
from providers.offers import Market, Offer

_VERSION = 2
#: Version 1 knew nothing of losses: every place was taken as on record.
_READABLE = (1, _VERSION)
#: The policy is made for at most this many places.
_MOST_SITES = 10
#: Time between decisions: five minutes, of a short deadline a hundred and twentieth, no less than 5 s.
_LONGEST_TICK_S, _SHORTEST_TICK_S, _TICKS = 300.0, 5.0, 120
#: What a stop with a checkpoint may take, beside the ticks that a decision may come late.
_STOP_S, _LATE_TICKS = 60.0, 2
#: A start where the plan does not say: image, environment, model.
_START_S = 600.0


@dataclass(frozen=True, slots=True)
class Site:
    """One place.

    Attributes:
        name: Of the place.
        spot, on_demand: Its offer in each market that it has.
        losses_why: What its factor of losses, which the mission has, comes from, in words.
    """

    name: str
    spot: Offer | None
    on_demand: Offer | None
    losses_why: str = ""

    def offer(self, market: str) -> Offer | None:
        """Its offer in a market."""
        return self.spot if market == "spot" else self.on_demand


@dataclass(frozen=True, slots=True)
class MovingTerms:
    """What does not change while a run moves.

    Attributes:
        start_at: RFC 3339 UTC, from which the policy counts.
        deadline_at: RFC 3339 UTC.
        nodes: Machines.
        steps_h: Hours of training, on the safe side (p90 of the step time).
        once_h: Hours of evaluation and of saving the result.
        sites: In the order of the policy's regions.
        mission: The same for the policy.
        zone_names: The account's name of a zone by the catalog's, for the request.
    """

    start_at: str
    deadline_at: str
    nodes: int
    steps_h: float
    once_h: float
    sites: tuple[Site, ...]
    mission: Mission
    zone_names: Mapping[str, str]

    @property
    def tick_s(self) -> float:
        """Seconds between decisions."""
        return self.mission.tick_h * 3600

    @property
    def loss_factors(self) -> tuple[float | None, ...]:
        """How many times as often as on record machines are lost, by site; None where nothing is known."""
        return self.mission.loss_factors or (None,) * len(self.sites)

    def elapsed_h(self, now: str) -> float:
        """Hours since the start."""
        return seconds_between(self.start_at, now) / 3600

    def request_offer(self, placement: Placement, usd_per_hour: float | None) -> Offer | None:
        """What to ask the backend for, at a price of today; None if the place lacks the market."""
        offer = self.sites[placement.region].offer(placement.market)
        if offer is None:
            return None
        zone = None if offer.zone is None else self.zone_names.get(offer.zone, offer.zone)
        return offer._replace(zone=zone, price_usd_per_hour=usd_per_hour)

    def placement_of(self, offer: Offer) -> Placement | None:
        """Where a machine is, None if it is at none of the sites."""
        for region in range(len(self.sites)):
            for market in ("spot", "on_demand"):
                asked = self.request_offer(Placement(region, market), None)
                if asked is not None and _machine(asked) == _machine(offer):
                    return Placement(region, market)
        return None

    def to_json(self) -> str:
        """As the ledger keeps it."""
        mission = {name: getattr(self.mission, name) for name in Mission.__slots__}
        document = {
            "version": _VERSION,
            **{name: getattr(self, name) for name in _PLAIN},
            "zone_names": dict(self.zone_names),
            "mission": mission,
            "sites": [
                {
                    "name": site.name,
                    "losses_why": site.losses_why,
                    **{market: _written(site.offer(market)) for market in ("spot", "on_demand")},
                }
                for site in self.sites
            ],
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> MovingTerms:
        """As `to_json` wrote it.

        Raises:
            ValueError: A newer tuneplan wrote it.
        """
        raw: dict[str, Any] = json.loads(text)
        if raw["version"] not in _READABLE:
            raise ValueError(f"moving terms of version {raw['version']}, known is {_VERSION}")
        mission = dict(raw["mission"])
        for name in ("zones", "on_demand_usd_per_h", "loss_factors"):
            mission[name] = tuple(mission.get(name, ()))
        return cls(
            **{name: raw[name] for name in _PLAIN},
            zone_names=raw["zone_names"],
            sites=tuple(
                Site(row["name"], _read(row["spot"]), _read(row["on_demand"]), row.get("losses_why", ""))
                for row in raw["sites"]
            ),
            mission=Mission(**mission),
        )


_PLAIN = ("start_at", "deadline_at", "nodes", "steps_h", "once_h")


def moving_terms(
    chosen: Candidate,
    same: Sequence[Candidate],
    *,
    start_at: str,
    deadline_at: str,
    zone_names: Mapping[str, str] | None = None,
) -> MovingTerms:
    """Terms of a run that begins now.

    The work is taken at the p90 of the step time until the run has measured its own. What the estimate takes of the
    losses in each place, the policy takes too.

    Args:
        chosen: The candidate whose shape the run has.
        same: Those that can run the very same job document on the same GPUs.
        start_at: Now, RFC 3339 UTC.
        deadline_at: When the result must be there.
        zone_names: The account's name of a zone by the catalog's.
    """
    sites, losses = _with_losses(sites_of(row.offer for row in same), same)
    steps_h, once_h, restart_h = hours_of(chosen)
    deadline_h = max(seconds_between(start_at, deadline_at) / 3600, 1e-6)
    tick_s = min(_LONGEST_TICK_S, max(_SHORTEST_TICK_S, deadline_h * 3600 / _TICKS))
    mission = Mission(
        work_h=steps_h + once_h,
        deadline_h=deadline_h,
        restart_overhead_h=restart_h,
        tick_h=tick_s / 3600,
        zones=tuple(site.name for site in sites),
        on_demand_usd_per_h=tuple(_usd_per_h(site.on_demand, chosen.nodes) for site in sites),
        margin_h=(_LATE_TICKS * tick_s + _STOP_S) / 3600,
        loss_factors=losses,
    )
    return MovingTerms(
        start_at, deadline_at, chosen.nodes, steps_h, once_h, sites, mission, dict(zone_names or {})
    )


def _with_losses(
    sites: Iterable[Site], same: Iterable[Candidate]
) -> tuple[tuple[Site, ...], tuple[float | None, ...]]:
    """The sites with what the estimate says of their losses in words, and the factors; None without spot."""
    risks = {row.offer: row.risk for row in same}
    found = [(site, None if site.spot is None else risks[site.spot]) for site in sites]
    told = (site if risk is None else replace(site, losses_why=risk.losses_why) for site, risk in found)
    return tuple(told), tuple(None if risk is None else risk.losses_factor for _, risk in found)


def hours_of(chosen: Candidate) -> tuple[float, float, float]:
    """Hours of a candidate's training (p90 of the step time), of what comes once, and of each start."""
    offer, basis = chosen.offer, chosen.basis
    per_hour_usd = (offer.price_usd_per_hour or 0.0) * chosen.nodes
    compute_usd = chosen.cost_tree_usd["compute"]
    billed_h = compute_usd / per_hour_usd if per_hour_usd and compute_usd else chosen.wall_clock_h.p50
    priors = {} if basis is None else basis.priors
    restart_h = (priors.get("start", _START_S) + priors.get("prepare", 0.0)) / 3600
    once_h = (priors.get("evaluate", 0.0) + priors.get("finish", 0.0)) / 3600
    training_h = max(billed_h - restart_h - once_h, 0.05 * billed_h)
    doubt = chosen.step_time_s.p90 / chosen.step_time_s.p50
    return training_h * doubt, once_h, restart_h


def sites_of(offers: Iterable[Offer]) -> tuple[Site, ...]:
    """Places of priced offers, cheapest spot first, the cheapest on-demand always among them.

    On-demand that a cloud sells for a whole region stands beside spot in each of its zones.
    """
    priced = [offer for offer in offers if offer.price_usd_per_hour is not None]
    spots = _cheapest_by_place(priced, "spot")
    on_demand = _cheapest_by_place(priced, "on_demand")
    sites = []
    for place, offer in sorted(spots.items(), key=lambda item: _price(item[1])):
        beside = on_demand.get(place) or on_demand.get((*place[:2], None))
        sites.append(Site(_name(offer), offer, beside))
    used = {id(site.on_demand) for site in sites[:_MOST_SITES]}
    others = sorted((o for o in on_demand.values() if id(o) not in used), key=_price)
    if others and (len(sites) < _MOST_SITES or _price(others[0]) < min(_prices_on_demand(sites))):
        sites = [*sites[: _MOST_SITES - 1], Site(_name(others[0]), None, others[0])]
        sites += [Site(_name(o), None, o) for o in others[1 : 1 + _MOST_SITES - len(sites)]]
    return tuple(sites[:_MOST_SITES])


def _prices_on_demand(sites: Sequence[Site]) -> list[float]:
    return [_price(site.on_demand) for site in sites[:_MOST_SITES] if site.on_demand] or [float("inf")]


def _cheapest_by_place(offers: Sequence[Offer], market: Market) -> dict[tuple[str, str, str | None], Offer]:
    found: dict[tuple[str, str, str | None], Offer] = {}
    for offer in offers:
        place = (offer.cloud, offer.region, offer.zone)
        if offer.market == market and (place not in found or _price(offer) < _price(found[place])):
            found[place] = offer
    return found


def _price(offer: Offer) -> float:
    return float("inf") if offer.price_usd_per_hour is None else offer.price_usd_per_hour


def _usd_per_h(offer: Offer | None, nodes: int) -> float | None:
    """Of all machines, as the ledger counts it."""
    price = None if offer is None else offer.price_usd_per_hour
    return None if price is None else micro_usd(price) * nodes / 1e6


def _name(offer: Offer) -> str:
    return "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)


def _machine(offer: Offer) -> tuple[object, ...]:
    return (offer.cloud, offer.region, offer.zone, offer.gpu, offer.gpus_per_node, offer.market)


def _written(offer: Offer | None) -> dict[str, Any] | None:
    return None if offer is None else offer_document(offer)


def _read(document: Mapping[str, Any] | None) -> Offer | None:
    return None if document is None else offer_from_document(document)
