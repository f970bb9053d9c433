"""EC2 capacity reservations as AWS describes them: what capacity blocks and on-demand reservations share."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from providers.aws import Aws, aws_errors, code_of
from providers.errors import CredentialsError
from providers.reservations import Holding, HoldingState, PurchaseOrder

TAG = "tuneplan-reservation"
PLATFORM = "Linux/UNIX"
_STATES: dict[str, HoldingState] = {
    "payment-pending": "pending",
    "pending": "pending",
    "assessing": "pending",
    "delayed": "pending",
    "scheduled": "scheduled",
    "active": "active",
    "unavailable": "active",
    "expired": "ended",
    "cancelling": "cancelled",
    "cancelled": "cancelled",
    "failed": "failed",
    "payment-failed": "failed",
    "unsupported": "failed",
}
_REASONS = {
    "assessing": "AWS is still deciding: the capacity is not promised yet",
    "delayed": "AWS is late: the capacity is not there yet",
    "payment-pending": "the payment is being made",
    "payment-failed": "the payment failed: the block is not ours",
    "unavailable": "AWS says that the capacity is not available at the moment",
    "unsupported": "AWS cannot supply this capacity",
    "scheduled": "bought, it starts at its time",
    "active": "the capacity is there",
    "expired": "its time is over",
}


def tag_specifications(order: PurchaseOrder) -> list[dict[str, Any]]:
    """The token as a tag, which is there as soon as the reservation is."""
    tags = [{"Key": TAG, "Value": order.token}, {"Key": "tuneplan-try", "Value": str(order.attempt)}]
    return [{"ResourceType": "capacity-reservation", "Tags": tags}]


def rehearse(aws: Aws, operation: str, region: str, request: dict[str, Any]) -> None:
    """Call with DryRun: EC2 checks rights and arguments, and does nothing.

    Raises:
        CredentialsError: The login may not do it.
        LaunchError: The arguments are refused.
    """
    from botocore.exceptions import ClientError

    client = aws.client("ec2", region)
    with aws_errors(f"rehearse {operation}"):
        try:
            getattr(client, operation)(**request, DryRun=True)
        except ClientError as error:
            if code_of(error) == "DryRunOperation":
                return
            raise
    raise CredentialsError(f"{operation} answered a dry run as if it were real; nothing more is asked of it")


def find(aws: Aws, token: str, region: str) -> list[Holding]:
    """Every reservation with our token, whatever its state."""
    filters = [{"Name": f"tag:{TAG}", "Values": [token]}]
    return list(_describe(aws, region, {"Filters": filters}))


def look(aws: Aws, provider_ref: str, region: str) -> Holding | None:
    """One reservation, None if EC2 knows none of that id."""
    filters = [{"Name": "capacity-reservation-id", "Values": [provider_ref]}]
    return next(_describe(aws, region, {"Filters": filters}), None)


def _describe(aws: Aws, region: str, request: dict[str, Any]) -> Iterator[Holding]:
    client = aws.client("ec2", region)
    with aws_errors("list capacity reservations"):
        pages = client.get_paginator("describe_capacity_reservations").paginate(**request)
        rows = [row for page in pages for row in page.get("CapacityReservations", ())]
    yield from (holding_of(row, region) for row in rows)


def holding_of(row: dict[str, Any], region: str) -> Holding:
    """A CapacityReservation in our words; a state that is newer than this code counts as pending."""
    state = str(row.get("State", ""))
    return Holding(
        provider_ref=row["CapacityReservationId"],
        state=_STATES.get(state, "pending"),
        reason=_REASONS.get(state, f"AWS says {state or 'nothing'}"),
        region=region,
        zone=row.get("AvailabilityZone"),
        instance_type=str(row.get("InstanceType")),
        nodes=int(row.get("TotalInstanceCount", 0)),
        start_at=_moment(row.get("StartDate")),
        end_at=_moment(row.get("EndDate")),
        free_nodes=row.get("AvailableInstanceCount") if state == "active" else None,
    )


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None
