"""`plan find --try` on a real Slurm and on an AWS that runs out of machines: what was had is known, nothing is left."""

from pathlib import Path

import pytest

from tests.bed.aws import AwsBed
from tests.bed.bed import Bed
from tests.e2e.renting import Person, eventually, goat_spec
from tests.e2e.test_aws import cloud, spot_spec

__all__ = ["cloud"]
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
    cloud.run_out_of("us-west-2a", "us-west-2b")
    found = person.json("find", str(spec), "--offline", "--try", "--cap", "2", "--yes")
    assert [row["state"] for row in found["tries"]] == ["stock_out", "stock_out", "released"]
    assert [row["cost_usd"] for row in found["tries"][:2]] == ["0", "0"]
    assert "sufficient capacity" in found["tries"][0]["reason"]
    assert cloud.instances() == []
    assert cloud.client("iam").list_roles()["Roles"] == []
    zones = [row["offer"]["zone"] for row in found["machines"]]
    assert zones[-2:] == [row["offer"]["zone"] for row in found["tries"][:2]]

    cloud.run_out_of("all")
    person.plan("find", str(spec), "--offline", "--try", "--cap", "2", "--yes", code=6)
    assert cloud.instances() == []
