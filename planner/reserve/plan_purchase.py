"""Records what shall be bought, once for each wish."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_UP, Decimal

from planner.money import micro_usd
from planner.reserve.book import ReservationBook, Terms
from planner.reserve.reservations import LaunchPlan, Reservation, Want, purchase_token
from planner.runs import utc_text
from providers.errors import UsageError
from providers.reservations import CapacityOffer, ProviderName

#: An agreed offer is bought at once or not at all.
AGREED_FOR = timedelta(minutes=15)


def amount_due(offer: CapacityOffer) -> Decimal:
    """The amount that a person agrees to: the price up front, to the next cent.

    Raises:
        UsageError: The offer has no price up front.
    """
    if offer.upfront_usd is None:
        raise UsageError(f"offer {offer.offer_id} has no price up front", code="no_price")
    return offer.upfront_usd.quantize(Decimal("0.01"), rounding=ROUND_UP)


@dataclass(frozen=True, slots=True)
class Standing:
    """A wish to buy whatever suits, as soon as it is there.

    Attributes:
        provider: Who is asked.
        want: What suits.
        cap_usd: Most that may be paid up front.
        not_before: When looking begins.
        decide_by: When it ends.
    """

    provider: ProviderName
    want: Want
    cap_usd: float
    not_before: datetime
    decide_by: datetime


def bought_before(book: ReservationBook, offer: CapacityOffer) -> Reservation | None:
    """The reservation that this very offer is for, if there is one that has not ended without it."""
    alive = [row for row in book.all() if row.state not in ("missed", "failed", "cancelled")]
    return next((row for row in alive if _offer_id(row) == offer.offer_id), None)


def _offer_id(row: Reservation) -> str | None:
    wanted = row.offer or row.want.offer
    return None if wanted is None else wanted.offer_id


def agree(
    book: ReservationBook,
    reservation_id: str,
    offer: CapacityOffer,
    needed_h: float,
    agreed_usd: Decimal,
    now: datetime,
    launch: LaunchPlan | None,
) -> Reservation:
    """Record that one very offer shall be bought now, for at most the amount that was agreed to."""
    want = Want(offer.nodes, needed_h, offer.start_at, offer.end_at, (offer.region,), (offer.machine,), offer)
    terms = Terms(
        reservation_id,
        offer.provider,
        purchase_token(reservation_id, secrets.token_hex(16)),
        want,
        micro_usd(agreed_usd),
        utc_text(now),
        utc_text(min(now + AGREED_FOR, offer.start_at) if offer.start_at > now else now + AGREED_FOR),
        launch,
    )
    return _recorded(book, terms, utc_text(now), f"agreed to ${agreed_usd}")


def stand(
    book: ReservationBook, reservation_id: str, wish: Standing, now: datetime, launch: LaunchPlan | None
) -> Reservation:
    """Record that something suitable shall be bought when it appears."""
    terms = Terms(
        reservation_id,
        wish.provider,
        purchase_token(reservation_id, secrets.token_hex(16)),
        wish.want,
        micro_usd(wish.cap_usd),
        utc_text(wish.not_before),
        utc_text(wish.decide_by),
        launch,
    )
    return _recorded(book, terms, utc_text(now), "waits for an offer below the cap")


def _recorded(book: ReservationBook, terms: Terms, at: str, reason: str) -> Reservation:
    if not book.record(terms, at, reason):
        raise UsageError(
            f"there is a reservation {terms.reservation_id} already",
            hint="choose another --name; `plan reserve show` tells what became of it",
            code="reservation_exists",
        )
    return book.get(terms.reservation_id)
