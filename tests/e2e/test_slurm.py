"""`plan launch --infra skypilot` on a real Slurm: a real tiny fine-tuning, preempted once, and one that is cancelled.

And one on spot of an AWS (moto answers, machines are real), which shares their SkyPilot.

What is checked is what a person trusts a launcher with: one job however often it is asked for, nothing lost by
the preemption, nothing left running, the right price, no credential where it does not belong.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.committed import read_head
from providers.launcher import BackendStatus
from providers.stores import open_store
from tests.bed.aws import AwsBed
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.renting import (
    CANARY_FILE,
    CANARY_SECRET,
    EVERY,
    Person,
    Undisturbed,
    adapter_sha256,
    eventually,
    fence,
    files_with,
    goat_spec,
    living_jobs,
    nothing_runs,
    on_the_node,
    order_of,
    running,
    shown_to_others,
)
from tests.e2e.test_aws import nothing_is_left, price_in, spot_spec, store_of, trains, zone

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.timeout(1200)]


@pytest.fixture
def spec(shared: Path) -> Path:
    return goat_spec(shared, steps=600)


def test_a_preempted_run_ends_with_the_weights_of_an_undisturbed_one(
    slurm_bed: Bed,
    user: BedUser,
    person: Person,
    spec: Path,
    train_undisturbed: Callable[[Path], Undisturbed],
) -> None:
    store = spec.parent / "store/goat"
    bundle = person.home / "state/bundles/goat/1"
    order = order_of(person, spec, "goat")
    assert "infra: slurm/bed-a/spot" in person.plan(*order, "--dry-run")
    assert user.status("goat") == BackendStatus("absent")

    person.killed(*order, "--yes", when=bundle.exists)
    with ThreadPoolExecutor() as two:
        answers = list(two.map(lambda _: person.json(*order, "--yes"), range(2)))
    assert [(answer["created"], answer["infra"]) for answer in answers] == [(False, "skypilot")] * 2
    eventually(lambda: user.call(living_jobs) == ["plan-goat-1"])  # a twin takes a moment to be cancelled
    undisturbed = train_undisturbed(bundle)

    status = running(user, "goat", store)
    assert shown_to_others(slurm_bed, CANARY_SECRET) == []
    assert (status.attempt, status.recoveries) == (1, 0)
    assert status.offer is not None
    assert (status.offer.cloud, status.offer.region, status.offer.gpu) == ("slurm", "bed-a", "A100")
    slurm_bed.slurm.run("scancel", "--partition=spot")
    eventually(lambda: fence(store) == 2)
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []

    person.plan("wait", "goat")
    assert adapter_sha256(store) == undisturbed.adapter_sha256()
    run = person.json("status", "goat")["run"]
    assert (run["state"], run["step"], run["infra"]) == ("succeeded", 600, "skypilot")
    assert user.status("goat").recoveries == 1
    places = [(row["offer"]["region"], row["offer"]["price_usd_per_h"]) for row in run["attempts"]]
    assert set(places) == {("bed-a", "1.1")}
    assert 0 < float(run["cost_usd"]) < 1.1
    log = person.plan("logs", "goat")
    assert "attempt 2" in log
    assert log.rstrip().endswith("done")
    stored = person.plan("logs", "goat", "--stored")
    assert "attempt 2" in stored and stored.rstrip().endswith("done")

    nothing_runs(slurm_bed, user, "goat")
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
    assert files_with(CANARY_SECRET, spec.parent, person.home, slurm_bed.sky.path) == []
    assert CANARY_SECRET not in person.plan(*order, "--dry-run") + log + stored


def test_a_spot_machine_of_aws_comes_from_the_next_zone_and_is_given_back(
    slurm_bed: Bed, cloud: AwsBed, user: BedUser, person: Person, shared: Path
) -> None:
    cloud.run_out_of("us-west-2a")  # the cheapest
    person.plan(*order_of(person, spot_spec(slurm_bed, shared, steps=2000), "cheap"), "--yes")
    store = store_of(cloud, "cheap")
    eventually(lambda: trains(store, 1))
    (machine,) = cloud.instances()
    assert (zone(machine), machine["InstanceLifecycle"]) == ("us-west-2b", "spot")
    assert machine["IamInstanceProfile"]["Arn"].endswith("/tuneplan-cheap")
    disk = slurm_bed.root / "ec2" / machine["InstanceId"] / "home"
    assert files_with(CANARY_FILE, disk) == files_with(CANARY_SECRET, disk) == []
    person.plan("wait", "cheap")
    run = person.json("status", "cheap")["run"]
    assert (run["state"], run["step"], len(run["attempts"])) == ("succeeded", 2000, 1)
    offer = run["attempts"][0]["offer"]
    assert (offer["zone"], float(offer["price_usd_per_h"])) == (zone(machine), price_in(zone(machine)))
    assert 0 < float(run["cost_usd"]) < 0.3
    nothing_is_left(cloud, user, "cheap")


@pytest.mark.long
def test_a_cancelled_run_releases_its_machine_and_keeps_its_checkpoint(
    slurm_bed: Bed, user: BedUser, person: Person, spec: Path
) -> None:
    spec = goat_spec(spec.parent, steps=1_000_000)
    store = spec.parent / "store/long"
    person.plan(*order_of(person, spec, "long"), "--yes")
    running(user, "long", store)
    assert person.json("cancel", "long")["run"]["state"] == "cancelled"
    nothing_runs(slurm_bed, user, "long")
    assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
    assert "attempt 1" in person.plan("logs", "long")
    head = read_head(open_store(store.as_uri()))
    assert head is not None and head.newest is not None and head.newest.step >= EVERY
