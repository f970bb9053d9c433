"""From a release date weeks ahead to the report, on a real Slurm: advise, schedule, booked, run in it, what was saved.

The first looks are 40 days ago by an injected clock, when the cluster is full; what is booked and run is so now.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from planner.cli.context import App
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.renting import Person, completed_jobs, eventually, goat_spec, nothing_runs

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(3600)]
WEEKS_AGO = timedelta(days=40)
#: A machine of the pool is a node, and the job takes one of its GPUs.
POOL = """\
inhouse:
  - {name: bed-a, gpu: A100, gpus: 1, gpu_memory_gib: 40, machines: 2, capex: 20000usd, watts: 600,
     usd_per_kwh: 0.2, utilisation: 70%, slurm: {partition: ondemand, user: root}}
"""
STEPS = 600


@pytest.fixture
def company(person: Person, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """Somebody whose company owns the cluster; commands of this process act for them."""
    config = person.home / "config.yaml"
    config.write_text(POOL)
    for name, value in person.env.items():
        monkeypatch.setenv(name, value)
    yield person
    config.unlink()


@pytest.fixture
def full(slurm_bed: Bed) -> Iterator[Callable[[], None]]:
    """Every node is taken for a day; the callable frees them."""
    script = slurm_bed.root / "hold.sh"
    script.write_text("#!/bin/bash\nsleep 86400\n")
    words = ("-N3", "--exclusive", "-p", "ondemand", "-J", "others", "-o", "/dev/null", str(script))
    slurm_bed.slurm.run("sbatch", *words)
    eventually(lambda: "others" in slurm_bed.slurm.run("squeue", "-h", "-t", "R", "-o", "%j"), 60)

    def free() -> None:
        slurm_bed.slurm.run("scancel", "--name=others")
        eventually(lambda: slurm_bed.slurm.run("squeue", "-h") == "", 60)

    yield free
    free()


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.stdout + result.stderr
    return json.loads(result.stdout)


def test_the_whole_story_on_slurm(
    slurm_bed: Bed,
    user: BedUser,
    company: Person,
    full: Callable[[], None],
    shared: Path,
    run_plan: Callable[..., Result],
) -> None:
    spec = goat_spec(shared, steps=STEPS)
    spec.write_text(spec.read_text().replace("gpus: [A100]}", "gpus: [A100], regions: [bed-a]}"))
    release = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    then = App(now=lambda: datetime.now(UTC) - WEEKS_AGO)
    own = ("--by", release, "--provider", "inhouse")
    advice = answer(run_plan("reserve", "advise", spec, *own, "-o", "json", obj=then))
    assert float(advice["on_demand_cost_usd"]) > 0

    earliest = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    words = ("--from", earliest, *own, "--cap", "500usd", "--confirm-usd", "500", "--name", "block")
    answer(run_plan("reserve", "schedule", spec, *words, "--infra", "skypilot", "-o", "json", obj=then))
    (row,) = answer(run_plan("scheduler", "tick", "-o", "json", obj=then))["reservations"]
    assert (row["state"], "nothing that suits" in row["state_reason"]) == ("planned", True), row

    full()  # weeks later the cluster has room
    states = []
    for _ in range(4):
        (row,) = company.json("scheduler", "tick")["reservations"]
        states.append(row["state"])
        if row["run_id"] is not None and row["state"] == "active":
            break
    assert states[-1] == "active", (states, row)
    booked = slurm_bed.slurm.run("scontrol", "show", "reservation", "-o")
    assert "PartitionName=ondemand" in booked and "NodeCnt=1" in booked

    run_id = row["run_id"]
    company.plan("wait", run_id)
    nothing_runs(slurm_bed, user, run_id)
    run = company.json("status", run_id)["run"]
    assert (run["state"], run["step"], len(run["attempts"])) == ("succeeded", STEPS, 1)
    (job,) = completed_jobs(slurm_bed, run_id)
    assert job["partition"] == "ondemand" and job["reservation"] in booked, (job, booked)

    report = company.json("report", run_id)
    paid = float(report["paid_ahead_usd"] or report["cost_usd"])
    saved = float(report["on_demand_cost_usd"]) - paid
    word = f"${saved:.2f} saved" if saved >= 0 else f"${-saved:.2f} more than that"
    assert word in company.plan("report", run_id)
