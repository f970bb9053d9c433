"""What was bought, where the ledger does not know the offer any more: it was put back from an older copy. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from planner.reserve.reservations import Reservation
from planner.reserve.sold import PAID_UP_FRONT
from planner.runs import utc_text
from providers.reservations import ENDS_EARLY, CapacityOffer, Holding, Machine


def offer_of(reservation: Reservation, holding: Holding) -> CapacityOffer:
    """The offer that was agreed to, else what the provider shows of what was bought.

    Where it does not show the price, an hour costs at most what the cap allowed, by which a run in it is held to its
    own cap. What is billed on counts as such, so that it is given back when its time is over.
    """
    want = reservation.want
    if want.offer is not None:
        return want.offer
    start_at, end_at = _utc(holding.start_at or want.start_from), _utc(holding.end_at or want.end_by)
    known = {machine.instance_type: machine for machine in want.machines}
    unknown = replace(want.machines[0], instance_type=holding.instance_type)
    machine: Machine = known.get(holding.instance_type, unknown)
    most_usd = Decimal(reservation.price_cap_micro_usd).scaleb(-6)
    hours = Decimal(str(max((end_at - start_at).total_seconds(), 3600.0))) / 3600
    return CapacityOffer(
        provider=reservation.provider,
        provider_offer_id=None,
        machine=machine,
        nodes=holding.nodes,
        region=holding.region,
        zone=holding.zone,
        start_at=start_at,
        end_at=end_at,
        usable_until=end_at - ENDS_EARLY,
        upfront_usd=holding.paid_usd,
        usd_per_hour=round((most_usd if holding.paid_usd is None else holding.paid_usd) / hours, 6),
        refundable=reservation.provider not in PAID_UP_FRONT,
        source="found by its token",
        as_of_at=utc_text(start_at),
    )


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
