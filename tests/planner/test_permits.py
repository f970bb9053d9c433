"""What stands against a launch that others must be asked about: quotas, gated models, buckets, no internet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from planner.errors import Finding
from planner.internet import needs_internet
from planner.permits import closed_model, licence_of_model, misplaced_bucket, too_small_quotas
from planner.specfile import DataRef
from planner.surroundings import Surroundings, is_about_surroundings
from providers.hub import HubAccess
from providers.offers import Offer
from tests.capacity.server import Capacity
from tests.hub_host import HostedModel, HubHost, hub_host

A = Offer(
    "aws", "us-east-1", "us-east-1a", "g6.4xlarge", "L4", 1, 24.0, 16.0, 64.0, "spot", 1.0, "test", None
)
B = A._replace(region="us-west-2", zone="us-west-2a", instance_type="p4d.24xlarge", vcpus=96.0)


def codes(found: Iterator[Finding]) -> list[str]:
    rows = list(found)
    assert all(row.hint and is_about_surroundings(row) for row in rows)
    return [row.code for row in rows]


@pytest.fixture
def around(tmp_path: Path) -> Surroundings:
    return Surroundings({"AWS_ACCESS_KEY_ID": "test"}, tmp_path, datetime.now(UTC), 1e9)


def test_a_quota_stands_against_a_launch_only_if_every_machine_is_beyond_it(
    capacity: Capacity, around: Surroundings
) -> None:
    capacity.order(quotas={"L-3819A6DF": 8, "L-7212CCBC": 0})
    (found,) = too_small_quotas((A, B), 1, around)
    assert found.code == "quota_too_small"
    assert "needs 16" in str(found) and "and so it is with 1 others" in str(found)
    capacity.order(quotas={"L-3819A6DF": 8, "L-7212CCBC": 96})
    assert codes(too_small_quotas((A, B), 1, around)) == []
    assert codes(too_small_quotas((A, B), 2, around)) == ["quota_too_small"]
    capacity.order()  # nobody tells
    assert codes(too_small_quotas((A, B), 1, around)) == []


def test_nobody_is_asked_about_quotas_without_a_login(around: Surroundings) -> None:
    assert codes(too_small_quotas((A,), 1, replace(around, environ={}))) == []


@pytest.fixture
def hub() -> Iterator[HubHost]:
    with hub_host() as host:
        files = {"config.json": json.dumps({"model_type": "llama"}).encode()}
        host.models["lab/open"] = HostedModel(files)
        host.models["lab/closed"] = HostedModel(files, info={"gated": "manual"}, gate="manual")
        yield host


def test_a_gated_model_needs_a_token_on_the_machine_that_opens_it(hub: HubHost) -> None:
    def asked(model: str, secrets: tuple[str, ...], token: str) -> list[str]:
        access = HubAccess(hub.url, hub.token)  # the person may see it; what counts is the machine's token
        return codes(closed_model(model, None, secrets, {"HF_TOKEN": token}, access))

    assert asked("lab/open", (), "") == []
    assert asked("lab/closed", (), hub.token) == ["gated_model"]
    assert asked("lab/closed", ("HF_TOKEN",), "") == ["gated_model"]
    assert asked("lab/closed", ("HF_TOKEN",), hub.token) == []


def test_who_cannot_be_asked_stands_against_nothing(hub: HubHost) -> None:
    assert codes(closed_model("lab/closed", None, (), {}, HubAccess(hub.url, offline=True))) == []
    assert hub.requests == []


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"cardData": {"license": "apache-2.0"}}, "apache-2.0: "),
        ({"cardData": {"license": "other", "license_name": "llama3.1"}}, "llama3.1: "),
        (
            {"tags": ["license:cc-by-nc-4.0"]},
            "cc-by-nc-4.0, which by its name does not allow commercial use: ",
        ),
        (
            {"cardData": {"license": "other", "license_name": "mrl-research"}},
            "mrl-research, which by its name",
        ),
        ({}, "unknown, its page does not say: "),
    ],
)
def test_the_licence_is_told(hub: HubHost, info: dict[str, Any], said: str) -> None:
    hub.models["lab/open"].info.update(info)
    told = licence_of_model("lab/open", None, HubAccess(hub.url))
    assert told.startswith(said)


def test_a_licence_that_cannot_be_asked_for_is_unknown(hub: HubHost) -> None:
    assert licence_of_model("lab/open", None, HubAccess(hub.url, offline=True)).startswith("unknown, ")
    assert licence_of_model("lab/none", None, HubAccess(hub.url)).startswith("unknown, ")
    assert licence_of_model("lab/open", None, HubAccess("http://127.0.0.1:9")).startswith("unknown, ")


def test_a_bucket_that_is_elsewhere_than_it_says(capacity: Capacity) -> None:
    place = {"LocationConstraint": "eu-west-1"}
    boto3.client("s3").create_bucket(Bucket="herd-eu", CreateBucketConfiguration=place)
    (found,) = misplaced_bucket("s3://herd-eu/runs?region=us-east-1", "checkpoints.uri")
    assert (found.code, found.path, found.hint) == (
        "bucket_region", "checkpoints.uri", "write ?region=eu-west-1",
    )  # fmt: skip
    for uri in ("s3://herd-eu/runs?region=eu-west-1", "s3://herd-eu/runs", "s3://nobodys/x?region=us-east-1"):
        assert codes(misplaced_bucket(uri, "checkpoints.uri")) == []


def test_everything_that_needs_the_internet_is_named_at_once(tmp_path: Path) -> None:
    uris = {
        "checkpoints.uri": "s3://herd/runs",
        "output.uri": "s3://herd/runs?endpoint=http://127.0.0.1:9000",
    }
    model = DataRef("hub", "lab/open")
    found = list(needs_internet(["aws"], model, uris, {}, tmp_path))
    assert [(row.code, row.path) for row in found] == [
        ("needs_internet", "where.clouds"), ("needs_internet", "model.id"), ("needs_internet", "checkpoints.uri"),
    ]  # fmt: skip
    snapshot = tmp_path / ".cache/huggingface/hub/models--lab--open/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    near = {"checkpoints.uri": None, "output.uri": uris["output.uri"]}
    assert list(needs_internet(["slurm"], model, near, {}, tmp_path)) == []
    (elsewhere,) = needs_internet(["slurm", "aws", "aws"], model, near, {}, tmp_path)
    assert "machines of aws" in str(elsewhere)
