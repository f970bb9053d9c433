"""What goes along to the monitor's machine, and in which words it is launched there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from planner.answer import estimate_spec
from planner.cli.launch_there import stage, words
from planner.local_machine import local_snapshot
from planner.plan import Plan, load_plan
from planner.proposal import Choices, Order
from planner.specfile import load_spec
from providers.errors import LaunchError, UsageError

GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Of a spec with data beside it and a model elsewhere."""
    home = tmp_path / "mine"
    home.mkdir()
    for name in ("train.jsonl", "eval.jsonl"):
        shutil.copy(GOAT / name, home)
    text = (GOAT / "spec.yaml").read_text().replace("id: ./base", f"id: {GOAT / 'base'}")
    (home / "spec.yaml").write_text(text.replace("train: train.jsonl", "train: ./train.jsonl"))
    loaded = load_spec(home / "spec.yaml")
    return estimate_spec(loaded.spec, loaded.base_dir, local_snapshot(), datetime.now(UTC)).plan()


def test_the_plan_goes_along_with_what_lies_beside_its_spec(tmp_path: Path, plan: Plan) -> None:
    there, prices = tmp_path / "there", tmp_path / "prices.csv"
    there.mkdir()
    prices.write_text("prices")
    stage(plan, there, prices)
    assert {path.name for path in there.iterdir()} == {
        "plan.json",
        ".prices.csv",
        "train.jsonl",
        "eval.jsonl",
    }
    loaded = load_plan(there / "plan.json")
    assert (loaded.plan_hash, loaded.base_dir) == (plan.plan_hash, Path())
    assert loaded.spec.model.id == str(GOAT / "base")  # must be there too
    (plan.base_dir / "train.jsonl").unlink()
    with pytest.raises(UsageError, match="does not exist"):
        stage(plan, there, prices)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (Choices(cap_usd=5.5), "--cap 5.500000"),
        (Choices(no_cap=True, max_duration_s=5400.0), "--no-cap --max-duration 5400s"),
    ],
)
def test_nothing_is_left_to_be_asked(plan: Plan, choices: Choices, said: str) -> None:
    chosen = plan.candidate(plan.recommended or "")
    text = " ".join(words(Order(plan, chosen, choices, "far"), "5%", "s3://team/register", "json"))
    assert said in text
    for part in ("launch plan.json", f"--candidate {chosen.candidate_id}", "--run-id far", "--yes -o json"):
        assert part in text
    assert "--monitor service" in text and "--store s3://team/register" in text


def test_what_was_rented_and_failed_is_told_and_stays_on_record(
    run_plan: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def begin(self, *_: object) -> None:
            raise LaunchError("its set-up failed")

    monkeypatch.setattr("planner.cli.monitor_machine._host", Refusing)
    monkeypatch.setattr("planner.cli.monitor_machine._server", lambda: None)
    failed = run_plan("monitor", "machine", "up", "--yes")
    assert failed.exit_code != 0
    assert "its set-up failed" in failed.stderr and "costs until `plan monitor machine down`" in failed.stderr
    assert "r6a.large in aws/us-east-1 since" in run_plan("status").stderr
    other = run_plan("monitor", "machine", "up", "--where", "gcp", "--yes")
    assert other.exit_code == 2 and "there is one in aws/us-east-1 already" in other.stderr


def test_a_dry_run_shows_the_tasks_as_one_document(
    run_plan: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.cli.monitor_machine._server", lambda: None)
    answer = run_plan("monitor", "machine", "up", "--dry-run", "-o", "json")
    document = json.loads(answer.stdout)
    tasks = list(YAML(typ="safe", pure=True).load_all(document["backend_document"]))
    assert (document["state"], document["since_at"], document["cost_usd"]) == (None, None, None)
    assert document["machine"]["instance_type"] == tasks[0]["resources"]["instance_type"] and len(tasks) == 2


@pytest.mark.parametrize("words", [("watch", "far"), ("logs", "-f", "far"), ("logs", "far", "--follow")])
def test_what_never_ends_is_not_asked_for_there(
    words: tuple[str, ...], run_plan: Callable[..., Result]
) -> None:
    refused = run_plan("monitor", "machine", "run", "--", *words)
    assert refused.exit_code == 2 and "goes on and on" in refused.stderr
