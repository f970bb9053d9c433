"""`plan launch --reservation`: the run goes where the reserved capacity is, and ends before it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.cli.context import App
from planner.cli.reserve_desk import open_book
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.intake import Overrides
    from providers.offers import PriceSnapshot
    from providers.reservations import CapacityOffer

#: The worker gets this long to commit a checkpoint before machines are ended.
CHECKPOINT_S = 600.0


@dataclass(frozen=True, slots=True)
class Reserved:
    """Capacity that is there now.

    Attributes:
        reservation_id: Ours.
        provider_ref: The provider's, by which machines are started in it.
        offer: What was bought.
        left_s: Time for the job: until machines are ended, less what a checkpoint takes.
    """

    reservation_id: str
    provider_ref: str
    offer: CapacityOffer
    left_s: float

    def snapshot(self) -> PriceSnapshot:
        """The reserved machines as the only offer."""
        from planner.reserve.documents import as_offer
        from providers.offers import PriceSnapshot

        return PriceSnapshot(f"reservation:{self.reservation_id}", (as_offer(self.offer),), (), live=True)

    def overrides(self) -> Overrides:
        """All of its machines, in its own market."""
        from planner.intake import Overrides

        return Overrides(nodes=self.offer.nodes, market="reserved")


def reserved(app: App, reservation_id: str) -> Reserved:
    """A reservation that a run can be launched in.

    Raises:
        UsageError: It is not bought, or its time has not come or is over.
    """
    with open_book(app) as book:
        row = book.get(reservation_id)
    if row.provider_ref is None or row.offer is None or row.state not in ("bought", "active"):
        raise UsageError(f"reservation {reservation_id} is {row.state}: there is no capacity to run in")
    now = app.now()
    if now < row.offer.start_at:
        hint = "`plan scheduler` starts its run then"
        raise UsageError(
            f"reservation {reservation_id} begins at {row.offer.start_at:%Y-%m-%d %H:%M} UTC", hint=hint
        )
    left_s = (row.offer.usable_until - now).total_seconds() - CHECKPOINT_S
    if left_s <= 0:
        raise UsageError(f"the time of reservation {reservation_id} is over")
    return Reserved(reservation_id, row.provider_ref, row.offer, left_s)
