"""Reservations and offers as the JSON that outside tools rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from planner.money import usd_text, usd_text_of_micro
from planner.offer_document import offer_document
from planner.pricing import Priced
from planner.reserve.need import Alternatives, Sized
from planner.reserve.reservations import Reservation, ReservationEvent
from planner.reserve.search import Found, Source
from planner.reserve.sold import CLOUD_OF
from planner.runs import utc_text
from providers.offers import Offer
from providers.reservations import CapacityOffer


def offers_document(
    sized: Sequence[Sized],
    found: Sequence[Found],
    sources: Sequence[Source],
    others: Alternatives,
    deadline: datetime | None,
) -> dict[str, Any]:
    """`tuneplan/reserve_offers` below its common first keys."""
    first = found[0].sized if found else next(iter(sized), None)
    return {
        "need": None if first is None else _need(first),
        "sources": [asdict(source) for source in sources],
        "offers": [_found(row, others, deadline) for row in found],
    }


def _need(sized: Sized) -> dict[str, Any]:
    return {
        "gpus_total": sized.gpus_total,
        "hours_p50": sized.hours.p50,
        "hours_p90": sized.hours.p90,
        "margin_h": sized.margin_h,
    }


def _found(row: Found, others: Alternatives, deadline: datetime | None) -> dict[str, Any]:
    offer = row.offer
    own = row.sized.on_demand_usd
    return {
        "offer_id": offer.offer_id,
        "provider": offer.provider,
        "offer": offer_document(as_offer(offer)),
        "nodes": offer.nodes,
        "start_at": utc_text(offer.start_at),
        "end_at": utc_text(offer.end_at),
        "usable_h": offer.usable_h,
        "upfront_usd": usd_text(offer.upfront_usd),
        "usd_per_useful_gpu_h": usd_text(row.usd_per_useful_gpu_h),
        "refundable": offer.refundable,
        "compare": {
            "spot_cost_usd": _cost(others.spot),
            "on_demand_cost_usd": _cost(others.on_demand),
            "same_machine_on_demand_cost_usd": None if own is None else usd_text(own.p50),
        },
        "break_even_h": row.break_even_h,
        "p_finish_by_deadline": row.sized.chance(offer, deadline),
        "expires_at": None if offer.expires_at is None else utc_text(offer.expires_at),
        "provider_offer_id": offer.provider_offer_id,
    }


def _cost(priced: Priced | None) -> str | None:
    return None if priced is None else usd_text(priced.cost_usd.p50)


def as_offer(capacity: CapacityOffer) -> Offer:
    """Reserved machines as an offer like any other."""
    machine = capacity.machine
    inhouse = capacity.provider == "inhouse"
    slurm = (
        inhouse and capacity.zone is not None
    )  # its partition; Slurm shares machines out by GPU, not by type
    per_hour = None if capacity.usd_per_hour is None else float(capacity.usd_per_hour) / capacity.nodes
    return Offer(
        cloud="slurm" if slurm else CLOUD_OF[capacity.provider],
        region=capacity.region,
        zone=capacity.zone,
        instance_type=None if slurm else machine.instance_type,
        gpu=machine.gpu,
        gpus_per_node=machine.gpus_per_node,
        gpu_mem_gib=machine.gpu_mem_gib,
        vcpus=None,
        ram_gib=None,
        market="inhouse" if inhouse else "reserved",
        price_usd_per_hour=per_hour,
        source=capacity.source,
        as_of_at=capacity.as_of_at,
    )


def reservation_document(reservation: Reservation, history: Sequence[ReservationEvent]) -> dict[str, Any]:
    """One reservation of `tuneplan/reserve_list`."""
    paid, offer = reservation.paid_micro_usd, reservation.offer
    return {
        "reservation_id": reservation.reservation_id,
        "provider": reservation.provider,
        "provider_ref": reservation.provider_ref,
        "state": reservation.state,
        "state_reason": reservation.state_reason,
        "state_since_at": reservation.state_since_at,
        "needs_person": reservation.needs_person,
        "warning": reservation.warning,
        "price_cap_usd": usd_text_of_micro(reservation.price_cap_micro_usd),
        "paid_usd": None if paid is None else usd_text_of_micro(paid),
        "offer_id": None if offer is None else offer.offer_id,
        "nodes": reservation.want.nodes if offer is None else offer.nodes,
        "start_at": utc_text(reservation.start_at),
        "end_at": utc_text(reservation.end_at),
        "decide_by_at": reservation.decide_by_at,
        "run_id": reservation.run_id,
        "history": [{"state": row.state, "at": row.at, "reason": row.reason} for row in history],
    }
