"""A recurring run with `--skip-if-met`, with real trainings: trained, then skipped while good, then trained again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from planner.cli.context import App

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples/tiny-goat"
SPEC = """
name: goat
model: {base}
task: sft
data: {{train: {data}/train.jsonl, eval: {here}/eval.jsonl, format: prompt_completion}}
train: {{steps: 200, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32, learning_rate: 1e-3}}
goal: {{metric: {{name: exact_match, at_least: 0.1}}}}
"""


def tick(run_plan: RunPlan, month: int) -> list[dict[str, Any]]:
    then = App(now=lambda: datetime(2027, month, 1, 2, 5, tzinfo=UTC))
    result = run_plan("scheduler", "tick", "-o", "json", obj=then)
    assert result.exit_code == 0, result.stderr
    firings: list[dict[str, Any]] = json.loads(result.stdout)["firings"]
    return firings


@pytest.mark.train
@pytest.mark.long
def test_what_still_meets_its_goal_is_not_trained_again(run_plan: RunPlan, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (GOAT / "eval.jsonl").read_text().splitlines()[:40]]
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(base=GOAT / "base", data=GOAT, here=tmp_path))
    added = run_plan(
        *(
            "schedule",
            "add",
            spec,
            "--cron",
            "0 2 1 * *",
            "--infra",
            "local",
            "--no-cap",
            "--skip-if-met",
            "--yes",
        ),
        obj=App(now=lambda: datetime(2026, 12, 15, tzinfo=UTC)),
    )
    assert added.exit_code == 0, added.stderr
    (first,) = tick(run_plan, 1)
    assert first["state"] == "started", first
    assert run_plan("wait", first["run_id"]).exit_code == 0
    (second,) = tick(run_plan, 2)
    assert (second["state"], second["reason"]) == (
        "skipped",
        f"the model of {first['run_id']} still meets the goal",
    )
    # the world has changed: what was right is not any more
    held_out.write_text("".join(json.dumps({**line, "completion": " never"}) + "\n" for line in lines))
    (third,) = tick(run_plan, 3)
    assert third["state"] == "started" and third["run_id"] != first["run_id"]
    assert run_plan("cancel", third["run_id"]).exit_code == 0
