"""`plan launch` on spot machines of an AWS that runs out of them and takes them away; moto answers, machines are real.

Nobody's keys are on the machine: it has a role that may write below the run's prefix.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.committed import read_head, read_manifest
from jobs.progress import read_progress
from providers.s3 import S3Store
from tests.bed.aws import REGIONS, SPOT_USD_PER_H, AwsBed
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.conftest import BUCKET
from tests.e2e.renting import (
    CANARY_FILE,
    CANARY_SECRET,
    EVERY,
    GOAT,
    Person,
    Undisturbed,
    eventually,
    files_with,
    monitored,
    order_of,
    shown_to_others,
)

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long]


def spot_spec(bed: Bed, shared: Path, *, steps: int) -> Path:
    """The goat on AWS, checkpoints in a bucket; cheapest zone first means us-west-2a, 2b, us-east-1a, 1b."""
    path = shared / "spec.yaml"
    env = "".join(f", {name}: '{value}'" for name, value in bed.aws.worker_env().items())
    path.write_text(
        f"""\
spec_version: 1
name: goat
project: herd
model: {{id: {GOAT / "base"}}}
method: {{kind: lora, rank: 4}}
data: {{train: {GOAT / "train.jsonl"}, format: prompt_completion}}
train: {{steps: {steps}, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32}}
where: {{clouds: [aws], gpus: [L4], market: spot}}
checkpoints: {{every: {EVERY} steps, uri: "s3://{BUCKET}/herd?region=us-east-1"}}
environment: {{python: {sys.executable}, secrets: [PLAN_SECRET], env: {{OMP_NUM_THREADS: "1"{env}}}}}
"""
    )
    return path


def store_of(cloud: AwsBed, run_id: str) -> S3Store:
    return S3Store(f"s3://{BUCKET}/herd/{run_id}?endpoint={cloud.endpoint}&region=us-east-1")


def trains(store: S3Store, fence: int) -> bool:
    """Whether the worker that took over last, or one after it, has committed a checkpoint."""
    said = read_progress(store)
    return said is not None and said.fence >= fence and said.step > EVERY


def zone(instance: dict[str, Any]) -> str:
    return str(instance["Placement"]["AvailabilityZone"])


def price_in(zone: str) -> float:
    """Of an hour on spot."""
    return next(SPOT_USD_PER_H[key] for ids in REGIONS.values() for key, name in ids.items() if name == zone)


def test_nothing_is_paid_without_capacity_and_a_spot_machine_is_had_as_soon_as_there_is_some(
    slurm_bed: Bed, cloud: AwsBed, user: BedUser, person: Person, shared: Path
) -> None:
    cloud.run_out_of("all")
    person.plan(*order_of(person, spot_spec(slurm_bed, shared, steps=1_000_000), "spot"), "--yes")
    eventually(lambda: "none of the machines asked for can be had now" in user.status("spot").reason)
    person.plan(
        "launch", str(shared / "spec.json"), "--cap", "5", "--run-id", "spot", "--yes"
    )  # one job, still
    run = person.json("status", "spot")["run"]
    assert (run["cost_usd"], len(run["attempts"])) == ("0", 1)
    assert cloud.instances() == []

    cloud.run_out_of("us-west-2a", "us-west-2b")
    store = store_of(cloud, "spot")
    eventually(lambda: trains(store, 1))
    (machine,) = cloud.instances()
    assert (zone(machine), machine["InstanceLifecycle"]) == ("us-east-1a", "spot")
    tags = {row["Key"]: row["Value"] for row in machine["Tags"]}
    assert {"project": "herd", "tuneplan-run": "spot", "tuneplan-attempt": "1"}.items() <= tags.items()
    assert machine["IamInstanceProfile"]["Arn"].endswith("/tuneplan-spot")
    role = cloud.client("iam").get_role_policy(RoleName="tuneplan-spot", PolicyName="tuneplan-run")
    statements = role["PolicyDocument"]["Statement"]
    inputs = [
        row for row in statements if isinstance(row["Resource"], list)
    ]  # local data and model, to be read
    assert [row["Action"] for row in inputs] == [["s3:GetObject"]]
    assert all(one.startswith(f"arn:aws:s3:::{BUCKET}/herd/_inputs/blobs/") for one in inputs[0]["Resource"])
    resources = {row["Resource"] for row in statements if row not in inputs}
    machines = "arn:aws:ec2:*:*:instance/*"  # of this run alone, by their tag
    assert resources == {f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/herd/spot/*", machines}
    disk = slurm_bed.root / "ec2" / machine["InstanceId"] / "home"
    assert shown_to_others(slurm_bed, CANARY_SECRET) == []
    assert files_with(CANARY_SECRET, disk, shared, person.home, slurm_bed.sky.path) == []
    assert files_with(CANARY_FILE, disk) == []

    eventually(lambda: user.status("spot").state == "running")
    assert person.json("cancel", "spot")["run"]["state"] == "cancelled"
    (attempt,) = person.json("status", "spot")["run"]["attempts"]
    assert (attempt["offer"]["zone"], attempt["offer"]["price_usd_per_h"]) == ("us-east-1a", "0.3")
    nothing_is_left(cloud, user, "spot")


def test_a_machine_that_was_taken_away_is_replaced_in_another_zone(
    slurm_bed: Bed, cloud: AwsBed, user: BedUser, person: Person, shared: Path, tmp_path: Path
) -> None:
    """The zone has machines again at once; it is left alone because it has just taken one away."""
    steps = 3000
    store = store_of(cloud, "taken")
    order = order_of(person, spot_spec(slurm_bed, shared, steps=steps), "taken")
    with monitored(person, tmp_path / "monitor.log"):
        person.plan(*order, "--monitor", "service", "--yes")
        reading = cloud.keys() | cloud.worker_env()
        undisturbed = Undisturbed(person.home / "state/bundles/taken/1", tmp_path, reading)
        eventually(lambda: trains(store, 1))
        eventually(lambda: user.status("taken").state == "running")
        (machine,) = cloud.instances()
        cloud.terminate(machine)
        eventually(lambda: trains(store, 2))
        (other,) = cloud.instances()
        assert zone(other) != zone(machine)
        person.plan("wait", "taken")
    head = read_head(store)
    assert head is not None and head.output is not None
    files = {entry.path: entry.sha256 for entry in read_manifest(store, head.output).files}
    assert files["adapter_model.safetensors"] == undisturbed.adapter_sha256()
    run = person.json("status", "taken")["run"]
    assert (run["state"], run["step"]) == ("succeeded", steps)
    assert [(row["offer"]["zone"], float(row["offer"]["price_usd_per_h"])) for row in run["attempts"]] == [
        (zone(one), price_in(zone(one))) for one in (machine, other)
    ]
    nothing_is_left(cloud, user, "taken")


def nothing_is_left(cloud: AwsBed, user: BedUser, run_id: str) -> None:
    """No machine, and no role."""
    eventually(lambda: user.released(run_id))
    assert cloud.instances() == []
    user.status(run_id)  # whoever looks last takes the role back
    assert cloud.client("iam").list_roles()["Roles"] == []
    assert cloud.client("iam").list_instance_profiles()["InstanceProfiles"] == []
