"""`plan evaluate` on a real (tiny) model, and what `plan report` shows of the run that made it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples/tiny-goat"

SPEC = """
name: goat
model: {base}
task: sft
data: {{train: {here}/train.jsonl, eval: {here}/eval.jsonl, format: prompt_completion}}
train: {{steps: 12, sequence_length: 32, global_batch: 16, micro_batch: 16, precision: fp32, learning_rate: 1e-3}}
evaluate: {{every: 4 steps, choose: best, guard: {{data: {here}/new.jsonl, metric: loss, at_most_worse: 9}}}}
goal: {{metric: {{name: exact_match, at_least: 0.99}}}}
"""


def answer(run_plan: RunPlan, *words: object, schema: str, code: int = 0) -> dict[str, Any]:
    result = run_plan(*words, "-o", "json")
    assert result.exit_code == code, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(schema_text(schema)))
    return document


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    lines = (GOAT / "eval.jsonl").read_text().splitlines(keepends=True)
    rows = (GOAT / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(rows[:400]))
    (tmp_path / "eval.jsonl").write_text("".join(lines[:40]))
    (tmp_path / "new.jsonl").write_text("".join(lines[40:60]))
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.format(base=GOAT / "base", here=tmp_path))
    return path


@pytest.mark.train
def test_a_model_is_measured_before_training_in_it_and_on_new_data(
    run_plan: RunPlan, plan_home: Path, spec: Path
) -> None:
    before = answer(run_plan, "evaluate", spec, "--base", "--check", schema="evaluate", code=12)
    assert (before["run_id"], before["step"], before["metric"]) == (None, None, "exact_match")
    assert before["goal"]["base_meets"] is False and before["goal"]["tuned_meets"] is None

    launched = run_plan(
        "launch", spec, "--infra", "local", "--run-id", "goat-1", "--no-cap", "--yes", "--wait"
    )
    assert launched.exit_code == 0, launched.stderr
    picture = spec.with_name("goat.svg")
    page = spec.with_name("goat.html")
    report = answer(run_plan, "report", "goat-1", "--plot", picture, "--html", page, schema="report")
    history = report["history"]
    assert [one["step"] for one in history["evaluations"]] == [4, 8, 12]
    assert [one["step"] for one in history["losses"]][-1] == 12
    assert report["guard"]["passed"] is True
    assert report["output_step"] in (4, 8, 12)
    assert "handed over" in picture.read_text() and "training loss" in picture.read_text()
    assert "(guard)" in page.read_text() and "training loss" in page.read_text()
    text = run_plan("report", "goat-1").stdout
    assert "start-up" in text and "loss (guard)" in text and ": kept" in text

    again = answer(run_plan, "evaluate", "goat-1", schema="evaluate")
    mine = {(one["name"], one["base"], one["tuned"]) for one in again["metrics"]}
    assert mine == {
        (one["name"], one["base"], one["tuned"]) for one in report["metrics"] if one["split"] == "eval"
    }
    assert {(one["name"], one["base"]) for one in before["metrics"]} == {name_base[:2] for name_base in mine}

    new = answer(run_plan, "evaluate", "goat-1", "--data", spec.with_name("new.jsonl"), schema="evaluate")
    assert (new["metrics"][0]["n"], new["step"]) == (20, 12)
    on_guard = {one["name"]: one["tuned"] for one in report["metrics"] if one["split"] == "guard"}
    assert {one["name"]: one["tuned"] for one in new["metrics"]} == on_guard


def test_what_cannot_be_measured_is_told(run_plan: RunPlan, plan_home: Path, spec: Path) -> None:
    assert run_plan("evaluate", "nobody").exit_code == 2
    both = run_plan("evaluate", spec, "--base", "--data", spec.with_name("new.jsonl"))
    assert both.exit_code == 2 and "--base takes the data of the spec" in both.stderr
    spec.write_text(spec.read_text().replace("eval.jsonl", "none.jsonl"))
    missing = run_plan("evaluate", spec, "--base")
    assert missing.exit_code == 2 and "none.jsonl" in missing.stderr and missing.stdout == ""
