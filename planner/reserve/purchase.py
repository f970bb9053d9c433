"""Buys a reservation once: the ledger first, then the provider, then the ledger again.

`advance` may be killed at any line, in any number of processes, and called again. What protects the money:

- Nothing is asked for before the intent, with its token and its price below the cap, is on disk.
- Just before the request leaves, the ledger says so. Of several processes one can write that.
- Once that is written, nothing is bought again for this reservation unless the provider said no. The provider is
  searched for the token; if that finds nothing, the reservation is `unknown` until it does or a person decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from planner.money import micro_usd, usd_text_of_micro
from planner.reserve.book import ReservationBook
from planner.reserve.choice import best_offer
from planner.reserve.found import offer_of
from planner.reserve.reservations import ELSEWHERE, NOT_STARTED, Reservation, ReservationState, state_of
from planner.reserve.sold import PAID_UP_FRONT
from planner.runs import utc_text
from providers.errors import CredentialsError, TuneplanError
from providers.reservations import (
    CapacityOffer,
    Holding,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    ReservationApi,
)

_ROUNDS = 8
#: How long what was bought may take to be found by its token; until then the state says that it is being looked for.
_CONSISTENT_AFTER = timedelta(minutes=15)

#: Machines of a run are not called idle earlier than that after the capacity has begun.
_STARTS_WITHIN = timedelta(minutes=15)
_TWICE = "purchases carry this reservation's token"


def _nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Buyer:
    """What it takes to buy.

    Attributes:
        book: The ledger.
        api: The adapter of a provider.
        now: UTC.
        step: Called with each step before it is taken, for progress.
        looks: How often a lost purchase is searched for before the state becomes unknown.
        pause: Waits that many seconds between those looks.
    """

    book: ReservationBook
    api: Callable[[ProviderName], ReservationApi]
    now: Callable[[], datetime]
    step: Callable[[str], None] = _nothing
    looks: int = 1
    pause: Callable[[float], None] = field(default=time.sleep)

    @property
    def at(self) -> str:
        """The clock as the ledger writes it."""
        return utc_text(self.now())


def advance(buyer: Buyer, reservation_id: str) -> Reservation:
    """Bring one reservation as far as it goes now.

    Raises:
        StorageError: The ledger cannot be written; nothing is lost, call again.
        CredentialsError, LaunchError: The provider refused the login or cannot be reached.
    """
    for _ in range(_ROUNDS):
        reservation = buyer.book.get(reservation_id)
        if reservation.final:
            return reservation
        after = _step(buyer, reservation)
        if after is not None and after.state in ("planned", "unknown", reservation.state):
            return after
    return buyer.book.get(reservation_id)


def _step(buyer: Buyer, reservation: Reservation) -> Reservation | None:
    """One step; None if somebody else was faster and it has to be read again."""
    if reservation.state == "planned":
        return _decide(buyer, reservation)
    if reservation.state == "intent" and reservation.sent_at is None:
        reason = "stopped before anything was asked for"
        buyer.book.move(reservation, "planned", reason, buyer.at)
        return None
    if reservation.state in ("intent", "unknown"):
        return _reconcile(buyer, reservation)
    return _look(buyer, reservation)


def _decide(buyer: Buyer, reservation: Reservation) -> Reservation | None:
    """Buy if it is time, there is an offer below the cap, and it is permitted."""
    now = buyer.now()
    if now < datetime.fromisoformat(reservation.not_before_at):
        return reservation
    is_over = now >= datetime.fromisoformat(reservation.decide_by_at)
    try:
        found = earlier(buyer, reservation, needed=not is_over)
    except CredentialsError as error:
        return _stay(buyer, reservation, f"not permitted: {error.message}", warning=error.hint or "log in")
    if found:
        return adopt(buyer, reservation, found)
    if is_over:
        why = f"not bought by {reservation.decide_by_at}; last: {reservation.state_reason}"
        return buyer.book.move(reservation, "missed", why, buyer.at)
    api = buyer.api(reservation.provider)
    buyer.step("look for the offer and its price")
    offer, reason = best_offer(api, reservation, now)
    if offer is None:
        return _stay(buyer, reservation, reason)
    return _intend(buyer, api, reservation, offer)


def earlier(buyer: Buyer, reservation: Reservation, *, needed: bool) -> Sequence[Holding]:
    """What an earlier try has bought; a ledger that was put back from an older copy knows of none.

    Nothing is bought before that was looked for: then the answer is needed. Else a provider that cannot be asked has
    nothing.
    """
    try:
        return _found(buyer.api(reservation.provider), reservation)
    except TuneplanError:
        if needed:
            raise
        return ()


def _stay(
    buyer: Buyer, reservation: Reservation, reason: str, warning: str | None = None
) -> Reservation | None:
    """Stay planned; where one very offer was agreed to and it is gone or dearer, that is the end."""
    if reservation.want.offer is not None and warning is None:
        return buyer.book.move(reservation, "failed", reason, buyer.at)
    if (reason, warning) == (reservation.state_reason, reservation.warning):
        return reservation
    return buyer.book.move(reservation, "planned", reason, buyer.at, warning=warning)


def _intend(
    buyer: Buyer, api: ReservationApi, reservation: Reservation, offer: CapacityOffer
) -> Reservation | None:
    order = PurchaseOrder(reservation.token, reservation.tries + 1, offer)
    buyer.step("ask whether the purchase is permitted")
    try:
        api.rehearse(order)
    except CredentialsError as error:
        return _stay(buyer, reservation, f"not permitted: {error.message}", warning=error.hint or "log in")
    price = micro_usd(offer.upfront_usd or 0)
    reason = f"buying {offer.nodes} x {offer.machine.instance_type} for ${usd_text_of_micro(price)}"
    buyer.step("record the intent")
    intended = buyer.book.move(
        reservation,
        *("intent", reason, buyer.at),
        offer=offer,
        upfront_micro_usd=price,
        tries=order.attempt,
        sent_at=None,
        warning=None,
    )
    buyer.step("intent recorded")
    return None if intended is None else _send(buyer, api, intended, order)


def _send(
    buyer: Buyer, api: ReservationApi, reservation: Reservation, order: PurchaseOrder
) -> Reservation | None:
    """Hand the purchase to the network, once."""
    if buyer.now() >= datetime.fromisoformat(reservation.decide_by_at):
        buyer.book.move(reservation, "planned", "too late to ask", buyer.at)
        return None
    sent = buyer.book.move(reservation, "intent", reservation.state_reason, buyer.at, sent_at=buyer.at)
    if sent is None:
        return None
    buyer.step("send the purchase")
    try:
        holding = api.purchase(order)
    except PurchaseRefusedError as error:
        return _refused(buyer, sent, error)
    except PurchaseUnclearError as error:
        buyer.step("the answer was lost")
        return _reconcile(buyer, sent, said=error.message)
    buyer.step("bought")
    return adopt(buyer, sent, [holding])


def _refused(buyer: Buyer, reservation: Reservation, error: PurchaseRefusedError) -> Reservation | None:
    """Nothing was bought: an agreed offer has failed, a standing order waits for the next one."""
    state: ReservationState = "planned" if reservation.want.offer is None else "failed"
    return buyer.book.move(reservation, state, f"refused: {error.message}", buyer.at, sent_at=None)


def _reconcile(buyer: Buyer, reservation: Reservation, said: str = "") -> Reservation | None:
    """Something was sent and nobody knows what came of it: look for its token, never buy again."""
    api = buyer.api(reservation.provider)
    for look in range(buyer.looks):
        if look:
            buyer.pause(min(2.0**look, 15.0))
        buyer.step("look for what was bought")
        try:
            found = _found(api, reservation)
        except TuneplanError as error:
            said, found = error.message, ()
        if found:
            return adopt(buyer, reservation, found)
    sent = datetime.fromisoformat(reservation.sent_at or reservation.created_at)
    patient = abs(buyer.now() - sent) < _CONSISTENT_AFTER
    more = "it may still appear" if patient else "look into the provider's console"
    reason = f"a purchase was sent at {reservation.sent_at} and its answer is not known; {more}"
    if said and reservation.state == "intent":
        reason += f" ({said})"
    if (reservation.state, reservation.state_reason) == ("unknown", reason):
        return reservation
    return buyer.book.move(reservation, "unknown", reason, buyer.at)


def _found(api: ReservationApi, reservation: Reservation) -> Sequence[Holding]:
    """All that carries the token, wherever it may have been bought; two pools may be one cluster's."""
    offer = reservation.offer or reservation.want.offer
    regions = dict.fromkeys(([] if offer is None else [offer.region]) + list(reservation.want.regions))
    found: dict[str, Holding] = {}
    for region in regions:
        for holding in api.find(reservation.token, region):
            found.setdefault(holding.provider_ref, holding)
    return list(found.values())


def adopt(buyer: Buyer, reservation: Reservation, found: Sequence[Holding]) -> Reservation | None:
    """Record what was bought; it must get into the ledger whoever else is writing."""
    offered = (
        None if reservation.offer is None else reservation.offer.region
    )  # where it is looked at from now on
    holding = min(
        found,
        key=lambda one: (one.state in ("failed", "cancelled"), one.region != offered, one.provider_ref),
    )
    state, reason = state_of(holding)
    paid = _prepaid(reservation) if holding.paid_usd is None else micro_usd(holding.paid_usd)
    changes: dict[str, object] = {
        "provider_ref": holding.provider_ref,
        "paid_micro_usd": None if holding.state in ("pending", "failed") else paid,
        "warning": _warning(reservation, holding, found),
    }
    if reservation.offer is None:
        changes["offer"] = offer_of(reservation, holding)
    current: Reservation | None = reservation
    for _ in range(_ROUNDS):
        buyer.step("record what was bought")
        if current is not None and (current.provider_ref is None or current.state in ("intent", "unknown")):
            current = buyer.book.move(current, state, reason, buyer.at, **changes)
            if current is not None:
                return current
        current = buyer.book.get(reservation.reservation_id)
        if current.provider_ref is not None:
            return current
    return current


def _prepaid(reservation: Reservation) -> int | None:
    """What is gone with the purchase; None where the time is billed as it goes by."""
    return reservation.upfront_micro_usd if reservation.provider in PAID_UP_FRONT else None


def _warning(reservation: Reservation, holding: Holding, found: Sequence[Holding]) -> str | None:
    """What is not as it was agreed."""
    if len(found) > 1:
        refs = ", ".join(sorted(one.provider_ref for one in found))
        return f"{len(found)} {_TWICE}: {refs}"
    offer = reservation.offer
    if offer is None:
        return None
    got, wanted = (holding.nodes, holding.instance_type), (offer.nodes, offer.machine.instance_type)
    if got != wanted:
        return f"bought {wanted[0]} x {wanted[1]}, the provider shows {got[0]} x {got[1]}"
    return None


def _look(buyer: Buyer, reservation: Reservation) -> Reservation | None:
    """What the provider says of what was bought."""
    offer = reservation.offer
    if offer is None or reservation.provider_ref is None:
        return reservation
    api = buyer.api(reservation.provider)
    holding = api.look(reservation.provider_ref, offer.region)
    now = buyer.now().astimezone(UTC)
    if holding is None:
        if now < offer.end_at:
            return _note(buyer, reservation, f"the provider does not know {reservation.provider_ref}")
        return buyer.book.move(reservation, "ended", "its time is over", buyer.at)
    state, reason = state_of(holding)
    is_billed_on = offer.refundable or offer.open_ended
    if state in ("bought", "active") and is_billed_on and now >= offer.end_at:
        return _give_back(buyer, api, reservation, offer)
    if reservation.state == "active" and state in ("bought", "active"):
        warning = _bought_twice(reservation) or _warning(reservation, holding, [holding])
        warning = warning or _of_its_run(reservation)
        at_work = None if state == "active" else reason  # the provider changes something; that is no way back
        return _note(buyer, reservation, warning or at_work or _idle(reservation, holding, now))
    if (state, reason) == (reservation.state, reservation.state_reason):
        return reservation
    changes: dict[str, object] = {}
    if reservation.paid_micro_usd is None and state in ("bought", "active") and holding.state != "pending":
        changes["paid_micro_usd"] = _prepaid(reservation)
    if state == "failed":
        changes["warning"] = f"{reservation.provider_ref}: {reason}"
    return buyer.book.move(reservation, state, reason, buyer.at, **changes)


def _give_back(
    buyer: Buyer, api: ReservationApi, reservation: Reservation, offer: CapacityOffer
) -> Reservation | None:
    """Its time is over and the provider still bills it."""
    buyer.step("give back what is over")
    try:
        api.cancel(str(reservation.provider_ref), offer.region)
    except TuneplanError as error:
        text = f"its time is over, it is billed on and cannot be given back: {error.message}"
        return _note(buyer, reservation, text)
    return buyer.book.move(reservation, "ended", "its time is over, it was given back", buyer.at)


def _bought_twice(reservation: Reservation) -> str | None:
    """More than one purchase was found; a look at one of them says nothing of the others, so that stands."""
    warning = reservation.warning or ""
    return warning if _TWICE in warning else None


def _of_its_run(reservation: Reservation) -> str | None:
    """What is wrong with its run, as long as that is so: told once, not at every look."""
    reason, warning = reservation.state_reason, reservation.warning or ""
    if reason.startswith(ELSEWHERE):
        return reason
    return warning if reservation.run_id is None and warning.startswith(NOT_STARTED) else None


def _idle(reservation: Reservation, holding: Holding, now: datetime) -> str | None:
    """A paid machine that nobody uses, once a run has had the time to start."""
    since = datetime.fromisoformat(reservation.state_since_at)
    if not holding.free_nodes or now - since < _STARTS_WITHIN:
        return None
    text = f"{holding.free_nodes} of {holding.nodes} paid machines are idle"
    return text if reservation.run_id is None else f"{text}: run {reservation.run_id} does not use them"


def _note(buyer: Buyer, reservation: Reservation, warning: str | None) -> Reservation | None:
    if warning == reservation.warning:
        return reservation
    return buyer.book.move(
        reservation, reservation.state, reservation.state_reason, buyer.at, warning=warning
    )
