"""`plan launch --infra cluster` on a real Slurm: a cluster of the run's own, without SkyPilot's jobs controller.

It is one cluster however often it is asked for; when it is taken away the monitor starts the next attempt; when its
job is over it is given back; nothing of the user's own is on it.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.bed.bed import Bed
from tests.e2e.renting import (
    CANARY_FILE,
    CANARY_SECRET,
    EVERY,
    Person,
    Undisturbed,
    adapter_sha256,
    against_slurm,
    eventually,
    fence,
    files_with,
    goat_spec,
    monitored,
    on_the_node,
    order_of,
    running_nodes,
    shown_to_others,
    step,
)

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(1800)]
SERVED = ("--infra", "cluster", "--monitor", "service", "--yes")


def run_of(person: Person, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = person.json("status", run_id)["run"]
    return found


def is_idle(bed: Bed) -> bool:
    return bed.slurm.run("squeue", "-h") == ""


def test_a_cluster_that_is_taken_away_is_followed_by_another_and_the_last_is_given_back(
    slurm_bed: Bed,
    person: Person,
    shared: Path,
    train_undisturbed: Callable[[Path], Undisturbed],
) -> None:
    spec = goat_spec(shared, steps=600)
    store = shared / "store/own"
    bundle = person.home / "state/bundles/own/1"
    order = order_of(person, spec, "own")
    shown = person.plan(*order, "--infra", "cluster", "--dry-run")
    assert "infra: slurm/bed-a/spot" in shown and "job_recovery" not in shown
    with monitored(person, shared / "monitor.out"):
        person.killed(*order, *SERVED, when=bundle.exists)
        with ThreadPoolExecutor() as two:
            answers = list(two.map(lambda _: person.json(*order, *SERVED), range(2)))
        assert [(answer["created"], answer["infra"]) for answer in answers] == [(False, "cluster")] * 2
        undisturbed = train_undisturbed(bundle)
        eventually(lambda: step(store) > EVERY)
        assert len(running_nodes(slurm_bed)) == 1
        assert shown_to_others(slurm_bed, CANARY_SECRET) == []
        slurm_bed.slurm.run("scancel", "--partition=spot")
        eventually(lambda: fence(store) == 2)
        assert on_the_node(slurm_bed, CANARY_SECRET, CANARY_FILE) == []
        eventually(lambda: run_of(person, "own")["state"] == "succeeded")
        eventually(lambda: is_idle(slurm_bed))
    assert adapter_sha256(store) == undisturbed.adapter_sha256()
    run = run_of(person, "own")
    told = (shared / "monitor.out").read_text()
    assert (run["step"], run["infra"], len(run["attempts"])) == (600, "cluster", 2), told
    assert [row["outcome"] for row in run["attempts"]] == ["preempted", "done"]
    places = [(row["offer"]["region"], row["offer"]["price_usd_per_h"]) for row in run["attempts"]]
    assert places == [("bed-a", "1.1"), ("bed-b", "1.6")]  # not where it has just been taken away
    by_slurm = against_slurm(slurm_bed, person, "own")
    assert all(abs(row["start_off_s"]) <= 2 and abs(row["end_off_s"]) <= 2 for row in by_slurm), by_slurm
    assert person.plan("logs", "own", "--stored").rstrip().endswith("done")
    assert files_with(CANARY_SECRET, spec.parent, person.home, slurm_bed.sky.path) == []
    with pytest.raises(AssertionError, match="was launched with --infra cluster"):
        person.plan(*order, "--yes")  # as a managed job, which it is not


def test_one_that_is_cancelled_is_given_back_with_its_checkpoint(
    slurm_bed: Bed, person: Person, shared: Path
) -> None:
    spec = goat_spec(shared, steps=1_000_000)
    person.plan(*order_of(person, spec, "stray"), "--infra", "cluster", "--yes")
    eventually(lambda: step(shared / "store/stray") > EVERY)
    assert person.json("cancel", "stray")["run"]["state"] == "cancelled"
    eventually(lambda: is_idle(slurm_bed))
    (attempt,) = run_of(person, "stray")["attempts"]
    assert attempt["ended_at"] is not None and float(attempt["cost_usd"]) > 0
