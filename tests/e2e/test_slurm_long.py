"""Long campaigns on Slurm: many preemptions of one run, and `plan` killed in the middle of many launches.

`RESULT=FILE` writes down what the preemptions did; ROUNDS sets how many launches are killed (at least eight).
"""

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path

import pytest

from providers.launcher import LaunchRequest
from providers.offers import Offer
from tests.bed.bed import REPOSITORY, Bed
from tests.bed.client import BedUser
from tests.e2e.renting import (
    EVERY,
    Person,
    Undisturbed,
    adapter_sha256,
    eventually,
    fence,
    goat_spec,
    living_jobs,
    nothing_runs,
    order_of,
    progress_of,
    running,
    running_nodes,
    step,
)

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long]
PREEMPTIONS = 5
STEPS = 3000


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int(os.environ.get("SEED", "1")))


def test_a_run_preempted_at_random_moments_ends_with_the_weights_of_an_undisturbed_one(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path, chance: random.Random, tmp_path: Path
) -> None:
    spec = goat_spec(shared, steps=STEPS)
    store = shared / "store/often"
    person.plan(*order_of(person, spec, "often"), "--yes")
    undisturbed = Undisturbed(person.home / "state/bundles/often/1", tmp_path)
    moments = sorted(chance.sample(range(2 * EVERY, STEPS - 2 * EVERY), PREEMPTIONS))
    rows = []
    for number, moment in enumerate(moments, start=1):
        eventually(lambda moment=moment, number=number: fence(store) == number and step(store) >= moment)
        eventually(lambda: user.status("often").state == "running")
        (node,), before = running_nodes(slurm_bed), time.monotonic()
        slurm_bed.slurm.run("scancel", "--partition=spot")
        reached = step(store)
        eventually(lambda number=number: fence(store) == number + 1 and step(store) > 0)
        said = progress_of(store)
        lost = max(reached - (said.resumed_from_step or 0), 0)  # it may have committed more than it had told
        rows.append(
            {
                "preempted_at_step": reached,
                "resumed_from_step": said.resumed_from_step,
                "lost_steps": lost,
                "from": node,
                "to": running_nodes(slurm_bed)[0],
                "back_after_s": round(time.monotonic() - before, 1),
            }
        )
        assert lost <= EVERY + 1, rows
    person.plan("wait", "often")
    same = adapter_sha256(store) == undisturbed.adapter_sha256()
    run = person.json("status", "often")["run"]
    if "RESULT" in os.environ:
        answer = {
            "steps": STEPS, "checkpoint_every_steps": EVERY, "preemptions": rows, "same_weights": same,
            "cost_usd": run["cost_usd"],
        }  # fmt: skip
        Path(os.environ["RESULT"]).write_text(json.dumps(answer, indent=1) + "\n")
    assert same
    assert (run["state"], run["step"]) == ("succeeded", STEPS)
    nothing_runs(slurm_bed, user, "often")


#: Stands in for the trainer: all ranks add up their numbers, each writes down the sum and its place.
SUMMING = """\
import os, socket, torch
from torch import distributed
CRASHED = 1
if __name__ == "__main__":
    distributed.init_process_group("gloo")
    total = torch.tensor([distributed.get_rank() + 1.0])
    distributed.all_reduce(total)
    place = os.environ["SLURM_JOB_NODELIST"] + " " + os.environ["SKYPILOT_NODE_RANK"] + "." + os.environ["LOCAL_RANK"]
    path = os.path.join(os.environ["SUMS"], str(distributed.get_rank()))
    open(path, "w").write(f"{total.item():g} {place}")
"""


def test_two_machines_of_two_ranks_each_are_one_training(
    slurm_bed: Bed, user: BedUser, shared: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    for package in ("jobs", "providers"):
        shutil.copytree(REPOSITORY / package, bundle / package, ignore=shutil.ignore_patterns("__pycache__"))
    (bundle / "jobs/train.py").write_text(SUMMING)
    offer = Offer("slurm", "bed-a", "spot", None, "A100", 1, 40.0, 4.0, 16.0, "inhouse", 1.1, "bed", None)
    env = {"SUMS": str(shared), "OMP_NUM_THREADS": "1"}
    user.launch(
        LaunchRequest("pair", bundle, (offer,), nodes=2, processes_per_node=2, python=sys.executable, env=env)
    )
    eventually(lambda: user.status("pair").state in ("succeeded", "failed"))
    assert user.status("pair").state == "succeeded", user.logs("pair")
    said = {path.name: path.read_text().split() for path in shared.iterdir()}
    assert {rank: total for rank, (total, *_) in said.items()} == dict.fromkeys("0123", "10")
    assert {rank: place for rank, (*_, place) in said.items()} == {
        "0": "0.0",
        "1": "0.1",
        "2": "1.0",
        "3": "1.1",
    }
    assert {nodes for _, nodes, _ in said.values()} == {"node[1-2]"}
    nothing_runs(slurm_bed, user, "pair")


def test_launches_that_were_killed_anywhere_are_one_job_each(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path, chance: random.Random
) -> None:
    spec = goat_spec(shared, steps=1_000_000)
    rounds = max(8, int(os.environ.get("ROUNDS", "8")) // 2)
    for number in range(rounds):
        run_id = f"killed-{number}"
        order = order_of(person, spec, run_id)
        person.killed(*order, "--yes", when=lambda: True, within_s=chance.uniform(0, 15))
        person.plan(*order, "--yes")
        assert user.call(living_jobs) == [f"plan-{run_id}-1"], (number, run_id)
        assert len(person.json("status", run_id)["run"]["attempts"]) == 1
        person.plan("cancel", run_id)
        nothing_runs(slurm_bed, user, run_id)
    assert {row["state"] for row in person.json("runs")["runs"] if row["run_id"].startswith("killed")} == {
        "cancelled"
    }


def test_a_run_that_another_ledger_adopts_and_a_third_one_reaps(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path, tmp_path: Path
) -> None:
    store = shared / "store/passed-on"
    person.plan(*order_of(person, goat_spec(shared, steps=1_000_000), "passed-on"), "--yes")
    running(user, "passed-on", store)
    other, third = Person(slurm_bed, tmp_path / "other"), Person(slurm_bed, tmp_path / "third")
    other.plan("runs", "adopt", "plan-passed-on-1", "--yes")  # SkyPilot knows where the run's record lies
    run = other.json("status", "passed-on")["run"]
    assert (run["state"], len(run["attempts"]), run["cap_usd"]) == ("running", 1, "5")
    assert float(run["cost_usd"]) > 0
    assert person.json("cancel", "passed-on", "--no-wait")["run"]["state_reason"].startswith(
        "run passed-on was adopted"
    )
    assert user.status("passed-on").stopped_by is None

    look = ("reap", "--source", "skypilot", "--older-than", "0.001s")
    assert other.json(*look, "--dry-run")["strays"] == []
    (row,) = third.json(*look, "--dry-run")["strays"]
    assert (row["kind"], row["run_id"], row["known"], row["ended"]) == ("job", "passed-on", False, False)
    (row,) = third.json(*look, "--unknown", "--yes")["strays"]
    assert row["ended"] is True
    nothing_runs(slurm_bed, user, "passed-on")
    assert other.json("status", "passed-on")["run"]["state"] == "cancelled"
