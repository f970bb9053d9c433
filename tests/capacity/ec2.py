"""What moto lacks: capacity blocks, on-demand capacity reservations, spot scores and EC2's quotas, over real HTTP.

Every answer goes through botocore's own model of EC2: a field, type or value that AWS does not have is an error here.
A control file says what goes wrong, a journal tells what was really sold.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend

from tests.capacity import market
from tests.capacity.shapes import check

ZONES = ("a", "b")
USD_PER_GPU_HOUR = {"p5.48xlarge": 31.464, "p4d.24xlarge": 11.8, "p5.4xlarge": 3.933}
START_DAYS = (1, 3, 8, 20, 45)


class Blocks(market.Market):
    """What is for sale and what was sold."""

    def __init__(self, control: Path) -> None:
        super().__init__(control)
        self.offers: dict[str, dict[str, Any]] = {}
        self.sold: dict[str, dict[str, Any]] = {}
        self.client_tokens: dict[str, tuple[str, str]] = {}

    def sell(self, **row: Any) -> dict[str, Any]:
        ref = "cr-0" + uuid.uuid4().hex[:16]
        row = {"CapacityReservationId": ref, "OwnerId": "123456789012", "CreateDate": self.now(), **row}
        self.sold[ref] = row
        token = next((tag["Value"] for tag in row["Tags"] if tag["Key"] == "tuneplan-reservation"), "")
        self.note(ref, token, row.get("_fee"))
        return row

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """A reservation as it is now."""
        row = dict(row)
        now, looks = self.now(), row["_looks"]
        start, end = row.get("StartDate", now), row.get("EndDate")
        if row["State"] in ("payment-pending", "assessing"):
            after = self.orders().get("settle_after_looks", 1)
            settled = self.orders().get("settled", "scheduled")
            row["State"] = settled if looks > after else row["State"]
        if row["State"] == "scheduled" and start <= now:
            row["State"] = "active"
        if row["State"] == "active" and end is not None and end <= now:
            row["State"] = "expired"
        return {name: value for name, value in row.items() if not name.startswith("_")}


MARKET: Blocks


def checked(operation: str, answer: dict[str, Any]) -> ActionResult:
    check("ec2", operation, answer)
    return ActionResult(answer)


def token_of(params: dict[str, Any]) -> tuple[str, list[dict[str, str]]]:
    tags = [
        {"Key": tag["Key"], "Value": tag["Value"]}
        for group in params.get("TagSpecifications") or params.get("TagSpecification") or []
        for tag in group.get("Tags") or group.get("Tag") or []
    ]
    return next((tag["Value"] for tag in tags if tag["Key"] == "tuneplan-reservation"), ""), tags


def refuse_dry_run(params: dict[str, Any]) -> None:
    if str(params.get("DryRun", "")).lower() == "true":
        if MARKET.orders().get("unauthorized"):
            raise EC2ClientError("UnauthorizedOperation", "You are not authorized to perform this operation.")
        raise EC2ClientError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def lose_answer() -> None:
    """Close the connection: what was done stands, nobody hears of it."""
    from flask import request

    request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def moment(value: Any) -> dt.datetime:
    found = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def starts(now: dt.datetime) -> list[dt.datetime]:
    """When what is for sale begins."""
    orders = MARKET.orders()
    morning = now.replace(hour=11, minute=30, second=0)
    found = [morning + dt.timedelta(days=days) for days in orders.get("start_days", START_DAYS)]
    return found + [moment(text) for text in orders.get("starts", ())]


def describe_capacity_block_offerings(self: EC2Response) -> ActionResult:
    params = self._get_params()
    hours, count = int(params["CapacityDurationHours"]), int(params.get("InstanceCount", 1))
    weekly = hours % 168 == 0 and hours <= 182 * 24
    if not (hours % 24 == 0 and (hours <= 14 * 24 or weekly)) or not 1 <= count <= 64:
        raise EC2ClientError("InvalidParameterValue", "durations: 1-day steps to 14 days, 7-day steps to 182")
    kind, orders, now = params.get("InstanceType", "p5.48xlarge"), MARKET.orders(), MARKET.now()
    if moment(params["StartDateRange"]) < now - dt.timedelta(minutes=10):
        raise EC2ClientError("InvalidParameterValue", "StartDateRange is in the past")
    if kind not in USD_PER_GPU_HOUR or orders.get("none"):
        return checked("DescribeCapacityBlockOfferings", {"CapacityBlockOfferings": []})
    found = []
    for number, start in enumerate(starts(now)):
        if not moment(params["StartDateRange"]) <= start or start + dt.timedelta(hours=hours) > moment(
            params["EndDateRange"]
        ):
            continue
        price = USD_PER_GPU_HOUR[kind] * hours * count * orders.get("price_factor", 1.0) * (1 - 0.02 * number)
        offer = {
            "CapacityBlockOfferingId": "cb-0" + uuid.uuid4().hex[:16],
            "InstanceType": kind,
            "AvailabilityZone": f"{self.region}{ZONES[number % 2]}",
            "InstanceCount": count,
            "StartDate": start,
            "EndDate": start + dt.timedelta(hours=hours),
            "CapacityBlockDurationHours": hours,
            "UpfrontFee": f"{price:.4f}",
            "CurrencyCode": "USD",
            "Tenancy": "default",
        }
        MARKET.offers[offer["CapacityBlockOfferingId"]] = offer
        found.append(offer)
    return checked("DescribeCapacityBlockOfferings", {"CapacityBlockOfferings": found})


def purchase_capacity_block(self: EC2Response) -> ActionResult:
    params = self._get_params()
    refuse_dry_run(params)
    token, tags = token_of(params)
    fault = MARKET.fault(token)
    if fault == "slow":  # whoever asked may be dead by the time it is sold
        time.sleep(0.3)
    with MARKET.lock:
        offer = MARKET.offers.get(params["CapacityBlockOfferingId"])
        if offer is None:
            raise EC2ClientError("InvalidCapacityBlockOfferingId.NotFound", "there is no such offering")
        if fault == "refuse":
            raise EC2ClientError("InsufficientCapacity", "the block was sold to somebody else")
        if fault == "lose_before":
            lose_answer()
        row = MARKET.sell(
            InstanceType=offer["InstanceType"],
            InstancePlatform=params["InstancePlatform"],
            AvailabilityZone=offer["AvailabilityZone"],
            TotalInstanceCount=offer["InstanceCount"],
            AvailableInstanceCount=offer["InstanceCount"],
            State="payment-pending",
            StartDate=offer["StartDate"],
            EndDate=offer["EndDate"],
            EndDateType="limited",
            ReservationType="capacity-block",
            Tags=tags,
            _fee=offer["UpfrontFee"],
            _looks=0,
            _hidden=MARKET.orders().get("hidden_looks", 0),
        )
    if fault == "lose_after":
        lose_answer()
    if fault == "error_after":
        raise RuntimeError("the server fails after it has sold")
    answer = {"CapacityReservation": MARKET.shown(row)}
    return checked("PurchaseCapacityBlock", answer)


def create_capacity_reservation(self: EC2Response) -> ActionResult:
    params = self._get_params()
    refuse_dry_run(params)
    token, tags = token_of(params)
    client_token = params.get("ClientToken")
    said = json.dumps({k: v for k, v in params.items() if k != "ClientToken"}, sort_keys=True, default=str)
    fault = MARKET.fault(token)
    with MARKET.lock:
        if fault == "refuse":
            raise EC2ClientError("InsufficientInstanceCapacity", "no capacity in this zone")
        if fault == "lose_before":
            lose_answer()
        known = MARKET.client_tokens.get(client_token or "")
        if known is not None and known[1] != said:
            raise EC2ClientError("IdempotentParameterMismatch", "not the parameters of the first call")
        if known is not None:
            row = MARKET.sold[known[0]]
        else:
            row = MARKET.sell(**_open_reservation(params, tags))
            if client_token:
                MARKET.client_tokens[client_token] = (row["CapacityReservationId"], said)
    if fault == "lose_after":
        lose_answer()
    return checked("CreateCapacityReservation", {"CapacityReservation": MARKET.shown(row)})


def _open_reservation(params: dict[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    count = int(params["InstanceCount"])
    row: dict[str, Any] = {
        "InstanceType": params["InstanceType"],
        "InstancePlatform": params["InstancePlatform"],
        "AvailabilityZone": params["AvailabilityZone"],
        "TotalInstanceCount": count,
        "AvailableInstanceCount": count,
        "State": "active",
        "StartDate": MARKET.now(),
        "EndDateType": params.get("EndDateType", "unlimited"),
        "InstanceMatchCriteria": params.get("InstanceMatchCriteria", "open"),
        "ReservationType": "default",
        "Tags": tags,
        "_looks": 0,
        "_hidden": MARKET.orders().get("hidden_looks", 0),
    }
    if "EndDate" in params:
        row["EndDate"] = moment(params["EndDate"])
    if "StartDate" in params:
        ahead = moment(params["StartDate"]) - MARKET.now()
        if not dt.timedelta(days=4, hours=23) <= ahead <= dt.timedelta(days=120):
            raise EC2ClientError("InvalidParameterValue", "StartDate must be 5 to 120 days ahead")
        if int(params.get("CommitmentDuration", 0)) < 14 * 86400:
            raise EC2ClientError("InvalidParameterValue", "CommitmentDuration must be at least 14 days")
        if params.get("DeliveryPreference") != "incremental":
            raise EC2ClientError("MissingParameter", "DeliveryPreference is required for a future date")
        committed_until = moment(params["StartDate"]) + dt.timedelta(
            seconds=int(params["CommitmentDuration"])
        )
        if "EndDate" in row and row["EndDate"] <= committed_until:
            raise EC2ClientError("InvalidParameterValue", "EndDate is within the commitment duration")
        row |= {"State": "assessing", "StartDate": moment(params["StartDate"])}
    return row


def describe_capacity_reservations(self: EC2Response) -> ActionResult:
    params = self._get_params()
    rows = list(MARKET.sold.values())
    for wanted in params.get("Filters") or params.get("Filter") or []:
        name, values = wanted["Name"], wanted.get("Values") or wanted.get("Value")
        if name.startswith("tag:"):
            rows = [r for r in rows if any(t["Key"] == name[4:] and t["Value"] in values for t in r["Tags"])]
        elif name == "capacity-reservation-id":
            rows = [row for row in rows if row["CapacityReservationId"] in values]
        else:
            raise EC2ClientError("InvalidParameterValue", f"the filter {name} is not built here")
    here = [row for row in rows if row["AvailabilityZone"].startswith(self.region)]
    for row in here:
        row["_looks"] += 1
    visible = [MARKET.shown(row) for row in here if row["_looks"] > row["_hidden"]]
    return checked("DescribeCapacityReservations", {"CapacityReservations": visible})


def cancel_capacity_reservation(self: EC2Response) -> ActionResult:
    params = self._get_params()
    row = MARKET.sold.get(params["CapacityReservationId"])
    if row is None:
        raise EC2ClientError("InvalidCapacityReservationId.NotFound", "there is no such reservation")
    if row["ReservationType"] == "capacity-block":
        raise EC2ClientError("OperationNotPermitted", "a capacity block cannot be cancelled")
    row["State"] = "cancelled"
    return checked("CancelCapacityReservation", {"Return": True})


def _logged(function: Callable[[EC2Response], ActionResult]) -> Callable[[EC2Response], ActionResult]:
    """A bug of the server's own is a 500 to the client; its reason goes to the server's log."""

    def call(self: EC2Response) -> ActionResult:
        try:
            return function(self)
        except (EC2ClientError, ConnectionResetError):
            raise
        except Exception:
            traceback.print_exc()
            raise

    return call


def get_spot_placement_scores(self: EC2Response) -> ActionResult:
    """Each zone's score as ordered; fewer than three types are scored 1, as AWS does."""
    params = self._get_params()
    types = params.get("InstanceTypes") or params.get("InstanceType") or []
    ordered = MARKET.orders().get("scores", {})
    rows = [
        {"Region": region, "AvailabilityZoneId": zone, "Score": score if len(types) >= 3 else 1}
        for region in params.get("RegionNames") or params.get("RegionName") or []
        for zone, score in ordered.get(region, {}).items()
    ]
    return checked("GetSpotPlacementScores", {"SpotPlacementScores": rows})


def get_service_quota(self: Any, service_code: str, quota_code: str) -> dict[str, Any]:
    """vCPUs by code, as ordered."""
    found = MARKET.orders().get("quotas", {}).get(quota_code)
    if service_code != "ec2" or found is None:
        raise NoSuchResource
    quota = {"ServiceCode": "ec2", "QuotaCode": quota_code, "Value": float(found), "Unit": "None"}
    check("service-quotas", "GetServiceQuota", {"Quota": quota})
    return quota


def install(control: Path) -> Blocks:
    """Teach moto; the same file of orders and journal for all tests of a server."""
    global MARKET
    MARKET = Blocks(control)
    for function in (
        describe_capacity_block_offerings,
        purchase_capacity_block,
        create_capacity_reservation,
        describe_capacity_reservations,
        cancel_capacity_reservation,
        get_spot_placement_scores,
    ):
        setattr(EC2Response, function.__name__, _logged(function))
    ServiceQuotasBackend.get_service_quota = get_service_quota
    return MARKET
