"""The prices of a plan's or a run's machines as they are now: a launch goes by them, and refuses what moved too far."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from planner.errors import OverBudgetError
from planner.offer_document import offer_document, offer_from_document
from planner.rented import reservations
from planner.runs import Run
from providers.aws_zones import is_zone_id, zone_names
from providers.offers import Offer

if TYPE_CHECKING:  # the monitor imports this module, and needs neither plan nor estimate
    from planner.candidates import Candidate
    from planner.plan import Plan

_AGAIN = "make a new plan: `plan estimate SPEC --out plan.json`"


class Today:
    """What is offered now, found by the machine."""

    def __init__(self, offers: Iterable[Offer], zone_names: Mapping[str, str] | None = None) -> None:
        """Of several offers of one machine the first one counts.

        Args:
            offers: The price list.
            zone_names: The account's name of a zone by the catalog's; runs on record go by the account's.
        """
        names = zone_names or {}
        self._offers: dict[tuple[object, ...], Offer] = {}
        self._unnamed: dict[tuple[object, ...], Offer] = {}
        for offer in offers:
            known = offer._replace(zone=names.get(offer.zone or "", offer.zone))
            self._offers.setdefault(_machine(known), known)
            if is_zone_id(known.zone):
                anywhere = _machine(known._replace(zone=None))
                self._unnamed[anywhere] = max(self._unnamed.get(anywhere, known), known, key=_price)

    def find(self, planned: Offer) -> Offer | None:
        """The machine at its price of now; where nobody says which zone is which, at the dearest of its region."""
        found = self._offers.get(_machine(planned))
        if found is None and planned.zone is not None and not is_zone_id(planned.zone):
            found = self._unnamed.get(_machine(planned._replace(zone=None)))
        return None if found is None else found._replace(zone=planned.zone)


def repriced(planned: Offer, today: Today, tolerance: float, *, hint: str = _AGAIN) -> Offer:
    """A machine at its price of now.

    Args:
        planned: As it was agreed to.
        today: What is offered now.
        tolerance: Share by which the price may have risen.
        hint: What to do where it may not.

    Raises:
        OverBudgetError: It has risen further, nobody knows it any more, or the machine is no longer offered.
    """
    offer = today.find(planned)
    if offer is None:
        raise OverBudgetError(f"{_name(planned)} is not offered any more", hint=hint, code="offer_gone")
    before, now = planned.price_usd_per_hour, offer.price_usd_per_hour
    if before is None:
        return offer
    if now is None:
        raise OverBudgetError(f"nobody knows the price of {_name(planned)} now", hint=hint, code="no_price")
    if now > before * (1 + tolerance):
        share = "" if before == 0 else f" ({now / before - 1:+.0%}, {tolerance:.0%} are tolerated)"
        raise OverBudgetError(
            f"the price of {_name(planned)} has moved from ${before:g}/h to ${now:g}/h{share}",
            hint=f"{hint}, or allow it with `--price-tolerance`",
            code="price_moved",
        )
    return offer


def repriced_plan(plan: Plan, chosen: Candidate, today: Today, tolerance: float) -> tuple[Plan, Candidate]:
    """A plan and its chosen candidate at the prices of now; predicted costs stay those of the plan.

    Other candidates that nobody would have agreed to at their price of now are left out.

    Raises:
        OverBudgetError: As `repriced`, of the chosen candidate.
    """
    now = chosen._replace(offer=repriced(chosen.offer, today, tolerance))
    rows = []
    for row in plan.candidates:
        offer = (
            now.offer
            if row.candidate_id == chosen.candidate_id
            else _stand_in(row.offer, chosen.offer, today, tolerance)
        )
        rows += [] if offer is None else [row._replace(offer=offer)]
    return plan._replace(candidates=tuple(rows)), now


def repriced_record(
    candidate: Mapping[str, Any], today: Today, tolerance: float, *, hint: str
) -> dict[str, Any]:
    """The document of a run's candidate with its machines at the prices of now.

    The first of those that may still be had is asked for first; the others of them may stand in for it.

    Raises:
        OverBudgetError: None of them; what is wrong with the first one.
    """
    first, *others = machines_of(candidate)
    kept = [_stand_in(offer, first, today, tolerance) for offer in (first, *others)]
    offers = [offer for offer in kept if offer is not None]
    if not offers:
        offers = [repriced(first, today, tolerance, hint=hint)]
    return with_machines(candidate, offers)


def updated_record(candidate: Mapping[str, Any], today: Today) -> dict[str, Any]:
    """The same with nobody there to be asked: every machine stays, at its price of now where that is known."""
    offers = [_updated(offer, today) for offer in machines_of(candidate)]
    return with_machines(candidate, offers)


def _updated(offer: Offer, today: Today) -> Offer:
    now = today.find(offer)
    return offer if now is None or now.price_usd_per_hour is None else now


def todays_prices(offers: Iterable[Offer], machines: Sequence[Offer]) -> Today:
    """The prices of now where these machines are, in their names of zones: AWS may be asked for those."""
    places = {(offer.cloud, offer.region) for offer in machines}
    there = [offer for offer in offers if (offer.cloud, offer.region) in places]
    named = any(offer.cloud == "aws" and offer.zone and not is_zone_id(offer.zone) for offer in machines)
    return Today(there, zone_names(there) if named else {})


def machines_asked_for(run: Run) -> list[Offer]:
    """Those that the run's newest launch may get; where the policy moves it, the one it chose."""
    if run.terms.moving_json is not None:
        return [offer_from_document(json.loads(run.current.offer_json))]
    return machines_of(json.loads(run.terms.candidate_json))


def is_reserved(run: Run) -> bool:
    """Whether its machines are of a reservation, which has a price of its own."""
    offer = json.loads(run.terms.candidate_json)["offer"]
    return offer["market"] in ("reserved", "inhouse") or bool(reservations(run.terms.candidate_json))


def machines_of(candidate: Mapping[str, Any]) -> list[Offer]:
    """The machines that a run's launches ask for, the chosen one first."""
    rows = [candidate["offer"], *candidate.get("rented", {}).get("alternatives", ())]
    return [offer_from_document(row) for row in rows]


def with_machines(candidate: Mapping[str, Any], offers: Sequence[Offer]) -> dict[str, Any]:
    """The document with other machines to ask for, the chosen one first."""
    first, *others = (offer_document(offer) for offer in offers)
    document = {**candidate, "offer": first}
    if "rented" in candidate:
        document["rented"] = {**candidate["rented"], "alternatives": others}
    return document


def _stand_in(planned: Offer, chosen: Offer, today: Today, tolerance: float) -> Offer | None:
    """A machine that may be got in place of the chosen one, None if it may not: nobody is asked again."""
    if planned.price_usd_per_hour is None and chosen.price_usd_per_hour is not None:
        return None
    try:
        return repriced(planned, today, tolerance)
    except OverBudgetError:
        return None


def price_note(before: Offer, after: Offer) -> str | None:
    """What to say of a price that has moved within the tolerance, None if it has not."""
    was, now = before.price_usd_per_hour, after.price_usd_per_hour
    if was is None or now is None or was == now:
        return None
    return f"the price has moved from ${was:g}/h to ${now:g}/h since the plan was made"


def _price(offer: Offer) -> float:
    return float("inf") if offer.price_usd_per_hour is None else offer.price_usd_per_hour


def _machine(offer: Offer) -> tuple[object, ...]:
    place = (offer.cloud, offer.region, offer.zone)
    return (*place, offer.instance_type, offer.gpu, offer.gpus_per_node, offer.market)


def _name(offer: Offer) -> str:
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    machine = offer.instance_type or f"{offer.gpus_per_node} x {offer.gpu}"
    return f"{machine} in {place} ({offer.market.replace('_', '-')})"
