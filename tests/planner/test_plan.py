import json
from pathlib import Path

import pytest

from planner.answer import estimate_spec
from planner.plan import Plan, load_plan, save_plan
from providers.errors import UsageError
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    offers = snapshot_of(offer_of(), offer_of("H100", 8, 30.0), offer_of("L4", 1, 0.5))
    return estimate_spec(spec_of(), tmp_path, offers, NOW).plan()


def test_a_plan_reads_back(plan: Plan, tmp_path: Path) -> None:
    save_plan(plan, tmp_path / "p.json")
    again = load_plan(tmp_path / "p.json")
    assert again.spec == plan.spec
    assert again.plan_hash == plan.plan_hash
    assert [c.candidate_id for c in again.candidates] == [c.candidate_id for c in plan.candidates]
    assert again.candidate(again.recommended or "").rank == 1


def test_the_hash_does_not_depend_on_the_clock(plan: Plan, tmp_path: Path) -> None:
    offers = snapshot_of(offer_of(), offer_of("H100", 8, 30.0), offer_of("L4", 1, 0.5))
    later = estimate_spec(spec_of(), tmp_path, offers, NOW.replace(hour=20)).plan()
    assert later.plan_hash == plan.plan_hash
    other = estimate_spec(spec_of(), tmp_path, snapshot_of(offer_of(price=2.1)), NOW).plan()
    assert other.plan_hash != plan.plan_hash


@pytest.mark.parametrize("where", ["price", "spec", "hash"])
def test_a_changed_plan_is_refused(plan: Plan, tmp_path: Path, where: str) -> None:
    path = tmp_path / "p.json"
    save_plan(plan, path)
    document = json.loads(path.read_text())
    if where == "price":
        document["candidates"][0]["offer"]["price_usd_per_h"] = "0.01"
    elif where == "spec":
        document["spec"]["train"]["global_batch"] = 32
    else:
        document["plan_hash"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="changed"):
        load_plan(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"schema": "tuneplan/estimate"}', "not a plan"),
        ('{"schema": "tuneplan/plan", "schema_version": 99}', "plan format 99"),
        ('{"schema": "tuneplan/plan", "schema_version": 1}', "not a complete plan"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        load_plan(path)


def test_an_unwritable_place_leaves_nothing_behind(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        save_plan(plan, tmp_path / "missing" / "p.json")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_candidate_is_named(plan: Plan) -> None:
    with pytest.raises(UsageError, match="c-nope"):
        plan.candidate("c-nope")
