"""Google Cloud's flex-start (Dynamic Workload Scheduler): a queue for machines, not a reservation of them.

Nothing is bought ahead: the launch itself asks for all machines at once, waits in Google's queue, and pays from the
moment they start, for at most seven days. So an offer has the earliest start and no promise, and "buying" it records
that the run shall be launched that way; SkyPilot then makes the resize request (`gcp.managed_instance_group`).
https://cloud.google.com/compute/docs/instances/about-flex-start-vms
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from providers.reservations import (
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    at_list_price,
    this_hour,
    utc_now,
    whole_hours,
)

#: Machines are ended after this long.
MOST_RUN = timedelta(days=7)
_SOURCE = "on-demand list price by use; what flex-start costs is said to be lower"

#: On-demand price of a machine in a region, US dollars an hour; None if it is not known.
PriceOf = Callable[[Machine, str], float | None]


class FlexStart:
    """Offers by use, in the queue.

    Args:
        price_of: From the price snapshot.
        now: UTC.
    """

    provider: ProviderName = "gcp_flex_start"

    def __init__(self, price_of: PriceOf, now: Clock = utc_now) -> None:
        """Nothing is asked of Google here: the launch does."""
        self._price_of, self._now = price_of, now

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """The queue from the earliest start on; its end is when the job must be done, at most a week of it running."""
        start = this_hour(max(need.start_from, self._now()))
        run = whole_hours(need.hours)
        if run > MOST_RUN or start + run > need.end_by:
            return ()
        return [self._offer(need, region, (start, min(need.end_by, start + run + MOST_RUN)))]

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same until it is too late."""
        return offer if self._now() < offer.end_at else None

    def rehearse(self, order: PurchaseOrder) -> None:
        """Nothing is asked for that had to be permitted."""

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Nothing is bought: the launch asks for the machines."""
        return self._holding(_ref(order.offer))

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Nothing can have been bought, so there is nothing to find."""
        return ()

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """The place in the queue as it was recorded; Google knows of it once the run is launched."""
        return self._holding(provider_ref) if provider_ref.startswith("flex-start/") else None

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Forget it; a run that was launched is cancelled as a run."""
        held = self._holding(provider_ref)
        return Holding(
            *(provider_ref, "cancelled", "nothing was bought", held.region, None),
            *(held.instance_type, held.nodes, held.start_at, held.end_at),
        )

    def _holding(self, provider_ref: str) -> Holding:
        """What a reference of ours says.

        Raises:
            PurchaseRefusedError: It is none.
        """
        try:
            _, region, kind, nodes, first, last = provider_ref.split("/")
            start, end, count = datetime.fromisoformat(first), datetime.fromisoformat(last), int(nodes)
        except ValueError:
            raise PurchaseRefusedError(f"{provider_ref!r} is no place in a queue") from None
        now = self._now()
        return Holding(
            provider_ref=provider_ref,
            state="scheduled" if now < start else "active" if now < end else "ended",
            reason="the run waits in Google's queue once it is launched; nothing is promised or paid before it starts",
            region=region,
            zone=None,
            instance_type=kind,
            nodes=count,
            start_at=start,
            end_at=end,
        )

    def _offer(self, need: CapacityNeed, region: str, span: tuple[datetime, datetime]) -> CapacityOffer:
        upfront, per_hour = at_list_price(
            self._price_of(need.machine, region), need.nodes, whole_hours(need.hours)
        )
        return CapacityOffer(
            provider="gcp_flex_start",
            provider_offer_id=None,
            machine=need.machine,
            nodes=need.nodes,
            region=region,
            zone=None,
            start_at=span[0],
            end_at=span[1],
            usable_until=span[1],
            upfront_usd=upfront,
            usd_per_hour=per_hour,
            refundable=True,
            source=_SOURCE,
            as_of_at=self._now().isoformat(timespec="seconds").replace("+00:00", "Z"),
        )


def _ref(offer: CapacityOffer) -> str:
    """All that there is to say, as nobody else keeps it."""
    kind, span = offer.machine.instance_type, (offer.start_at.isoformat(), offer.end_at.isoformat())
    return "/".join(("flex-start", offer.region, kind, str(offer.nodes), *span))
