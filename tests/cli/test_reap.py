"""`plan reap` on real workers, on an AWS that answers over HTTP, and on a real S3 server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.ledger_identity import LedgerIdentity, identity_of
from planner.places import Places
from planner.record import claim, keep
from planner.register import enter
from planner.store import Change, Store
from providers.aws_access import grant_role, role_name
from providers.launcher import LaunchRequest
from providers.local import LocalLauncher
from providers.offers import Offer
from providers.sealed import seal
from providers.stores import open_store
from tests.capacity.server import Capacity
from tests.planner.run_factories import START, attempt_of, terms_of
from tests.seaweed import BUCKET, Seaweed
from tests.workers import eventually, lives, make_bundle, starts

RunPlan = Callable[..., Result]
HERE = Offer("local", "local", None, None, "CPU", 1, None, 2.0, 4.0, "local", 1.0, "here", None)
AWS = ("--source", "aws", "--region", "eu-central-1")
NOW_ISH = ("--older-than", "0.001s", "-o", "json")


@pytest.fixture
def places(plan_home: Path) -> Places:
    return Places(plan_home / "state")


def reap(run_plan: RunPlan, *words: str, code: int = 0) -> Any:
    result = run_plan("reap", *NOW_ISH, *words)
    assert result.exit_code == code, result.stderr
    answer = json.loads(result.stdout)
    jsonschema.validate(answer, json.loads(schema_text("reap")))
    return answer


def over(places: Places, run_id: str, **terms: Any) -> None:
    """A run on record that is over."""
    with Store(places.ledger) as store:
        store.create(run_id, terms_of(run_id=run_id, **terms), attempt_of())
        ended = replace(attempt_of(), started_at=START, ended_at=START, outcome="done", cost_micro_usd=1)
        store.apply(store.find(run_id), Change("succeeded", "", ended, START))


def test_a_worker_without_a_run_is_shown_and_ended_only_when_told(
    places: Places, run_plan: RunPlan, tmp_path: Path
) -> None:
    orders = tmp_path / "orders"
    orders.mkdir()
    bundle = make_bundle(tmp_path / "bundle")
    LocalLauncher(places.local).launch(LaunchRequest("lost", bundle, (HERE,), env={"ORDERS": str(orders)}))
    eventually((orders / "ready").exists)
    (pid,) = starts(orders)
    (stray,) = reap(run_plan, "--source", "local", "--dry-run")["strays"]
    assert (stray["kind"], stray["run_id"], stray["known"], stray["ended"]) == (
        "worker",
        "lost",
        False,
        False,
    )
    assert reap(run_plan, "--source", "local", "--yes")["strays"][0]["ended"] is False
    assert lives(pid)
    text = run_plan("reap", "--source", "local", "--unknown", "--older-than", "0.001s")
    assert text.exit_code == 2 and "--yes" in text.stderr and lives(pid)
    reap(run_plan, "--source", "local", "--unknown", "--yes", code=0)
    eventually(lambda: not lives(pid))
    assert reap(run_plan, "--source", "local", "--dry-run")["strays"] == []


def test_a_worker_of_a_run_that_is_over_and_its_secrets_go(
    places: Places, run_plan: RunPlan, tmp_path: Path
) -> None:
    orders = tmp_path / "orders"
    orders.mkdir()
    over(places, "done")
    LocalLauncher(places.local).launch(
        LaunchRequest("done", make_bundle(tmp_path / "bundle"), (HERE,), env={"ORDERS": str(orders)})
    )
    eventually((orders / "ready").exists)
    bundle = places.bundle("done", 1)
    bundle.mkdir(parents=True)
    seal({"TOKEN": "x"}, bundle)
    rows = reap(run_plan, "--source", "local", "--yes")["strays"]
    assert [(row["kind"], row["known"], row["usd_per_h"]) for row in rows] == [
        ("worker", True, "1"),
        ("secret", True, "0"),
    ]
    assert rows[1]["ended"] and list((bundle / "sealed").iterdir()) == []
    eventually(lambda: not any(map(lives, starts(orders))))
    with Store(places.ledger) as store:
        assert {event.kind for event in store.events("done")} >= {"reap"}


def test_a_run_that_somebody_else_took_is_never_ended(
    places: Places, run_plan: RunPlan, tmp_path: Path
) -> None:
    bundle = places.bundle("anns", 1)
    bundle.mkdir(parents=True)
    seal({"TOKEN": "x"}, bundle)
    register = (tmp_path / "team").as_uri()
    enter(open_store(register), "anns", "p", "ann", ledger=LedgerIdentity("ann"), cap_micro_usd=1, at=START)
    (row,) = reap(run_plan, "--source", "local", "--unknown", "--yes", "--store", register)["strays"]
    assert (row["owner"], row["why"], row["ended"]) == ("ann", "run of ann", False)


def test_a_worker_of_a_run_that_another_ledger_adopted_goes_on(
    places: Places, run_plan: RunPlan, tmp_path: Path
) -> None:
    orders, prefix = tmp_path / "orders", open_store((tmp_path / "checkpoints").as_uri())
    orders.mkdir()
    over(places, "ours", checkpoint_uri=prefix.uri)
    with Store(places.ledger) as store:
        keep(prefix, identity_of(store.path), lambda: store.get("ours"), START, create=True)
    claim(prefix, "another ledger", START)
    LocalLauncher(places.local).launch(
        LaunchRequest("ours", make_bundle(tmp_path / "bundle"), (HERE,), env={"ORDERS": str(orders)})
    )
    eventually((orders / "ready").exists)
    (row,) = reap(run_plan, "--source", "local", "--unknown", "--yes")["strays"]
    assert (row["known"], row["ended"]) == (False, False) and "was adopted by a ledger on" in row["why"]
    (pid,) = starts(orders)
    assert lives(pid)
    claim(prefix, identity_of(places.ledger).token, START)  # taken back
    assert reap(run_plan, "--source", "local", "--yes")["strays"][0]["ended"]
    eventually(lambda: not lives(pid))


def test_machines_and_roles_in_aws_are_found_by_tag(
    places: Places, run_plan: RunPlan, capacity: Capacity, plan_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    over(places, "Goat.7", infra="skypilot")
    ec2 = boto3.client("ec2", region_name="eu-central-1")
    image = ec2.describe_images()["Images"][0]["ImageId"]

    def machine(**tags: str) -> str:
        rows = [{"Key": name.replace("_", "-"), "Value": value} for name, value in tags.items()]
        spec = [{"ResourceType": "instance", "Tags": rows}]
        run = ec2.run_instances(
            ImageId=image, InstanceType="g6.xlarge", MinCount=1, MaxCount=1, TagSpecifications=spec
        )
        return str(run["Instances"][0]["InstanceId"])

    ours = machine(tuneplan_run="goat-7", tuneplan_attempt="1")
    lost = machine(tuneplan_run="who", tuneplan_attempt="1")
    machine(owner="somebody")
    grant_role("Goat.7", (), propagation_s=0)
    rows = {row["name"]: row for row in reap(run_plan, *AWS, "--yes")["strays"]}
    assert {name: row["ended"] for name, row in rows.items()} == {
        ours: True,
        lost: False,
        role_name("Goat.7"): True,
    }
    assert (rows[ours]["run_id"], rows[ours]["place"]) == ("Goat.7", rows[ours]["place"])
    assert rows[ours]["place"].startswith("aws/eu-central-1")
    assert rows[lost]["usd_per_h"] is None or float(rows[lost]["usd_per_h"]) > 0
    states = {
        row["InstanceId"]: row["State"]["Name"]
        for held in ec2.describe_instances()["Reservations"]
        for row in held["Instances"]
    }
    assert (states[ours], states[lost]) == ("terminated", "running")
    prices = plan_home / "cache" / "prices.csv"
    prices.parent.mkdir(parents=True, exist_ok=True)
    prices.write_text("damaged")
    again = reap(run_plan, *AWS, "--unknown", "--yes")["strays"]
    assert [(row["name"], row["ended"], row["usd_per_h"]) for row in again] == [(lost, True, None)]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    unseen = reap(run_plan, *AWS, "--dry-run")["not_examined"]
    assert {row["source"] for row in unseen} == {"aws instances", "aws roles"}


def test_an_upload_that_nobody_completed_is_aborted(
    places: Places, run_plan: RunPlan, s3_server: Seaweed, tmp_path: Path
) -> None:
    import boto3

    uri = f"s3://{BUCKET}/{tmp_path.name}/cut?endpoint={s3_server.endpoint}&region=us-east-1"
    over(places, "cut", checkpoint_uri=uri)
    s3 = boto3.session.Session().client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1")
    key = {"Bucket": BUCKET, "Key": f"{tmp_path.name}/cut/blobs/a"}
    upload = s3.create_multipart_upload(**key)["UploadId"]
    s3.upload_part(**key, UploadId=upload, PartNumber=1, Body=b"x" * 1000)
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    rows = [row for row in reap(run_plan, *AWS, "--yes")["strays"] if row["kind"] == "upload"]
    assert [(row["run_id"], row["bytes"], row["usd_per_h"], row["ended"]) for row in rows] == [
        ("cut", 1000, None, True)
    ]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET, Prefix=key["Key"])
