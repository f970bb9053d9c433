"""`plan find --try` on a real Slurm and on an AWS that runs out of machines: what was had is known, nothing is left."""

from pathlib import Path

import pytest

from tests.bed.aws import AwsBed
from tests.bed.bed import Bed
from tests.e2e.renting import Person, eventually, goat_spec
from tests.e2e.test_aws import spot_spec

pytestmark = [pytest.mark.slurm, pytest.mark.long]


def squeue(bed: Bed) -> str:
    return bed.slurm.run("squeue", "-h")


def test_a_machine_is_had_timed_costed_and_given_back(slurm_bed: Bed, person: Person, shared: Path) -> None:
    spec = goat_spec(shared, steps=100)
    found = person.json("find", str(spec), "--try", "--cap", "2", "--yes")
    (done,) = found["tries"]
    assert (done["state"], done["offer"]["region"]) == ("released", "bed-a")
    assert done["answered_after_s"] > 0
    assert 0 < float(done["cost_usd"]) < 1.1
    first = found["machines"][0]
    assert first["queue"] == {
        "tries": 1, "had": 1, "p50_s": done["answered_after_s"], "p90_s": done["answered_after_s"],
    }  # fmt: skip
    assert squeue(slurm_bed) == ""
    rows = {row["key"]: row["cost_usd"] for row in person.json("costs")["rows"]}
    assert rows[done["try_id"]] == done["cost_usd"]


def test_a_try_that_was_killed_is_known_and_can_be_ended(
    slurm_bed: Bed, person: Person, shared: Path
) -> None:
    spec = goat_spec(shared, steps=100)
    words = ("find", str(spec), "--offline", "--try", "--cap", "2", "--yes")
    person.killed(*words, when=lambda: squeue(slurm_bed) != "", within_s=5)
    (open_try,) = person.json("find", str(spec), "--offline")["open_tries"]
    person.plan("find", "--end-tries")
    assert person.json("find", str(spec), "--offline")["open_tries"] == []
    eventually(lambda: squeue(slurm_bed) == "")
    rows = {row["key"]: row["cost_usd"] for row in person.json("costs")["rows"]}
    assert float(rows[open_try]) > 0


def test_zones_without_machines_are_refusals_and_come_last_afterwards(
    slurm_bed: Bed, cloud: AwsBed, person: Person, shared: Path
) -> None:
    spec = spot_spec(slurm_bed, shared, steps=100)
    cloud.run_out_of("us-west-2a")
    words = ("find", str(spec), "--offline", "--try", "--cap", "2", "--yes")
    found = person.json(*words, "--limit", "2")
    refused, had = found["tries"]
    assert (refused["state"], refused["cost_usd"], had["state"]) == ("stock_out", "0", "released")
    assert "us-west-2a" in refused["reason"]
    assert (refused["offer"]["zone"], had["offer"]["zone"]) == ("us-west-2a", "us-west-2b")
    assert cloud.instances() == []
    assert cloud.client("iam").list_roles()["Roles"] == []
    assert [row["offer"]["zone"] for row in found["machines"]] == ["us-west-2b", "us-west-2a"]

    cloud.run_out_of("all")
    person.plan(*words, "--limit", "1", code=6)
    assert cloud.instances() == []
