"""`plan probe --infra skypilot` on a real Slurm: a few real steps on a rented machine, then nothing of it is left."""

import json
from pathlib import Path

import pytest

from jobs.progress import read_progress
from providers.stores import open_store
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.renting import Person, eventually, goat_spec, nothing_runs

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(1200)]


def test_a_rented_probe_measures_is_paid_for_and_leaves_no_machine(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path
) -> None:
    spec = goat_spec(shared, steps=5000)
    assert (
        "cap"
        in json.loads(person.plan("probe", str(spec), "--infra", "skypilot", "--yes", "-o", "json", code=2))[
            "errors"
        ][0]["message"]
    )

    answer = person.json("probe", str(spec), "--infra", "skypilot", "--steps", "20", "--cap", "1", "--yes")
    run_id = answer["run_id"]
    assert (answer["infra"], answer["steps"]) == ("skypilot", 20)
    nothing_runs(slurm_bed, user, run_id)

    run = person.json("status", run_id)["run"]
    assert (run["state"], run["step"], run["cap_usd"]) == ("succeeded", 20, "1")
    assert 0 < float(run["cost_usd"]) < 1
    assert run["attempts"][0]["offer"]["gpu"] == "A100"
    assert run_id in person.plan("costs", "-o", "json")

    measured = answer["measured"]["step_time_s"]["p50"]
    before, after = (answer[moment]["step_time_s"]["p50"] for moment in ("before", "after"))
    assert abs(after / measured - 1) < abs(before / measured - 1)
    told = person.json("estimate", str(spec))["assumptions"]
    assert any(run_id in row["source"] or "your runs" in row["source"] for row in told)

    store = open_store((shared / "store" / run_id).as_uri())
    assert [found.key for found in store.list("blobs/")] == []
    assert [found.key for found in store.list("manifests/")] == []


def test_an_interrupted_probe_gives_its_machine_back(
    slurm_bed: Bed, user: BedUser, person: Person, shared: Path
) -> None:
    spec = goat_spec(shared, steps=1_000_000)
    words = ("probe", str(spec), "--infra", "skypilot", "--steps", "500", "--cap", "1", "--yes")
    process = person.begun(*words)
    places = shared / "store"

    def trains() -> bool:
        said = [read_progress(open_store(path.as_uri())) for path in places.glob("*probe*")]
        return any(one is not None and one.step > 0 for one in said)

    eventually(trains)
    process.send_signal(2)  # Ctrl-C
    assert process.wait(timeout=300) != 0
    (run,) = (row for row in person.json("runs")["runs"] if row["state"] != "succeeded")
    nothing_runs(slurm_bed, user, run["run_id"])
    assert run["state"] in ("cancelling", "cancelled")
