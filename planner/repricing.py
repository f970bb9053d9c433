"""The price of a plan's machine as it is now: a launch goes by it, and refuses if it has moved too far. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from planner.candidates import Candidate
from planner.errors import OverBudgetError
from providers.offers import Offer


def repriced(candidate: Candidate, offers: Iterable[Offer], tolerance: float) -> Candidate:
    """The candidate at today's price of its machine; its predicted costs stay those of the plan.

    Args:
        candidate: Of a plan that was made earlier.
        offers: What is offered now.
        tolerance: Share by which the price may have risen.

    Raises:
        OverBudgetError: It has risen further, nobody knows it any more, or the machine is no longer offered.
    """
    planned = candidate.offer
    offer = next((row for row in offers if _machine(row) == _machine(planned)), None)
    again = "make a new plan: `plan estimate SPEC --out plan.json`"
    if offer is None:
        raise OverBudgetError(f"{_name(planned)} is not offered any more", hint=again, code="offer_gone")
    before, now = planned.price_usd_per_hour, offer.price_usd_per_hour
    if before is None:
        return candidate._replace(offer=offer)
    if now is None:
        raise OverBudgetError(f"nobody knows the price of {_name(planned)} now", hint=again, code="no_price")
    if now > before * (1 + tolerance):
        share = "" if before == 0 else f" ({now / before - 1:+.0%}, {tolerance:.0%} are tolerated)"
        raise OverBudgetError(
            f"the price of {_name(planned)} has moved from ${before:g}/h to ${now:g}/h{share}",
            hint=f"{again}, or allow it with `--price-tolerance`",
            code="price_moved",
        )
    return candidate._replace(offer=offer)


def price_note(before: Candidate, after: Candidate) -> str | None:
    """What to say of a price that has moved within the tolerance, None if it has not."""
    was, now = before.offer.price_usd_per_hour, after.offer.price_usd_per_hour
    if was is None or now is None or was == now:
        return None
    return f"the price has moved from ${was:g}/h to ${now:g}/h since the plan was made"


def _machine(offer: Offer) -> tuple[object, ...]:
    place = (offer.cloud, offer.region, offer.zone)
    return (*place, offer.instance_type, offer.gpu, offer.gpus_per_node, offer.market)


def _name(offer: Offer) -> str:
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    machine = offer.instance_type or f"{offer.gpus_per_node} x {offer.gpu}"
    return f"{machine} in {place} ({offer.market.replace('_', '-')})"
