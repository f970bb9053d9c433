"""Which of the offers is bought for a reservation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from planner.money import micro_usd, usd_text, usd_text_of_micro
from planner.reserve.reservations import Reservation
from providers.reservations import CapacityNeed, CapacityOffer, Machine, ReservationApi


def best_offer(
    api: ReservationApi, reservation: Reservation, now: datetime
) -> tuple[CapacityOffer | None, str]:
    """The offer to buy at its price of now, or None and why.

    An agreed offer is only bought as it was agreed: gone or dearer is an answer, not a reason for another one.
    """
    agreed = reservation.want.offer
    if agreed is not None:
        offer = api.requote(agreed)
        if offer is None:
            return None, "the offer is gone"
        return _below_cap(reservation, offer)
    suitable = list(_offers(api, reservation, now))
    if not suitable:
        return None, "nothing that suits is offered"
    priced = [offer for offer in suitable if offer.upfront_usd is not None]
    cheapest = min(priced or suitable, key=lambda offer: (offer.upfront_usd or 0, offer.start_at))
    return _below_cap(reservation, cheapest)


def _below_cap(reservation: Reservation, offer: CapacityOffer) -> tuple[CapacityOffer | None, str]:
    if offer.upfront_usd is None:
        return None, "the offer has no price"
    if micro_usd(offer.upfront_usd) > reservation.price_cap_micro_usd:
        cap = usd_text_of_micro(reservation.price_cap_micro_usd)
        return None, f"the price is ${usd_text(offer.upfront_usd)}, over the cap of ${cap}"
    return offer, ""


def _offers(api: ReservationApi, reservation: Reservation, now: datetime) -> Iterator[CapacityOffer]:
    for need in needs(reservation, now):
        for region in need.regions:
            yield from (offer for offer in api.offers(need, region) if fits(offer, need))


def needs(reservation: Reservation, now: datetime) -> Iterable[CapacityNeed]:
    """What to ask for, a kind of machine at a time."""
    want = reservation.want
    start = max(want.start_from, now)
    for machine in want.machines:
        yield CapacityNeed(machine, want.nodes, want.hours, start, want.end_by, want.regions)


def fits(offer: CapacityOffer, need: CapacityNeed) -> bool:
    """Whether the job has its hours within the offer and its own time."""
    first, last = max(offer.start_at, need.start_from), min(offer.usable_until, need.end_by)
    same: Machine = offer.machine
    return (
        same.instance_type == need.machine.instance_type
        and offer.nodes >= need.nodes
        and (last - first).total_seconds() >= need.hours * 3600
    )
