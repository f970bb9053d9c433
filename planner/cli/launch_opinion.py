"""`plan launch --dry-run --optimizer`: which machine SkyPilot's own optimizer takes when it is told our hours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.errors import TuneplanError

if TYPE_CHECKING:
    from planner.proposal import Order
    from providers.offers import Offer


def opinion_text(order: Order) -> str:
    """Its choice of the machines of this launch, by its own prices; why it has none, if it does not answer."""
    from planner.rented import alternatives
    from providers.skypilot_optimizer import Timed, opinion

    chosen = order.candidate
    asked = {chosen.offer, *alternatives(order.plan, chosen)}
    rows = [Timed(row.offer, row.wall_clock_h.p50) for row in order.plan.candidates if row.offer in asked]
    try:
        found = opinion(rows, chosen.nodes)
    except TuneplanError as error:
        return f"SkyPilot's optimizer has no opinion: {error.message}"
    cost = f"${found.cost_usd:,.2f} for {found.chosen.hours:.3g} h by its own catalog"
    if found.chosen.offer == chosen.offer:
        return f"SkyPilot's optimizer, told our hours, takes the same machine: {cost}"
    ours = f"{_name(chosen.offer)} at ${chosen.cost_usd.p50:,.2f}"
    return f"SkyPilot's optimizer, told our hours, takes {_name(found.chosen.offer)}: {cost}; the plan takes {ours}"


def _name(offer: Offer) -> str:
    place = "/".join(part for part in (offer.cloud, offer.region, offer.zone) if part)
    machine = offer.instance_type or f"{offer.gpus_per_node} x {offer.gpu}"
    return f"{machine} in {place} ({offer.market.replace('_', '-')})"
