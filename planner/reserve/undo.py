"""Takes reservations back, and records what a person found out about one that is unknown."""

from __future__ import annotations

from planner.reserve.purchase import Buyer, adopt, earlier
from planner.reserve.reservations import Reservation, state_of
from providers.errors import CleanupPendingError, TuneplanError, UsageError


def cancel(buyer: Buyer, reservation_id: str) -> Reservation:
    """Cancel what was not bought yet, or give back what was.

    Raises:
        CleanupPendingError: A purchase is under way or unknown.
        UsageError: It is over.
        PurchaseRefusedError: The provider does not take it back.
    """
    row = buyer.book.get(reservation_id)
    if row.final:
        raise UsageError(f"reservation {reservation_id} is {row.state} already", code="reservation_over")
    if row.state == "planned" or (row.state == "intent" and row.sent_at is None):
        return _moved(buyer, row)
    if row.state in ("intent", "unknown"):
        raise CleanupPendingError(
            f"reservation {reservation_id}: {row.state_reason}",
            hint=f"`plan reserve settle {reservation_id}` once you know what was bought",
        )
    if row.offer is None or row.provider_ref is None:
        raise TuneplanError(f"reservation {reservation_id} has no purchase on record", code="illegal_move")
    given_back = buyer.api(row.provider).cancel(row.provider_ref, row.offer.region)
    state, reason = state_of(given_back)
    done = buyer.book.move(row, state, reason, buyer.at)
    return done or buyer.book.get(reservation_id)


def settle(buyer: Buyer, reservation_id: str, bought: str | None) -> Reservation:
    """Record what a person knows of an unknown purchase; one that is found after all is bought, whatever was said.

    Args:
        buyer: What it takes.
        reservation_id: Which.
        bought: The provider's id of what was bought, None if nothing was.

    Raises:
        UsageError: It is not unknown, or the provider knows nothing of that id.
    """
    row = buyer.book.get(reservation_id)
    if row.state != "unknown":
        raise UsageError(f"reservation {reservation_id} is {row.state}, there is nothing to settle")
    offer = row.offer
    found = earlier(buyer, row, needed=False) if bought is None else ()
    if found:  # it has appeared since that look
        adopt(buyer, row, found)
        return buyer.book.get(reservation_id)
    if bought is None:
        reason = "nothing was bought, a person says after a look"
        return buyer.book.move(row, "failed", reason, buyer.at) or buyer.book.get(reservation_id)
    holding = None if offer is None else buyer.api(row.provider).look(bought, offer.region)
    if holding is None:
        raise UsageError(f"{row.provider} knows nothing of {bought}")
    adopt(buyer, row, [holding])
    return buyer.book.get(reservation_id)


def _moved(buyer: Buyer, row: Reservation) -> Reservation:
    done = buyer.book.move(row, "cancelled", "cancelled by the user, nothing was bought", buyer.at)
    if done is None:
        return cancel(buyer, row.reservation_id)
    return done
