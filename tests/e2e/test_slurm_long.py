"""Long campaigns on Slurm: many preemptions of one run, and `plan` killed in the middle of many launches.

`RESULTS=DIRECTORY` writes down what happened; ROUNDS sets how many launches are killed (at least eight).
"""

import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

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
    against_slurm,
    all_nodes_back,
    eventually,
    fence,
    goat_spec,
    living_jobs,
    monitored,
    nothing_runs,
    order_of,
    progress_of,
    running,
    running_nodes,
    step,
    take_away,
)

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long]
PREEMPTIONS = 5
STEPS = 2000


def write_result(name: str, answer: dict[str, Any]) -> None:
    """Put a campaign's answer into the directory that RESULTS names."""
    if "RESULTS" in os.environ:
        text = json.dumps({"seed": int(os.environ.get("SEED", "1")), **answer}, indent=1)
        (Path(os.environ["RESULTS"]) / f"slurm-{name}.json").write_text(text + "\n")


@pytest.fixture
def chance() -> random.Random:
    return random.Random(int(os.environ.get("SEED", "1")))


def test_a_run_preempted_at_random_moments_ends_with_the_weights_of_an_undisturbed_one(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path, chance: random.Random, tmp_path: Path
) -> None:
    spec = goat_spec(shared, steps=STEPS)
    store = shared / "store/often"
    moments = sorted(chance.sample(range(2 * EVERY, STEPS - 2 * EVERY), PREEMPTIONS))
    rows = []
    with monitored(person, tmp_path / "monitor.log"):
        person.plan(*order_of(person, spec, "often"), "--monitor", "service", "--yes")
        undisturbed = Undisturbed(person.home / "state/bundles/often/1", tmp_path)
        for number, moment in enumerate(moments, start=1):
            eventually(lambda moment=moment, number=number: fence(store) == number and step(store) >= moment)
            eventually(lambda: user.status("often").state == "running")
            before = time.monotonic()
            node = take_away(slurm_bed)
            reached = step(store)
            eventually(lambda number=number: fence(store) == number + 1 and step(store) > 0)
            said = progress_of(store)
            lost = max(
                reached - (said.resumed_from_step or 0), 0
            )  # it may have committed more than it had told
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
    all_nodes_back(slurm_bed)
    nothing_runs(slurm_bed, user, "often")
    same = adapter_sha256(store) == undisturbed.adapter_sha256()
    run = person.json("status", "often")["run"]
    seconds = against_slurm(slurm_bed, person, "often")
    write_result(
        "preemptions",
        {
            "steps": STEPS,
            "checkpoint_every_steps": EVERY,
            "preemptions": rows,
            "same_weights": same,
            "attempts": seconds,
            "cost_usd": run["cost_usd"],
        },
    )
    assert same
    assert (run["state"], run["step"]) == ("succeeded", STEPS)
    assert all(row["to"] != row["from"] for row in rows), rows
    assert all(abs(row["ledger_s"] - row["slurm_s"]) <= 2 for row in seconds), seconds


def test_plan_and_monitor_killed_at_random_moments_are_one_job_and_a_right_ledger(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path, chance: random.Random, tmp_path: Path
) -> None:
    spec = goat_spec(shared, steps=STEPS)
    store = shared / "store/kills"
    order = (*order_of(person, spec, "kills"), "--monitor", "service", "--yes")
    kills = []

    def killed(*words: str, within_s: float) -> None:
        after_s = chance.uniform(0, within_s)
        process = person.begun(*words)
        time.sleep(after_s)
        process.kill()
        process.wait()
        kills.append(
            {"command": words[0], "after_s": round(after_s, 1), "step": step(store), "fence": fence(store)}
        )

    with monitored(person, tmp_path / "monitor-0.log"):
        for _ in range(2):
            killed(*order, within_s=40)
        person.plan(*order)
    assert user.call(living_jobs) == ["plan-kills-1"]
    undisturbed = Undisturbed(person.home / "state/bundles/kills/1", tmp_path)
    watch = ("monitor", "run", "--every", "1s")
    for number in range(1, 4):
        killed(*watch, within_s=20)
        eventually(lambda number=number: fence(store) == number and step(store) > number * EVERY)
        take_away(slurm_bed)
        for _ in range(2):
            killed(*watch, within_s=25)
        living = user.call(living_jobs)
        assert len(living) <= 1, living
        with monitored(person, tmp_path / f"monitor-{number}.log"):
            eventually(lambda number=number: fence(store) == number + 1)
    with monitored(person, tmp_path / "monitor.log"):
        person.plan("wait", "kills")
    all_nodes_back(slurm_bed)
    nothing_runs(slurm_bed, user, "kills")
    same = adapter_sha256(store) == undisturbed.adapter_sha256()
    run = person.json("status", "kills")["run"]
    seconds = against_slurm(slurm_bed, person, "kills")
    write_result(
        "kills",
        {
            "steps": STEPS,
            "kills": kills,
            "preemptions": 3,
            "same_weights": same,
            "attempts": seconds,
            "cost_usd": run["cost_usd"],
        },
    )
    assert len(kills) >= 8 and same
    assert (run["state"], run["step"]) == ("succeeded", STEPS)
    assert all(abs(row["ledger_s"] - row["slurm_s"]) <= 2 for row in seconds), seconds


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
