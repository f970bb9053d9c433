"""`plan launch` on a cloud: the dry run needs neither logins nor a bucket, and says at once all that is in the way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from providers.errors import LaunchError

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
SPEC = f"""\
spec_version: 1
name: goat
project: Herd & Co
owner: ann
labels: {{team: nlp}}
model: {{id: {GOAT / "base"}}}
data: {{train: {GOAT / "train.jsonl"}, format: prompt_completion}}
train: {{steps: 100, sequence_length: 32}}
where: {{clouds: [aws], gpus: [L4], max_usd_per_hour: 3}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person without logins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "SKYPILOT_API_SERVER_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def dry_run(home: Path, run_plan: RunPlan) -> Callable[..., Result]:
    def run(more: str, *words: str) -> Result:
        (home / "spec.yaml").write_text(SPEC + more)
        return run_plan("launch", home / "spec.yaml", "--run-id", "goat-1", "--dry-run", *words)

    return run


DryRun = Callable[..., Result]


def test_the_document_is_shown_without_logins_or_a_shared_disk(dry_run: DryRun) -> None:
    result = dry_run("", "--cap", "5")
    assert result.exit_code == 0, result.stderr
    document = YAML(typ="safe").load(result.stdout)
    tried = document["resources"]["ordered"]
    assert {row["infra"].partition("/")[0] for row in tried} == {"aws"}
    assert {row["max_hourly_cost"] for row in tried} == {3}
    assert any(row.get("use_spot") for row in tried)
    labels = document["resources"]["labels"]
    expected = {"project": "herd---co", "owner": "ann", "team": "nlp", "tuneplan-run": "goat-1"}
    assert expected.items() <= labels.items()
    for said in ("no login for aws", "cannot write to file://", "price of aws"):
        assert said in result.stderr


def test_a_cluster_is_no_managed_job_and_has_no_controller(dry_run: DryRun) -> None:
    managed, own = (dry_run("", "--cap", "5", "--infra", infra) for infra in ("skypilot", "cluster"))
    assert own.exit_code == 0, own.stderr
    documents = [YAML(typ="safe").load(result.stdout) for result in (managed, own)]
    assert documents[0]["resources"].pop("job_recovery")["strategy"] == "EAGER_NEXT_REGION"
    assert documents[0] == documents[1]
    assert "jobs controller" in managed.stderr and "jobs controller" not in own.stderr


def test_all_that_is_in_the_way_is_told_at_once(dry_run: DryRun) -> None:
    result = dry_run("environment: {secrets: [MY_TOKEN]}\n", "--cap", "5", "-o", "json")
    answer: dict[str, Any] = json.loads(result.stdout)
    codes = [row["code"] for row in answer["blockers"]]
    assert codes == ["secret_missing", "cloud_login", "stale_price", "store_unreachable"]
    assert all(row["hint"] for row in answer["blockers"])
    document = YAML(typ="safe").load(answer["backend_document"])
    assert document["envs"]["TUNEPLAN_SECRETS"] == "MY_TOKEN"


def test_an_order_that_is_wrong_itself_is_an_error(dry_run: DryRun) -> None:
    result = dry_run("notify: [mailto://a@b.c]\n", "--cap", "5")
    assert (result.exit_code, result.stdout) == (2, "")
    assert dry_run("").exit_code == 2  # without a cap


def test_a_launch_is_refused_before_anything_is_contacted(
    dry_run: DryRun, home: Path, run_plan: RunPlan
) -> None:
    dry_run("")
    result = run_plan("launch", home / "spec.yaml", "--run-id", "goat-1", "--cap", "5", "--yes")
    assert result.exit_code == 2
    assert "no login for aws" in result.stderr
    assert run_plan("status", "goat-1").exit_code != 0


def test_every_cloud_that_may_be_tried_says_what_becomes_of_its_machine(
    home: Path, run_plan: RunPlan
) -> None:
    asked = SPEC.replace("[aws], gpus: [L4], max_usd_per_hour: 3", "[gcp, lambda, runpod], gpus: [H100]")
    (home / "spec.yaml").write_text(asked)
    said = run_plan("launch", home / "spec.yaml", "--run-id", "goat-1", "--dry-run", "--cap", "5").stderr
    assert "it ends itself; on gcp its disk stays" in said
    assert "a machine of lambda cannot end itself" in said
    assert re.search(r"\d+ of the others cannot be tried: there is no login for gcp, lambda here", said)
    (home / ".lambda_cloud").mkdir()
    (home / ".lambda_cloud/lambda_keys").write_text("api_key = k")
    said = run_plan("launch", home / "spec.yaml", "--run-id", "goat-1", "--dry-run", "--cap", "5").stderr
    assert "there is no login for gcp here (" in said


def test_the_price_of_an_hour_is_that_of_all_machines(home: Path, run_plan: RunPlan) -> None:
    """As in the table of an estimate: hours times it make the cost."""
    (home / "spec.yaml").write_text(SPEC.replace("max_usd_per_hour: 3", "nodes: 2, market: [on_demand]"))
    told = run_plan("estimate", home / "spec.yaml", "-o", "json")
    best = json.loads(told.stdout)["candidates"][0]
    assert best["nodes"] == 2
    all_usd = 2 * float(best["offer"]["price_usd_per_h"])
    said = run_plan("launch", home / "spec.yaml", "--run-id", "goat-1", "--dry-run", "--cap", "5").stderr
    assert f" at ${all_usd:g}/h for 2 machines" in said
    found = run_plan("find", home / "spec.yaml", "--offline", "--limit", "1").stdout
    assert f"  ${all_usd:,.2f}/h, " in found


def test_an_opinion_launches_nothing(home: Path, run_plan: RunPlan) -> None:
    (home / "spec.yaml").write_text(SPEC)
    result = run_plan("launch", home / "spec.yaml", "--optimizer", "--cap", "5", "--yes")
    assert result.exit_code == 2
    assert "add --dry-run" in result.stderr


def test_what_skypilot_rents_besides_is_said_unless_it_is_set_not_to(dry_run: DryRun, home: Path) -> None:
    said = "also rents a machine of 4 processors for its jobs controller"
    assert said in dry_run("", "--cap", "5").stderr
    (home / ".sky").mkdir()
    (home / ".sky/config.yaml").write_text("jobs: {controller: {consolidation_mode: true}}\n")
    assert said not in dry_run("", "--cap", "5").stderr


def test_skypilots_own_choice_is_shown_beside_ours(dry_run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    from providers import skypilot_optimizer
    from providers.skypilot_optimizer import Opinion, Timed

    words = ("--cap", "5", "--optimizer")
    asked: list[Timed] = []

    def first(machines: list[Timed], nodes: int = 1) -> Opinion:
        asked[:] = machines
        return Opinion(machines[0], 1.25)

    monkeypatch.setattr(skypilot_optimizer, "opinion", first)
    assert "takes the same machine: $1.25 for" in dry_run("", *words).stderr
    assert len(asked) > 1 and all(row.hours > 0 for row in asked)
    monkeypatch.setattr(skypilot_optimizer, "opinion", lambda rows, nodes: Opinion(rows[-1], 1.0))
    assert "; the plan takes " in dry_run("", *words).stderr

    def nobody(rows: list[Timed], nodes: int = 1) -> Opinion:
        raise LaunchError("no cloud is enabled")

    monkeypatch.setattr(skypilot_optimizer, "opinion", nobody)
    answer = json.loads(dry_run("", *words, "-o", "json").stdout)
    assert [row["message"] for row in answer["warnings"]] == [
        "SkyPilot's optimizer has no opinion: no cloud is enabled"
    ]


def test_a_remote_monitor_is_priced_and_its_task_shown(
    dry_run: DryRun, run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.cli.monitor_machine._server", lambda: None)
    result = dry_run("", "--cap", "5", "--monitor", "remote")
    assert result.exit_code == 0
    assert "r6a.large in aws/us-east-1: $0.1134/h" in result.stderr and "beside its cap" in result.stderr
    said = run_plan("monitor", "machine", "up", "--dry-run")
    setup, monitor = YAML(typ="safe").load_all(said.stdout)
    assert (setup["resources"]["instance_type"], "monitor run" in monitor["run"]) == ("r6a.large", True)
    unknown = run_plan("monitor", "machine", "up", "--where", "vast", "--yes")
    assert unknown.exit_code == 2 and "known are aws, azure, gcp" in unknown.stderr
    alone = run_plan("monitor", "machine", "up")
    assert alone.exit_code == 2 and "Nobody can be asked here" in alone.stderr
    unset = run_plan("monitor", "machine", "up", "--secret", "NOT_SET_ANYWHERE", "--yes")
    assert unset.exit_code == 4 and "NOT_SET_ANYWHERE" in unset.stderr


@pytest.mark.parametrize("words", [("--infra", "local"), ("--reservation", "r-1"), ("--wait",)])
def test_what_cannot_be_launched_from_elsewhere(words: tuple[str, ...], run_plan: RunPlan) -> None:
    result = run_plan("launch", "spec.yaml", "--monitor", "remote", *words)
    assert result.exit_code == 2 and " does not go with --monitor remote" in result.stderr
    assert words[0] in result.stderr


def test_a_run_that_moves_begins_where_the_policy_says(dry_run: DryRun) -> None:
    result = dry_run("goal: {within: 48h}\n", "--cap", "5", "--move")
    assert result.exit_code == 0, result.stderr
    (place,) = YAML(typ="safe").load(result.stdout)["resources"]["ordered"]
    assert place["infra"].startswith("aws/")


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ("", 2, "--move needs a deadline"),
        ("goal: {within: 5m}\n", 9, "even on-demand from now on would be done about"),
    ],
)
def test_a_move_that_cannot_work_is_refused(dry_run: DryRun, more: str, code: int, said: str) -> None:
    result = dry_run(more, "--cap", "5", "--move")
    assert result.exit_code == code
    assert said in result.stderr


def test_a_move_needs_both_markets(dry_run: DryRun, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SPEC", SPEC.replace("max_usd", "market: [on_demand], max_usd"))
    result = dry_run("goal: {within: 48h}\n", "--cap", "5", "--move")
    assert result.exit_code == 2 and "none is spot" in result.stderr


def test_offline_names_everything_that_needs_the_internet_and_asks_nobody(
    dry_run: DryRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAN_OFFLINE", "")  # so that what the option sets is undone
    more = "checkpoints: {uri: 's3://no-such-bucket/x'}\n"
    answer = json.loads(dry_run(more, "--cap", "5", "--offline", "-o", "json").stdout)
    codes = [row["code"] for row in answer["blockers"]]
    assert codes == ["needs_internet", "needs_internet", "cloud_login", "stale_price"]
    assert [row["message"] for row in answer["blockers"]][1].startswith("checkpoints.uri")
