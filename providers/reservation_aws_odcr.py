"""EC2 On-Demand Capacity Reservations: machines held from now on, or from a date 5 to 120 days ahead.

They cost the on-demand price from their start to their end, used or not; one that has begun can be given back at any
time. One for a future date commits to at least 14 days from its delivery, is not taken back earlier, and goes on after
that until it is given back. `CreateCapacityReservation` knows a ClientToken, which boto3 does not fill in: ours is of
the reservation and the try.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from providers import aws_capacity
from providers.aws import Aws, aws_errors, purchase_errors
from providers.reservations import (
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    this_hour,
    utc_now,
    whole_hours,
)

#: Dates ahead that a future-dated reservation may start at, and what it commits to.
FUTURE_FROM, FUTURE_TO, COMMITMENT = timedelta(days=5), timedelta(days=120), timedelta(days=14)
#: After its end AWS ends such a one by itself, if nobody is there to give it back. AWS allows no end within the
#: commitment, which counts from a delivery that may be late.
ENDS_AFTER = timedelta(days=1)

#: On-demand price of a machine in a region, US dollars an hour; None if it is not known.
PriceOf = Callable[[Machine, str], float | None]


class OnDemandReservations:
    """Offers are what may be asked for: whether AWS has the machines shows when it is asked."""

    provider: ProviderName = "aws_odcr"

    def __init__(self, price_of: PriceOf, now: Clock = utc_now, aws: Aws | None = None) -> None:
        """Nothing is asked yet.

        Args:
            price_of: From the price snapshot.
            now: UTC.
            aws: Clients to share.
        """
        self._price_of, self._now, self._aws = price_of, now, aws or Aws()

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """One from now on where the job may start now, else one for its date if that is allowed."""
        now = self._now()
        ahead = need.start_from - now
        if ahead < FUTURE_FROM:
            start = this_hour(now) if ahead <= timedelta(minutes=10) else None
            end = None if start is None else start + whole_hours(need.hours) + timedelta(hours=1)
        else:
            start = need.start_from if ahead <= FUTURE_TO else None
            end = None if start is None else start + max(COMMITMENT, whole_hours(need.hours))
        if start is None or end is None or start + timedelta(hours=need.hours) > need.end_by:
            return ()
        return [self._offer(need.machine, need.nodes, region, (start, end))]

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same at the price of now; None once its start is over."""
        if self._now() >= offer.end_at:
            return None
        return self._offer(offer.machine, offer.nodes, offer.region, (offer.start_at, offer.end_at))

    def rehearse(self, order: PurchaseOrder) -> None:
        """CreateCapacityReservation with DryRun.

        Raises:
            CredentialsError: The login may not.
        """
        request = self._request(order)
        aws_capacity.rehearse(self._aws, "create_capacity_reservation", order.offer.region, request)

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Ask for the machines; the request is sent once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        client = self._aws.client("ec2", order.offer.region, spends=True)
        request = self._request(order)
        with purchase_errors("reserve on-demand capacity"):
            answer = client.create_capacity_reservation(**request)
        return aws_capacity.holding_of(answer["CapacityReservation"], order.offer.region)

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Reservations with our token."""
        return aws_capacity.find(self._aws, token, region)

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """One by its id."""
        return aws_capacity.look(self._aws, provider_ref, region)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Give the machines back; what they cost so far stays, and a commitment may cost more.

        Raises:
            LaunchError: AWS refuses.
        """
        client = self._aws.client("ec2", region)
        with aws_errors("cancel the capacity reservation"):
            client.cancel_capacity_reservation(CapacityReservationId=provider_ref)
        holding = self.look(provider_ref, region)
        if holding is None:
            raise PurchaseRefusedError(f"{provider_ref} is not there any more")
        return holding

    def _offer(
        self, machine: Machine, nodes: int, region: str, span: tuple[datetime, datetime]
    ) -> CapacityOffer:
        price = self._price_of(machine, region)
        per_hour = None if price is None else Decimal(str(price)) * nodes
        hours = Decimal(str((span[1] - span[0]).total_seconds())) / 3600
        future = span[0] > self._now() + timedelta(days=1)
        return CapacityOffer(
            provider="aws_odcr",
            provider_offer_id=None,
            machine=machine,
            nodes=nodes,
            region=region,
            zone=f"{region}a",
            start_at=span[0],
            end_at=span[1],
            usable_until=span[1],
            upfront_usd=None if per_hour is None else per_hour * hours,
            usd_per_hour=per_hour,
            refundable=not future,
            open_ended=future,
            source="on-demand price, for the whole time that it is held",
            as_of_at=self._now().isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    def _request(self, order: PurchaseOrder) -> dict[str, Any]:
        offer = order.offer
        request: dict[str, Any] = {
            "ClientToken": order.client_token,
            "InstanceType": offer.machine.instance_type,
            "InstancePlatform": aws_capacity.PLATFORM,
            "AvailabilityZone": offer.zone,
            "InstanceCount": offer.nodes,
            "InstanceMatchCriteria": "targeted",  # nothing of somebody else's lands in it
            "TagSpecifications": aws_capacity.tag_specifications(order),
        }
        if offer.start_at - self._now() >= FUTURE_FROM - timedelta(hours=1):
            committed = round((offer.end_at - offer.start_at).total_seconds())
            end = {"EndDate": offer.end_at + ENDS_AFTER, "EndDateType": "limited"}
            future = {"CommitmentDuration": committed, "DeliveryPreference": "incremental"}
            return request | {"StartDate": offer.start_at} | future | end
        return request | {"EndDate": offer.end_at, "EndDateType": "limited"}
