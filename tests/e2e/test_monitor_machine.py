"""`--monitor remote` on a real Slurm: another machine launches a run and starts it again after it was taken away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bed.bed import Bed
from tests.e2e.renting import (
    CANARY_SECRET,
    EVERY,
    Person,
    adapter_sha256,
    eventually,
    fence,
    files_with,
    goat_spec,
    order_of,
    step,
)

pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(1800)]
FAR = ("monitor", "machine")


@pytest.fixture
def far_person(slurm_bed: Bed, person: Person) -> Iterator[Person]:
    """Whose SkyPilot server is one that every machine can ask, as a team's is."""
    person.env["SKYPILOT_API_SERVER_ENDPOINT"] = f"http://127.0.0.1:{slurm_bed.sky.port}"
    yield person
    del person.env["SKYPILOT_API_SERVER_ENDPOINT"]


def on_the_machine(person: Person, *words: str) -> Any:
    """The JSON answer of a command there."""
    return json.loads(person.plan(*FAR, "run", "--", *words, "-o", "json"))


def test_a_machine_launches_watches_and_starts_again(
    slurm_bed: Bed, far_person: Person, shared: Path
) -> None:
    person = far_person
    order = order_of(person, goat_spec(shared, steps=600), "far")
    away = (*order, "--infra", "cluster", "--monitor", "remote", "--yes")
    person.plan(*away, code=2)  # there is no machine
    person.plan(*FAR, "up", "--where", "slurm/bed-b", code=2)  # nobody has agreed
    assert slurm_bed.slurm.run("squeue", "-h") == ""
    try:
        said = person.plan(*FAR, "up", "--where", "slurm/bed-b", "--secret", "PLAN_SECRET", "--yes")
        assert "machine in slurm/bed-b since" in said and "what it costs is not known here" in said
        assert person.json(*FAR, "show")["state"] == "up"
        person.plan(*away)
        person.plan(*away)  # the same run
        assert person.json("runs")["runs"] == []
        eventually(lambda: step(shared / "store/far") > EVERY)
        assert len(slurm_bed.slurm.run("squeue", "-h", "-o", "%j").splitlines()) == 2
        running = slurm_bed.slurm.run("squeue", "-h", "-o", "%i %j").splitlines()
        (number,) = [row.split()[0] for row in running if "plan-far-1-own" in row]
        slurm_bed.slurm.run("scancel", number)
        eventually(lambda: fence(shared / "store/far") == 2)
        eventually(lambda: on_the_machine(person, "status", "far")["run"]["state"] == "succeeded")
        run = on_the_machine(person, "status", "far")["run"]
        assert [row["outcome"] for row in run["attempts"]] == ["preempted", "done"]
        assert (run["step"], run["infra"]) == (600, "cluster")
        assert adapter_sha256(shared / "store/far")
        assert files_with(CANARY_SECRET, person.home, shared) == []
    finally:
        person.plan(*FAR, "down", "--yes")
    eventually(lambda: slurm_bed.slurm.run("squeue", "-h") == "")
    assert person.json(*FAR, "show")["state"] == "absent"
