"""A deadline kept on a real Slurm: spot is taken away again and again until only "on-demand" is in time.

Two regions with a preemptible partition ("spot") and another ("on-demand") each, at four prices. `RESULT=FILE` writes
down what happened.
"""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.renting import EVERY, Person, goat_spec, monitored, nothing_runs, step

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(3600)]
PRICES = {
    ("bed-a", "spot"): 0.5,
    ("bed-b", "spot"): 0.6,
    ("bed-a", "ondemand"): 1.1,
    ("bed-b", "ondemand"): 1.6,
}
MINUTES, STEPS = int(os.environ.get("MINUTES", "20")), int(os.environ.get("STEPS", "4000"))


@pytest.fixture
def mover(slurm_bed: Bed, tmp_path: Path) -> Person:
    """Somebody whose price book has both partitions of both regions."""
    someone = Person(slurm_bed, tmp_path / "home")
    head = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone"
    rows = [
        f",A100,1,4,16,{'' if zone == 'spot' else price},{price if zone == 'spot' else ''},{region},{zone}"
        for (region, zone), price in PRICES.items()
    ]
    (tmp_path / "catalog/slurm").mkdir(parents=True)
    (tmp_path / "catalog/slurm/vms.csv").write_text("\n".join([head, *rows]) + "\n")
    someone.plan(
        "prices", "import", str(tmp_path / "catalog"), "--as-of", datetime.now(UTC).date().isoformat()
    )
    return someone


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _place(attempt: dict[str, Any]) -> str:
    return f"{attempt['offer']['region']} {attempt['offer']['market']}"


def _disturb(bed: Bed, person: Person, store: Path) -> list[dict[str, Any]]:
    """Take spot machines away as soon as they have committed something, until the run leaves spot."""
    taken: list[dict[str, Any]] = []
    while True:
        run = person.json("status", "goat")["run"]
        newest = run["attempts"][-1]
        if newest["offer"]["market"] == "on_demand" or run["state"] == "succeeded":
            return taken
        begun = newest["first_step"]
        number = newest["attempt"]
        is_new = not taken or taken[-1]["attempt"] < number
        if run["state"] == "running" and begun is not None and is_new and step(store) >= begun + 2 * EVERY:
            bed.slurm.run("scancel", "--partition=spot")
            taken.append({"attempt": number, "place": _place(newest), "step": step(store)})
        time.sleep(1)


def test_a_tight_deadline_is_kept_although_spot_is_taken_away_again_and_again(
    slurm_bed: Bed, user: BedUser, mover: Person, shared: Path, tmp_path: Path
) -> None:
    spec = goat_spec(shared, steps=STEPS)
    spec.write_text(f"{spec.read_text()}goal: {{within: {MINUTES}m, objective: cheapest_by_deadline}}\n")
    store = shared / "store/goat"
    with monitored(mover, tmp_path / "monitor.log"):
        order = (
            "launch",
            str(spec),
            "--cap",
            "5",
            "--run-id",
            "goat",
            "--move",
            "--monitor",
            "service",
            "--yes",
        )
        mover.plan(*order)
        taken = _disturb(slurm_bed, mover, store)
        mover.plan("wait", "goat")
        why = mover.json("why", "goat", "--all")
        text = mover.plan("why", "goat")
    run = mover.json("status", "goat")["run"]
    ended_at = run["attempts"][-1]["ended_at"]
    spare_s = _seconds(why["deadline_at"]) - _seconds(ended_at)
    kept = ("outcome", "started_at", "ended_at", "first_step", "last_step")
    answer = {
        "steps": STEPS,
        "deadline_min": MINUTES,
        "taken_away": taken,
        "spare_s": round(spare_s, 1),
        "cost_usd": run["cost_usd"],
        "decisions": len(why["decisions"]),
        "events": why["events"],
        "attempts": [{"place": _place(row), **{key: row[key] for key in kept}} for row in run["attempts"]],
        "reasons": [row["reason"] for row in why["decisions"] if row["action"] in ("move", "start")],
    }
    if "RESULT" in os.environ:
        Path(os.environ["RESULT"]).write_text(json.dumps(answer, indent=1) + "\n" + text)
    assert (run["state"], run["step"]) == ("succeeded", STEPS), answer
    assert spare_s > 0, answer
    assert len(taken) >= 2, answer
    assert _place(run["attempts"][-1]).endswith("on_demand"), answer
    moved = [event for event in why["events"] if event["kind"] == "moved"]
    assert moved and not any(event["kind"] == "moved_badly" for event in why["events"]), answer
    nothing_runs(slurm_bed, user, "goat")
