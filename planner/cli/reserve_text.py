"""Offers of capacity and reservations for a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from planner.cli.price_text import table_text
from planner.money import usd_text_of_micro
from planner.reserve.plan_purchase import amount_due
from planner.reserve.sold import PAID_UP_FRONT, note

if TYPE_CHECKING:
    from planner.cli.reserve_desk import Job
    from planner.pricing import Priced
    from planner.reserve.reservations import Reservation, ReservationEvent
    from planner.reserve.search import Found, Source
    from providers.reservations import CapacityOffer

_SYMBOLS = {
    "planned": "…",
    "intent": "→",
    "bought": "✓",
    "active": "▶",
    "ended": "■",
    "missed": "✗",
    "failed": "✗",
    "unknown": "?",
    "cancelled": "-",
}


def render_offers(
    found: Sequence[Found], sources: Sequence[Source], job: Job, limit: int, now: datetime
) -> str:
    """The offers, what the job needs, and what it costs without them."""
    shown = found if limit == 0 else found[:limit]
    parts = [_need(job, found)]
    if shown:
        parts.append(table_text(_HEAD, [_cells(row, job, now) for row in shown], _RIGHT))
    notes = [_compare(job), *_notes(found, shown), *_sources(sources)]
    return "\n\n".join([*parts, "\n".join(notes)])


_HEAD = (
    "offer",
    "where",
    "machines",
    "starts (UTC)",
    "usable h",
    "pays $",
    "this job $",
    "$/useful GPU-h",
    "P(in time)",
)
_RIGHT = ("usable h", "pays $", "this job $", "$/useful GPU-h", "P(in time)")


def _cells(row: Found, job: Job, now: datetime) -> tuple[str, ...]:
    offer, per_gpu = row.offer, row.usd_per_useful_gpu_h
    chance = row.sized.chance(offer, job.deadline)
    return (
        offer.offer_id,
        f"{offer.provider} {offer.zone or offer.region}",
        f"{offer.nodes} x {offer.machine.instance_type} ({offer.machine.gpus_per_node} x {offer.machine.gpu})",
        start_text(offer, now),
        f"{offer.usable_h:,.1f}",
        _pays(offer),
        _dollars(row.cost_usd),
        _dollars(per_gpu),
        "-" if chance is None else f"{chance:.0%}",
    )


def _need(job: Job, found: Sequence[Found]) -> str:
    kinds = [found[0].sized] if found else [one for sizes in job.sized.values() for one in sizes][:1]
    if not kinds:
        return f"{job.loaded.spec.name}: fits on no machine that can be reserved and that the spec allows"
    one = kinds[0]
    return (
        f"{job.loaded.spec.name} on {one.nodes} x {one.machine.instance_type}: {one.hours.p50:,.1f} h"
        f" (p90 {one.hours.p90:,.1f}), reserved for {one.needed_h:,.1f} h with {one.margin_h:,.1f} h of margin"
    )


def _compare(job: Job) -> str:
    others = job.others
    return f"without a reservation: spot {_cost(others.spot)}, on demand {_cost(others.on_demand)}"


def _cost(priced: Priced | None) -> str:
    if priced is None:
        return "not known"
    offer = priced.offer
    machines = f"{priced.nodes} x {offer.gpus_per_node} {offer.gpu}"
    return f"about ${priced.cost_usd.p50:,.2f} ({offer.cloud} {offer.region}, {machines})"


def _notes(found: Sequence[Found], shown: Sequence[Found]) -> Iterable[str]:
    if len(shown) < len(found):
        yield f"shown {len(shown)} of {len(found)} offers, the cheapest; --limit 0 shows all"
    best = next((row for row in shown if row.break_even_h is not None), None)
    if best is not None and best.break_even_h is not None:
        yield (
            f"break-even: {best.offer.offer_id} costs what {best.break_even_h:,.1f} h of the same machines cost on"
            f" demand; the job takes {best.sized.hours.p50:,.1f} h"
        )
    if any(row.offer.provider not in PAID_UP_FRONT for row in shown):
        yield "what pays by the hour (/h) costs from its start until it is given back; this job $ is for its p50"
    if any(not row.offer.refundable for row in shown):
        yield "what is paid up front is not refunded, used or not"
    for provider in dict.fromkeys(row.offer.provider for row in shown):
        if (text := note(provider)) is not None:
            yield f"{provider}: {text}"


def _sources(sources: Sequence[Source]) -> Iterable[str]:
    for row in sources:
        if row.status != "ok":
            yield f"{row.status}: {row.provider}{' ' + row.region if row.region else ''}: {row.message}"


def render_purchase(row: Found, job: Job) -> str:
    """What will be bought, for the person who is asked to agree."""
    offer, sized = row.offer, row.sized
    place = offer.zone or offer.region
    lines = [
        ("offer", f"{offer.offer_id} from {offer.provider}"),
        (
            "machines",
            f"{offer.nodes} x {offer.machine.instance_type} ({offer.gpus_total} x {offer.machine.gpu}) in {place}",
        ),
        (
            "time",
            f"{_moment(offer.start_at)} to {_moment(offer.end_at)} UTC, {offer.usable_h:,.1f} usable hours",
        ),
        ("job", f"{job.loaded.spec.name} takes {sized.hours.p50:,.1f} h (p90 {sized.hours.p90:,.1f})"),
        ("price", _price(offer)),
        ("instead", _compare(job)),
        ("refund", "possible" if offer.refundable else "none, used or not"),
    ]
    lines += [("note", text)] if (text := note(offer.provider)) is not None else []
    return "\n".join(f"{name:<8} {text}" for name, text in lines)


def _price(offer: CapacityOffer) -> str:
    """What is agreed to: paid at once, or the most that the hours cost."""
    if offer.upfront_usd is None:
        return _pays(offer)
    due = f"${amount_due(offer):,.2f}"
    if offer.provider in PAID_UP_FRONT:
        return f"{due} up front"
    return f"{due} if it is held to its end, billed by the hour{'' if offer.refundable else ', used or not'}"


def render_calendar(found: Sequence[Found]) -> str:
    """Start dates down, regions across: dollars of this job and per useful GPU-hour of the cheapest."""
    regions = sorted({row.offer.region for row in found})
    cheapest: dict[tuple[str, str], Found] = {}
    for row in found:
        key = (f"{row.offer.start_at:%Y-%m-%d %a}", row.offer.region)
        if key not in cheapest or _price_order(row) < _price_order(cheapest[key]):
            cheapest[key] = row
    days = sorted({day for day, _ in cheapest})
    rows = [(day, *(_day(cheapest.get((day, region))) for region in regions)) for day in days]
    legend = "$ of this job ($ per useful GPU-hour), by start date (UTC) and region; . is no offer"
    return f"{table_text(('start', *regions), rows, regions)}\n\n{legend}"


def _price_order(row: Found) -> tuple[bool, float]:
    """What has no known price comes last."""
    return row.cost_usd is None, row.cost_usd or 0.0


def _pays(offer: CapacityOffer) -> str:
    """Everything at once, or so much an hour."""
    if offer.provider in PAID_UP_FRONT and offer.upfront_usd is not None:
        return f"{amount_due(offer):,.2f} up front"
    return "?" if offer.usd_per_hour is None else f"{offer.usd_per_hour:,.2f}/h"


def held_text(offer: CapacityOffer) -> str:
    """What holding it to its end costs, where the job need not; empty where everything is paid at once or unknown."""
    if offer.provider in PAID_UP_FRONT or offer.upfront_usd is None:
        return ""
    return f"${amount_due(offer):,.2f} if it is held to its end"


def start_text(offer: CapacityOffer, now: datetime) -> str:
    """When machines can be started; what can be had at once is offered from the full hour before."""
    return "now" if offer.start_at <= now else _moment(offer.start_at)


def _day(row: Found | None) -> str:
    if row is None:
        return "."
    cost = "?" if row.cost_usd is None else f"{row.cost_usd:,.0f}"
    return f"{cost} ({_dollars(row.usd_per_useful_gpu_h)})"


def _dollars(amount: float | None) -> str:
    return "?" if amount is None else f"{amount:,.2f}"


def render_reservations(rows: Sequence[Reservation]) -> str:
    """One line each; what needs a person is said below."""
    if not rows:
        return "no reservations"
    head = ("reservation", "state", "provider", "starts (UTC)", "ends (UTC)", "cap $", "paid $", "run")
    cells = [
        (
            row.reservation_id,
            f"{_SYMBOLS[row.state]} {row.state}",
            row.provider,
            _moment(row.start_at),
            _moment(row.end_at),
            usd_text_of_micro(row.price_cap_micro_usd),
            "-" if row.paid_micro_usd is None else usd_text_of_micro(row.paid_micro_usd),
            row.run_id or "-",
        )
        for row in rows
    ]
    needed = [f"{row.reservation_id}: {row.warning or row.state_reason}" for row in rows if row.needs_person]
    notes = "\n".join(["needs a person:", *needed]) if needed else ""
    text = table_text(head, cells, ("cap $", "paid $"))
    return f"{text}\n\n{notes}" if notes else text


def render_reservation(row: Reservation, history: Sequence[ReservationEvent]) -> str:
    """Everything about one, with its history."""
    offer = row.offer or row.want.offer
    late = "not confirmed yet" if row.provider in PAID_UP_FRONT else "by the hour"
    unpaid = "nothing yet" if row.provider_ref is None else late
    paid = unpaid if row.paid_micro_usd is None else f"${usd_text_of_micro(row.paid_micro_usd)}"
    lines = [
        f"reservation {row.reservation_id}: {row.state} since {row.state_since_at}: {row.state_reason}",
        f"provider    {row.provider}{'' if row.provider_ref is None else f', {row.provider_ref}'}",
        f"time        {_moment(row.start_at)} to {_moment(row.end_at)} UTC; decided by {row.decide_by_at}",
        f"money       cap ${usd_text_of_micro(row.price_cap_micro_usd)}, paid {paid}",
        f"token       {row.token} (tag tuneplan-reservation)",
    ]
    if offer is not None:
        place = offer.zone or offer.region
        lines.insert(2, f"machines    {offer.nodes} x {offer.machine.instance_type} in {place}")
    if row.launch is not None:
        lines.append(f"run         {row.run_id or f'{row.launch.run_id}, starts with the capacity'}")
    if row.warning is not None:
        lines.append(f"look at     {row.warning}")
    return "\n".join([*lines, "", *(f"{event.at}  {event.state:<9}  {event.reason}" for event in history)])


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
