"""Spot prices of zones, asked for with boto3 from moto's AWS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from click.testing import Result
from moto import mock_aws

from planner.cli.context import App
from providers import aws_spot_zones
from providers.errors import CredentialsError, StorageError
from providers.live_prices import Asked, halves
from providers.price_table import PriceRow

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
EAST = PriceRow(
    "aws", "us-east-1", "use1-az1", "g4dn.xlarge", "T4", 1, 16.0, 4.0, 16.0, 0.526, 0.2, "a catalog", "2026-05-20",
    "", "",
)  # fmt: skip
WEST = EAST._replace(region="eu-west-1", zone="euw1-az2")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield


def asked(*rows: PriceRow, **fields: Any) -> Asked:
    return Asked(tuple(halves(rows)), "", Path(), NOW, **fields)


def test_every_zone_has_a_price_of_its_own_under_its_id(aws: None):
    reading = aws_spot_zones.read(asked(EAST, WEST))
    fresh = [row for row in reading.rows if row.as_of == "2026-11-25"]
    client = boto3.client("ec2", region_name="us-east-1")
    ids = {zone["ZoneId"] for zone in client.describe_availability_zones()["AvailabilityZones"]}
    east = {row.zone for row in fresh if row.region == "us-east-1"}
    assert east and east <= ids
    assert len(fresh) == reading.fresh and {row.source for row in fresh} == {"AWS spot price history"}
    assert all(row.spot_usd_per_hour and row.on_demand_usd_per_hour is None for row in fresh)
    on_demand = [row for row in reading.rows if row.on_demand_usd_per_hour]
    assert {row.as_of for row in on_demand} == {"2026-05-20"}  # those prices were not asked for


def test_the_command_puts_them_among_the_offers(aws: None, run_plan: Callable[..., Result], plan_home: Path):
    words = ("prices", "refresh", "aws-zones", "--region", "us-east-1", "-o", "json")
    result = run_plan(*words, obj=App(now=lambda: NOW))
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["sources"][0]["status"] == "ok" and document["fresh"] > 10
    words = ("offers", "--cloud", "aws", "--region", "us-east-1", "--spot", "--limit", "0", "-o", "json")
    offers = json.loads(run_plan(*words, obj=App(now=lambda: NOW)).stdout)["offers"]
    today = [offer for offer in offers if offer["as_of_at"] == "2026-11-25T00:00:00Z"]
    assert len(today) == document["fresh"] and {offer["source"] for offer in today} == {aws_spot_zones.SOURCE}
    assert all(offer["zone"].startswith("use1-az") and offer["age_s"] == 12 * 3600 for offer in today)
    # moto's AWS asks a thousandth of a cent for everything, which nobody shall take for a price
    assert {(offer["price_usd_per_h"], offer["posted_usd_per_h"]) for offer in today} == {(None, "0.00001")}
    assert all("suspect_price" in offer["flags"] for offer in today)


def test_only_the_regions_named_are_asked(aws: None):
    told: list[str] = []
    aws_spot_zones.read(asked(EAST, WEST, regions=frozenset({"eu-west-1"}), told=told.append))
    assert told == ["asking AWS for spot prices in eu-west-1"]


def test_without_a_login_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(CredentialsError, match="no AWS credentials"):
        aws_spot_zones.read(asked(EAST))


@pytest.mark.parametrize(
    ("code", "error"), [("UnauthorizedOperation", CredentialsError), ("InternalError", StorageError)]
)
def test_a_refusal_is_an_error_and_no_empty_success(
    aws: None, monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
):
    def refused(*_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeSpotPriceHistory")

    monkeypatch.setattr(aws_spot_zones, "_history", refused)
    with pytest.raises(error, match=f"in us-east-1: {code}"):
        aws_spot_zones.read(asked(EAST))


def test_nobody_answering_is_an_error(aws: None, monkeypatch: pytest.MonkeyPatch):
    def nobody(*_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://ec2.us-east-1.amazonaws.com")

    monkeypatch.setattr(aws_spot_zones, "_history", nobody)
    with pytest.raises(StorageError, match="did not answer in us-east-1"):
        aws_spot_zones.read(asked(EAST))
