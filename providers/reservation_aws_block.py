"""EC2 Capacity Blocks for ML: GPUs for whole days, paid up front, never refunded.

Rules of the service, as documented: 1 to 14 days in steps of one, then to 182 days in steps of seven; at most 64
machines; starts up to 8 weeks ahead; machines are ended 30 minutes before the block is over. A purchase has no
idempotency token, so ours is a tag.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from providers import aws_capacity
from providers.aws import Aws, aws_errors, purchase_errors
from providers.reservations import (
    ENDS_EARLY,
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    utc_now,
)

MOST_NODES = 64
#: How far ahead a block may start.
HORIZON = timedelta(weeks=8)
_DAY_H, _WEEK_H = 24, 168
_MOST_DAYS, _MOST_WEEKS = 14, 26
_SOURCE = "EC2 DescribeCapacityBlockOfferings"


def block_hours(usable_h: float) -> int | None:
    """Length of the shortest block with so many usable hours; None if there is none so long.

    >>> block_hours(10), block_hours(23.6), block_hours(15 * 24), block_hours(5000)
    (24, 48, 504, None)
    """
    hours = usable_h + ENDS_EARLY.total_seconds() / 3600
    days = max(math.ceil(hours / _DAY_H), 1)
    if days <= _MOST_DAYS:
        return days * _DAY_H
    weeks = math.ceil(hours / _WEEK_H)
    return weeks * _WEEK_H if weeks <= _MOST_WEEKS else None


class CapacityBlocks:
    """Offers and purchases of capacity blocks."""

    provider: ProviderName = "aws_capacity_block"

    def __init__(self, now: Clock = utc_now, aws: Aws | None = None) -> None:
        """Nothing is asked yet.

        Args:
            now: UTC; EC2 refuses to look for blocks of the past.
            aws: Clients to share.
        """
        self._now = now
        self._aws = aws or Aws()

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """Blocks that are long enough and start in time.

        Raises:
            CredentialsError, LaunchError: AWS refuses or cannot be reached.
        """
        hours = block_hours(need.hours)
        if hours is None or need.nodes > MOST_NODES:
            return ()
        found = self._describe(need.machine, need.nodes, hours, region, need.start_from, need.end_by)
        return [offer for offer in found if offer.usable_until <= need.end_by or _covers(offer, need)]

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same block as it is sold now: EC2 gives it another id and maybe another price at each look."""
        hours = round((offer.end_at - offer.start_at).total_seconds() / 3600)
        found = self._describe(
            *(offer.machine, offer.nodes, hours, offer.region, offer.start_at, offer.end_at)
        )
        same = [other for other in found if other.offer_id == offer.offer_id]
        return min(same, key=lambda other: other.upfront_usd or 0, default=None)

    def rehearse(self, order: PurchaseOrder) -> None:
        """PurchaseCapacityBlock with DryRun.

        Raises:
            CredentialsError: The login may not buy.
        """
        aws_capacity.rehearse(self._aws, "purchase_capacity_block", order.offer.region, _request(order))

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Buy the block; the request is sent once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        client = self._aws.client("ec2", order.offer.region, spends=True)
        with purchase_errors("buy the capacity block"):
            answer = client.purchase_capacity_block(**_request(order))
        return aws_capacity.holding_of(answer["CapacityReservation"], order.offer.region)

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """Blocks with our token."""
        return aws_capacity.find(self._aws, token, region)

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """A block by the id of its reservation."""
        return aws_capacity.look(self._aws, provider_ref, region)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Not possible.

        Raises:
            PurchaseRefusedError: Always.
        """
        raise PurchaseRefusedError(
            f"{provider_ref} in {region}: a capacity block cannot be cancelled or refunded"
        )

    def _describe(
        self, machine: Machine, nodes: int, hours: int, region: str, start_from: datetime, end_by: datetime
    ) -> list[CapacityOffer]:
        now = self._now()
        request: dict[str, Any] = {
            "InstanceType": machine.instance_type,
            "InstanceCount": nodes,
            "CapacityDurationHours": hours,
            "StartDateRange": max(start_from, now),
            "EndDateRange": max(end_by, start_from) + timedelta(hours=hours),
        }
        client = self._aws.client("ec2", region)
        with aws_errors("list capacity blocks"):
            pages = client.get_paginator("describe_capacity_block_offerings").paginate(**request)
            rows = [row for page in pages for row in page.get("CapacityBlockOfferings", ())]
        return list(_offers(rows, machine, region, now))


def _covers(offer: CapacityOffer, need: CapacityNeed) -> bool:
    """The job is done in time although the block goes on."""
    first = max(offer.start_at, need.start_from)
    return need.end_by - first >= timedelta(hours=need.hours)


def _request(order: PurchaseOrder) -> dict[str, Any]:
    if order.offer.provider_offer_id is None:
        raise PurchaseRefusedError("the offer has no id of AWS's")
    return {
        "CapacityBlockOfferingId": order.offer.provider_offer_id,
        "InstancePlatform": aws_capacity.PLATFORM,
        "TagSpecifications": aws_capacity.tag_specifications(order),
    }


def _offers(
    rows: Sequence[dict[str, Any]], machine: Machine, region: str, now: datetime
) -> Iterator[CapacityOffer]:
    """Offers in US dollars and in one piece; a block of several segments would move the job between them."""
    for row in rows:
        if row.get("CurrencyCode") != "USD" or len(row.get("CapacityBlockOfferingSegments", ())) > 1:
            continue
        start_at, end_at = row["StartDate"].astimezone(UTC), row["EndDate"].astimezone(UTC)
        upfront = Decimal(row["UpfrontFee"])
        yield CapacityOffer(
            provider="aws_capacity_block",
            provider_offer_id=row["CapacityBlockOfferingId"],
            machine=machine,
            nodes=row["InstanceCount"],
            region=region,
            zone=row.get("AvailabilityZone"),
            start_at=start_at,
            end_at=end_at,
            usable_until=end_at - ENDS_EARLY,
            upfront_usd=upfront,
            usd_per_hour=upfront / row["CapacityBlockDurationHours"],
            refundable=False,
            source=_SOURCE,
            as_of_at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )
