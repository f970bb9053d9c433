"""A machine that gives itself back: with its own rights, and never one that is not what it should be."""

from __future__ import annotations

import os
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from providers import self_release
from providers.self_release import LEFT, bare_environment, can_release, power_off, release
from tests.jobs.metadata_server import metadata_server


def fail(cloud: str) -> None:
    raise AssertionError(f"{cloud}: powered off")


@mock_aws
def test_a_machine_of_aws_terminates_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    ec2 = boto3.client("ec2", region_name="eu-west-1")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    machines = ec2.run_instances(ImageId=image, MinCount=2, MaxCount=2)["Instances"]
    mine, other = (machine["InstanceId"] for machine in machines)
    with metadata_server("aws") as server:
        server.says = {
            "/latest/meta-data/instance-id": mine,
            "/latest/meta-data/placement/region": "eu-west-1",
        }
        release("aws", {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint}, fail)
    states = {
        machine["InstanceId"]: machine["State"]["Name"]
        for reservation in ec2.describe_instances()["Reservations"]
        for machine in reservation["Instances"]
    }
    assert states == {mine: "terminated", other: "running"}


def test_a_machine_of_aws_that_may_not_is_powered_off(monkeypatch: pytest.MonkeyPatch) -> None:
    off: list[str] = []
    with metadata_server("aws") as server:  # which knows nothing of an instance
        monkeypatch.setattr(self_release, "_METADATA", server.endpoint)
        release("aws", {}, off.append)
        assert off == ["aws"]
        with pytest.raises(ValueError, match="not powered off"):
            release("aws", {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint}, fail)


def test_a_machine_that_is_not_of_the_cloud_is_never_powered_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, told = tmp_path / "sys_vendor", tmp_path / "told"
    for name in ("sudo", "shutdown"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$0 $@" >> {told}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(self_release, "_VENDOR", vendor)
    vendor.write_text("LENOVO\n")
    with pytest.raises(ValueError, match="LENOVO"):
        power_off("gcp")
    assert not told.exists()
    vendor.write_text("Google\n")
    power_off("gcp")
    assert "-h now" in told.read_text()


def test_a_pod_removes_itself_with_the_seller_s_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    (tmp_path / "runpodctl").write_text(f'#!/bin/sh\necho "$@ $RUNPOD_API_KEY" > {told}\n')
    (tmp_path / "runpodctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    environ = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "k", "PATH": os.environ["PATH"]}
    release("runpod", environ, fail)
    assert told.read_text() == "remove pod p1 k\n"


@pytest.mark.parametrize("cloud", ["slurm", "azure", "lambda", "", "kubernetes"])
def test_elsewhere_it_says_that_it_cannot(cloud: str) -> None:
    assert not can_release(cloud)
    with pytest.raises(ValueError, match="cannot give itself back"):
        release(cloud, {}, fail)


def test_it_uses_nothing_that_was_given_to_the_worker() -> None:
    given = {"AWS_ACCESS_KEY_ID": "bucket", "AWS_SESSION_TOKEN": "t", "HOME": "/root"}
    assert bare_environment(given) == {"HOME": "/root"}
    assert set(LEFT) == {"aws", "gcp", "runpod", "vast"}
