"""Azure capacity reservation groups: machines held from now on, at the on-demand price, used or not.

A reservation is made by a PUT under its name: ours is the reservation's token, the same for every try, so that a
second request could not make a second one. **It has no end**: Azure bills it until it is deleted, so its end is kept
in a tag, and whoever looks at it after that time (`plan scheduler`) gives it back.
https://learn.microsoft.com/azure/virtual-machines/capacity-reservation-overview
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from providers.azure_compute import Azure, azure_errors, purchase_errors
from providers.errors import TuneplanError
from providers.reservations import (
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    HoldingState,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    after_acceptance,
    at_list_price,
    this_hour,
    utc_now,
    whole_hours,
)

TAG = "tuneplan-reservation"
_END = "tuneplan-ends-at"
_WRITE = "Microsoft.Compute/capacityReservationGroups/capacityReservations/write"
_SOURCE = "on-demand price, for the whole time that it is held"
_STATES: dict[str, HoldingState] = {
    "succeeded": "active",
    "failed": "failed",
    "canceled": "cancelled",
    "deleting": "cancelled",
}

#: On-demand price of a machine in a region, US dollars an hour; None if it is not known.
PriceOf = Callable[[Machine, str], float | None]


class CapacityReservationGroups:
    """Offers are what may be asked for: whether Azure has the machines shows when it is asked.

    Args:
        price_of: From the price snapshot.
        now: UTC.
        azure: Clients to share.
    """

    provider: ProviderName = "azure_crg"

    def __init__(self, price_of: PriceOf, now: Clock = utc_now, azure: Azure | None = None) -> None:
        """Nothing is asked yet.

        Raises:
            MissingExtraError, CredentialsError, UsageError: As `Azure`.
        """
        self._price_of, self._now, self._azure = price_of, now, azure or Azure()

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """One from now on, where the job may start now."""
        now = self._now()
        start = this_hour(now)
        end = start + whole_hours(need.hours) + timedelta(hours=1)
        if need.start_from - now > timedelta(minutes=10) or now + timedelta(hours=need.hours) > need.end_by:
            return ()
        return [self._offer(need.machine, need.nodes, region, (start, end))]

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same at the price of now; None once it is over."""
        if self._now() >= offer.end_at:
            return None
        return self._offer(offer.machine, offer.nodes, offer.region, (offer.start_at, offer.end_at))

    def rehearse(self, order: PurchaseOrder) -> None:
        """Ask whether the login may write reservations in the resource group.

        Raises:
            CredentialsError: It may not.
            LaunchError: There is no such resource group.
        """
        self._azure.may(_WRITE)

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Make the group, which is free, then the reservation; each request is sent once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        from azure.mgmt.compute.models import CapacityReservation, CapacityReservationGroup, Sku

        azure, offer = self._azure, order.offer
        tags = {TAG: order.token, _END: offer.end_at.isoformat()}
        client = azure.client(spends=True)
        group = CapacityReservationGroup(location=offer.region, tags=tags)
        try:
            with azure_errors("make the capacity reservation group"):
                client.capacity_reservation_groups.create_or_update(
                    azure.group, order.token, group, **azure.options
                )
        except TuneplanError as error:  # whatever became of it, a group alone costs nothing
            raise PurchaseRefusedError(error.message, hint=error.hint) from error
        with purchase_errors("make the capacity reservation"):
            sku = Sku(name=offer.machine.instance_type, capacity=offer.nodes)
            wanted = CapacityReservation(location=offer.region, sku=sku, tags=tags)
            poller = client.capacity_reservations.begin_create_or_update(
                azure.group, order.token, order.token, wanted, **azure.options
            )
        with after_acceptance("make the capacity reservation"):  # as where it is not to be found at first
            poller.wait(timeout=120)
            row = poller.result() if poller.done() else None
        return self._pending(order) if row is None else self._holding(row)

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """The reservation of our name, if it lies in the region."""
        row = self._row(token)
        return () if row is None or row.location.lower() != region.lower() else (self._holding(row),)

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One by its name."""
        row = self._row(provider_ref)
        return None if row is None else self._holding(row)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Delete the reservation and its group; what it cost so far stays.

        Raises:
            LaunchError: Azure refuses, as while machines run in it.
        """
        azure, before = self._azure, self._row(provider_ref)
        client = azure.client()
        with azure_errors("give the capacity reservation back"):
            client.capacity_reservations.begin_delete(
                azure.group, provider_ref, provider_ref, **azure.options
            ).result(timeout=120)
            client.capacity_reservation_groups.begin_delete(
                azure.group, provider_ref, **azure.options
            ).result(timeout=120)
        if before is None:
            return Holding(provider_ref, "cancelled", "it is gone", region, None, "", 0, None, None)
        held = self._holding(before)
        return Holding(
            *(provider_ref, "cancelled", "given back", held.region, held.zone),
            *(held.instance_type, held.nodes, held.start_at, held.end_at),
        )

    def _row(self, name: str) -> Any | None:
        from azure.core.exceptions import ResourceNotFoundError

        azure = self._azure
        with azure_errors("look at the capacity reservation"):
            try:
                return azure.client().capacity_reservations.get(
                    azure.group, name, name, expand="instanceView", **azure.options
                )
            except ResourceNotFoundError:
                return None

    def _holding(self, row: Any) -> Holding:
        """A CapacityReservation in our words; a state that is newer than this code counts as pending."""
        said = str(row.properties.provisioning_state or "") if row.properties else ""
        end = (row.tags or {}).get(_END)
        state = _STATES.get(said.lower(), "pending")
        return Holding(
            provider_ref=str(row.name),
            state=state,
            reason=f"Azure says {said or 'nothing'}"
            + ("; it is billed until it is given back" if state == "active" else ""),
            region=str(row.location),
            zone=next(iter(row.zones or ()), None),
            instance_type=str(row.sku.name),
            nodes=int(row.sku.capacity or 0),
            start_at=row.properties.time_created if row.properties else None,
            end_at=None if end is None else datetime.fromisoformat(end).astimezone(UTC),
            free_nodes=_free(row) if state == "active" else None,
        )

    def _pending(self, order: PurchaseOrder) -> Holding:
        """Azure took it and is still at work."""
        offer = order.offer
        return Holding(
            *(order.token, "pending", "Azure is still making it", offer.region, offer.zone),
            *(offer.machine.instance_type, offer.nodes, offer.start_at, offer.end_at),
        )

    def _offer(
        self, machine: Machine, nodes: int, region: str, span: tuple[datetime, datetime]
    ) -> CapacityOffer:
        upfront, per_hour = at_list_price(self._price_of(machine, region), nodes, span[1] - span[0])
        return CapacityOffer(
            provider="azure_crg",
            provider_offer_id=None,
            machine=machine,
            nodes=nodes,
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


def _free(row: Any) -> int | None:
    """Machines of it that nobody uses, where the instance view says."""
    view = row.properties.instance_view if row.properties else None
    used = view.utilization_info if view else None
    if used is None or used.current_capacity is None:
        return None
    return int(used.current_capacity) - len(used.virtual_machines_allocated or ())
