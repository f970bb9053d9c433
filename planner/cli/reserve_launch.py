"""`plan launch --reservation`: the run goes where the reserved capacity is, and ends before it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.cli.context import App
from planner.cli.reserve_desk import open_book
from planner.reserve.rest import CHECKPOINT_S, left_of
from planner.reserve.sold import no_runs
from providers.errors import UsageError
from providers.reservations import whole_hours

if TYPE_CHECKING:
    from planner.intake import Overrides
    from providers.offers import PriceSnapshot
    from providers.reservations import CapacityOffer


@dataclass(frozen=True, slots=True)
class Reserved:
    """Capacity that is there now.

    Attributes:
        reservation_id: Ours.
        provider_ref: The provider's, by which machines are started in it.
        offer: What was bought.
        left_s: Time for the job: until machines are ended, less what a checkpoint takes.
        wait_s: Time that it may wait for machines before.
    """

    reservation_id: str
    provider_ref: str
    offer: CapacityOffer
    left_s: float
    wait_s: float = 0.0

    def snapshot(self) -> PriceSnapshot:
        """The reserved machines as the only offer."""
        from planner.reserve.documents import as_offer
        from providers.offers import PriceSnapshot

        return PriceSnapshot(f"reservation:{self.reservation_id}", (as_offer(self.offer),), (), live=True)

    @property
    def reference(self) -> str:
        """How SkyPilot is told of it; a place in a queue is the terms of waiting there."""
        if self.offer.provider != "gcp_flex_start":
            return self.provider_ref
        from providers.skypilot_reservations import flex_start

        return flex_start(self.left_s + CHECKPOINT_S, self.wait_s)

    def overrides(self) -> Overrides:
        """All of its machines, in its own market."""
        from planner.intake import Overrides

        return Overrides(
            nodes=self.offer.nodes, market="inhouse" if self.offer.provider == "inhouse" else "reserved"
        )


def reserved(app: App, reservation_id: str) -> Reserved:
    """A reservation that a run can be launched in.

    Raises:
        UsageError: It is not bought, or its time has not come or is over.
    """
    with open_book(app) as book:
        row = book.get(reservation_id)
    if row.provider_ref is None or row.offer is None or row.state not in ("bought", "active"):
        raise UsageError(f"reservation {reservation_id} is {row.state}: there is no capacity to run in")
    why = no_runs(row.provider)
    if why is not None:
        raise UsageError(f"reservation {reservation_id}: {why}")
    now = app.now()
    if now < row.offer.start_at:
        hint = "`plan scheduler` starts its run then"
        raise UsageError(
            f"reservation {reservation_id} begins at {row.offer.start_at:%Y-%m-%d %H:%M} UTC", hint=hint
        )
    left_s = left_of(row, now)
    if left_s <= 0:
        raise UsageError(f"the time of reservation {reservation_id} is over")
    if row.provider == "gcp_flex_start":  # the queue is longer than the job
        run_s = min(whole_hours(row.want.hours).total_seconds() - CHECKPOINT_S, left_s)
        return Reserved(reservation_id, row.provider_ref, row.offer, run_s, left_s - run_s)
    return Reserved(reservation_id, row.provider_ref, row.offer, left_s)
