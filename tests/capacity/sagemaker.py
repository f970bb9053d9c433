"""Training plans, which moto lacks, in moto's SageMaker: the same orders, journal and checks as the blocks of EC2."""

from __future__ import annotations

import datetime as dt
import time
import uuid
from typing import Any

from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import ResourceInUseException, ResourceNotFound, SagemakerClientError
from moto.sagemaker.responses import SageMakerResponse

from tests.capacity import ec2
from tests.capacity.shapes import check

PLANS: dict[str, dict[str, Any]] = {}
OFFERINGS: dict[str, dict[str, Any]] = {}
_ARN = "arn:aws:sagemaker:{region}:123456789012:training-plan/{name}"


class AccessDeniedError(SagemakerClientError):
    code = "AccessDeniedException"


class LimitExceededError(SagemakerClientError):
    code = "ResourceLimitExceeded"


def checked(operation: str, answer: dict[str, Any]) -> ActionResult:
    check("sagemaker", operation, answer)
    return ActionResult(answer)


def search_training_plan_offerings(self: SageMakerResponse) -> ActionResult:
    asked, orders, now = self._get_params(), ec2.MARKET.orders(), ec2.MARKET.now()
    kind, hours = asked["InstanceType"].removeprefix("ml."), int(asked["DurationHours"])
    found: list[dict[str, Any]] = []
    if kind in ec2.USD_PER_GPU_HOUR and not orders.get("none"):
        for number, start in enumerate(ec2.starts(now)):
            end = start + dt.timedelta(hours=hours)
            after, before = ec2.moment(asked["StartTimeAfter"]), ec2.moment(asked["EndTimeBefore"])
            if start < after or end > before:
                continue
            found.append(_offering(self.region, kind, int(asked["InstanceCount"]), number, (start, end)))
    OFFERINGS.update({row["TrainingPlanOfferingId"]: row for row in found})
    return checked("SearchTrainingPlanOfferings", {"TrainingPlanOfferings": found})


def _offering(
    region: str, kind: str, count: int, number: int, span: tuple[dt.datetime, dt.datetime]
) -> dict[str, Any]:
    start, end = span
    hours = round((end - start).total_seconds() / 3600)
    factor = ec2.MARKET.orders().get("price_factor", 1.0) * (1 - 0.02 * number)
    piece = {
        "InstanceType": f"ml.{kind}",
        "InstanceCount": count,
        "AvailabilityZone": f"{region}{ec2.ZONES[number % 2]}",
        "DurationHours": hours,
        "DurationMinutes": 0,
        "StartTime": start,
        "EndTime": end,
    }
    return {
        "TrainingPlanOfferingId": f"tpo-{uuid.uuid4().hex[:16]}",
        "TargetResources": ["training-job"],
        "DurationHours": hours,
        "UpfrontFee": f"{ec2.USD_PER_GPU_HOUR[kind] * hours * count * factor:.4f}",
        "CurrencyCode": "USD",
        "ReservedCapacityOfferings": [piece],
    }


def create_training_plan(self: SageMakerResponse) -> ActionResult:
    asked, market = self._get_params(), ec2.MARKET
    name = asked["TrainingPlanName"]
    if market.orders().get("unauthorized"):
        raise AccessDeniedError("not authorized to perform: sagemaker:CreateTrainingPlan")
    offering = OFFERINGS.get(asked["TrainingPlanOfferingId"])
    if offering is None:
        raise ResourceNotFound("there is no such offering")
    fault = market.fault(name)
    if fault == "slow":
        time.sleep(0.3)
    with market.lock:
        if name in PLANS:
            raise ResourceInUseException(f"training plan {name} exists")
        if fault == "refuse":
            raise LimitExceededError("the capacity was sold to somebody else")
        if fault == "lose_before":
            ec2.lose_answer()
        arn = _ARN.format(region=self.region, name=name)
        hidden = market.orders().get("hidden_looks", 0)
        PLANS[name] = {"arn": arn, "offering": offering, "looks": 0, "hidden": hidden, "region": self.region}
        market.note(arn, name, offering["UpfrontFee"])
    if fault == "lose_after":
        ec2.lose_answer()
    if fault == "error_after":
        raise RuntimeError("the server fails after it has sold")
    return checked("CreateTrainingPlan", {"TrainingPlanArn": arn})


def describe_training_plan(self: SageMakerResponse) -> ActionResult:
    name = self._get_params()["TrainingPlanName"].rpartition("/")[2]
    plan = PLANS.get(name)
    if plan is not None:
        plan["looks"] += 1
    if plan is None or plan["region"] != self.region or plan["looks"] <= plan["hidden"]:
        raise ResourceNotFound(f"training plan {name} does not exist")
    offering = plan["offering"]
    (piece,) = offering["ReservedCapacityOfferings"]
    orders, now = ec2.MARKET.orders(), ec2.MARKET.now()
    status = "Pending" if plan["looks"] <= 1 + plan["hidden"] else orders.get("plan_status", "Scheduled")
    if status == "Scheduled" and piece["StartTime"] <= now:
        status = "Active" if now < piece["EndTime"] else "Expired"
    count = piece["InstanceCount"]
    summary = {
        "ReservedCapacityArn": plan["arn"].replace("training-plan", "reserved-capacity"),
        "InstanceType": piece["InstanceType"],
        "TotalInstanceCount": count,
        "Status": status,
        **{key: piece[key] for key in ("AvailabilityZone", "DurationHours", "StartTime", "EndTime")},
    }
    answer = {
        "TrainingPlanArn": plan["arn"],
        "TrainingPlanName": name,
        "Status": status,
        "DurationHours": piece["DurationHours"],
        "StartTime": piece["StartTime"],
        "EndTime": piece["EndTime"],
        "UpfrontFee": offering["UpfrontFee"],
        "CurrencyCode": "USD",
        "TotalInstanceCount": count,
        "AvailableInstanceCount": count,
        "InUseInstanceCount": 0,
        "TargetResources": offering["TargetResources"],
        "ReservedCapacitySummaries": [summary],
    }
    return checked("DescribeTrainingPlan", answer)


def install() -> None:
    """Teach moto; after `ec2.install`, whose market this shares."""
    for function in (search_training_plan_offerings, create_training_plan, describe_training_plan):
        setattr(SageMakerResponse, function.__name__, function)
