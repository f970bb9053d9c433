"""SageMaker training plans: GPUs for whole days, paid up front, never refunded, usable by SageMaker's own jobs only.

`CreateTrainingPlan` knows no idempotency token, but a plan's name is unique in an account and region: ours is the
reservation's token, the same for every try, so that a second request could not make a second plan. Machines are
ended 30 minutes before the capacity is over
(https://docs.aws.amazon.com/sagemaker/latest/dg/training-plan-utilization-for-training-jobs.html).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from providers.aws import Aws, aws_errors, code_of, purchase_errors
from providers.aws_capacity import TAG
from providers.errors import LaunchError
from providers.reservation_aws_block import block_hours
from providers.reservations import (
    ENDS_EARLY,
    CapacityNeed,
    CapacityOffer,
    Clock,
    Holding,
    HoldingState,
    Machine,
    ProviderName,
    PurchaseOrder,
    PurchaseRefusedError,
    PurchaseUnclearError,
    utc_now,
)

_SOURCE = "SageMaker SearchTrainingPlanOfferings"
_STATES: dict[str, HoldingState] = {
    "Pending": "pending",
    "Scheduled": "scheduled",
    "Active": "active",
    "Expired": "ended",
    "Failed": "failed",
}
_REASONS = {
    "Pending": "the payment is being made",
    "Scheduled": "bought, it starts at its time",
    "Active": "the capacity is there, for SageMaker's own jobs",
    "Expired": "its time is over",
    "Failed": "SageMaker could not make the plan",
}
#: An offering that cannot exist: asking for it says whether one may buy, and buys nothing.
_NO_OFFERING = "tpo-tuneplan-asks-for-permission-only"


class TrainingPlans:
    """Offers and purchases of training plans."""

    provider: ProviderName = "sagemaker_training_plan"

    def __init__(self, now: Clock = utc_now, aws: Aws | None = None) -> None:
        """Nothing is asked yet.

        Args:
            now: UTC.
            aws: Clients to share.
        """
        self._now, self._aws = now, aws or Aws()

    def offers(self, need: CapacityNeed, region: str) -> Sequence[CapacityOffer]:
        """Plans in one piece that are long enough.

        Raises:
            CredentialsError, LaunchError: AWS refuses or cannot be reached.
        """
        hours = block_hours(need.hours)
        if hours is None:
            return ()
        span = (max(need.start_from, self._now()), need.end_by + timedelta(hours=hours))
        return self._search(need.machine, need.nodes, hours, region, span)

    def requote(self, offer: CapacityOffer) -> CapacityOffer | None:
        """The same plan as it is sold now: its id and price may be others at each look."""
        hours = round((offer.end_at - offer.start_at).total_seconds() / 3600)
        span = (offer.start_at, offer.end_at)
        found = self._search(offer.machine, offer.nodes, hours, offer.region, span)
        same = [other for other in found if other.offer_id == offer.offer_id]
        return min(same, key=lambda other: other.upfront_usd or 0, default=None)

    def rehearse(self, order: PurchaseOrder) -> None:
        """Ask for a plan that cannot exist: SageMaker has no dry run, and looks at rights before offerings.

        Raises:
            CredentialsError: The login may not buy.
            LaunchError: SageMaker cannot be reached.
        """
        from botocore.exceptions import ClientError

        client = self._aws.client("sagemaker", order.offer.region, spends=True)
        name = f"{order.token}-may-i"
        with aws_errors("ask for the right to buy a training plan"):
            try:
                client.create_training_plan(TrainingPlanName=name, TrainingPlanOfferingId=_NO_OFFERING)
            except ClientError as error:
                if code_of(error) in ("ResourceNotFound", "ValidationException"):
                    return
                raise
        raise LaunchError(f"SageMaker took {_NO_OFFERING}, which cannot exist; nothing more is asked of it")

    def purchase(self, order: PurchaseOrder) -> Holding:
        """Buy the plan; the request is sent once.

        Raises:
            PurchaseRefusedError, PurchaseUnclearError: As `ReservationApi.purchase`.
        """
        from botocore.exceptions import ClientError

        offer = order.offer
        client = self._aws.client("sagemaker", offer.region, spends=True)
        with purchase_errors("buy the training plan"):
            try:
                client.create_training_plan(**_request(order))
            except ClientError as error:
                if code_of(error) == "ResourceInUse":  # the name is ours alone: an earlier request made it
                    raise PurchaseUnclearError(f"a plan {order.token} is there already") from error
                raise
            found = self.find(order.token, offer.region)
        if not found:
            raise PurchaseUnclearError(f"SageMaker took the plan {order.token}, and does not show it yet")
        return found[0]

    def find(self, token: str, region: str) -> Sequence[Holding]:
        """The plan of our name, if there is one."""
        found = self.look(token, region)
        return () if found is None else (found,)

    def look(self, provider_ref: str, region: str) -> Holding | None:
        """A plan by its name or ARN."""
        from botocore.exceptions import ClientError

        client = self._aws.client("sagemaker", region)
        with aws_errors("look at the training plan"):
            try:
                row = client.describe_training_plan(TrainingPlanName=provider_ref)
            except ClientError as error:
                if code_of(error) == "ResourceNotFound":
                    return None
                raise
        return _holding(row, region)

    def cancel(self, provider_ref: str, region: str) -> Holding:
        """Not possible.

        Raises:
            PurchaseRefusedError: Always.
        """
        raise PurchaseRefusedError(
            f"{provider_ref} in {region}: a training plan cannot be cancelled or refunded"
        )

    def _search(
        self, machine: Machine, nodes: int, hours: int, region: str, span: tuple[datetime, datetime]
    ) -> list[CapacityOffer]:
        now = self._now()
        client = self._aws.client("sagemaker", region)
        with aws_errors("list training plans"):
            answer = client.search_training_plan_offerings(
                InstanceType=f"ml.{machine.instance_type}",
                InstanceCount=nodes,
                DurationHours=hours,
                StartTimeAfter=span[0],
                EndTimeBefore=span[1],
                TargetResources=["training-job"],
            )
        return list(_offers(answer["TrainingPlanOfferings"], machine, region, now))


def _request(order: PurchaseOrder) -> dict[str, Any]:
    if order.offer.provider_offer_id is None:
        raise PurchaseRefusedError("the offer has no id of AWS's")
    return {
        "TrainingPlanName": order.token,
        "TrainingPlanOfferingId": order.offer.provider_offer_id,
        "Tags": [{"Key": TAG, "Value": order.token}],
    }


def _offers(
    rows: Sequence[dict[str, Any]], machine: Machine, region: str, now: datetime
) -> Iterator[CapacityOffer]:
    """Offers in US dollars and in one piece; a plan of several pieces would move the job between them."""
    for row in rows:
        pieces = row.get("ReservedCapacityOfferings", ())
        if row.get("CurrencyCode") != "USD" or len(pieces) != 1:
            continue
        (piece,) = pieces
        start_at, end_at = piece["StartTime"].astimezone(UTC), piece["EndTime"].astimezone(UTC)
        upfront = Decimal(row["UpfrontFee"])
        hours = Decimal(str((end_at - start_at).total_seconds())) / 3600
        yield CapacityOffer(
            provider="sagemaker_training_plan",
            provider_offer_id=row["TrainingPlanOfferingId"],
            machine=machine,
            nodes=piece["InstanceCount"],
            region=region,
            zone=piece.get("AvailabilityZone"),
            start_at=start_at,
            end_at=end_at,
            usable_until=end_at - ENDS_EARLY,
            upfront_usd=upfront,
            usd_per_hour=upfront / hours,
            refundable=False,
            source=_SOURCE,
            as_of_at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )


def _holding(row: dict[str, Any], region: str) -> Holding:
    """A training plan in our words; a state that is newer than this code counts as pending."""
    piece: dict[str, Any] = next(iter(row.get("ReservedCapacitySummaries", ())), {})
    state = str(row.get("Status", ""))
    fee = row.get("UpfrontFee")
    paid = Decimal(fee) if fee is not None and row.get("CurrencyCode") == "USD" else None
    return Holding(
        provider_ref=row["TrainingPlanArn"],
        state=_STATES.get(state, "pending"),
        reason=row.get("StatusMessage") or _REASONS.get(state, f"SageMaker says {state or 'nothing'}"),
        region=region,
        zone=piece.get("AvailabilityZone"),
        instance_type=str(piece.get("InstanceType", "")).removeprefix("ml."),
        nodes=int(row.get("TotalInstanceCount", 0)),
        start_at=row.get("StartTime"),
        end_at=row.get("EndTime"),
        paid_usd=paid,
        free_nodes=row.get("AvailableInstanceCount") if state == "Active" else None,
    )
