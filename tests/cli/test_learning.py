"""Data inspection and learning from runs, through the command line."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from jobs.progress import StepTimes
from planner.calibration_ledger import mean_step_s
from planner.cli.schema import schema_text
from planner.store import Change, Store
from tests.planner.test_calibration_ledger import GOAT, estimate, finished

RunPlan = Callable[..., Result]
ROOT = Path(__file__).parents[2]
GOAT_FILES = ROOT / "examples/tiny-goat"


def checked(result: Result, name: str) -> dict[str, Any]:
    """The answer, held against its schema."""
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(schema_text(name)))
    return document


def record(home: Path, times: float, run_id: str) -> None:
    """A finished goat run whose steps took `times` as long as the formula says on this machine."""
    run = finished(estimate(GOAT.spec, local=True), times=times, run_id=run_id)
    with Store(home / "state" / "plan.db") as store:
        store.create(run_id, run.terms, run.current)
        change = Change("succeeded", "", run.current, "2026-11-22T12:02:00Z", progress_json=run.progress_json)
        stored = store.get(run_id)
        assert stored is not None
        assert store.apply(stored, change)


def test_an_empty_ledger_says_so_and_is_no_error(run_plan: RunPlan, plan_home: Path) -> None:
    assert "no finished run" in run_plan("accuracy").stdout
    assert "nothing learned yet" in run_plan("calibrate").stdout
    assert checked(run_plan("accuracy", "-o", "json"), "accuracy")["rows"] == []
    assert checked(run_plan("calibrate", "-o", "json"), "calibrate")["rows"] == []


def test_an_estimate_makes_no_ledger(run_plan: RunPlan, plan_home: Path) -> None:
    assert run_plan("estimate", GOAT_FILES / "spec.yaml", "--infra", "local").exit_code == 0
    assert not (plan_home / "state").exists()


def test_finished_runs_show_in_accuracy_and_calibration(run_plan: RunPlan, plan_home: Path) -> None:
    for number, times in enumerate((2.0, 2.2, 1.9)):
        record(plan_home, times, f"r{number}")
    rows = checked(run_plan("accuracy", "-o", "json"), "accuracy")["rows"]
    step = next(row for row in rows if row["quantity"] == "step_time_s" and row["gpu"] == "CPU")
    assert (step["runs"], step["median_abs_error"]) == (3, pytest.approx(0.5))
    table = run_plan("accuracy").stdout
    assert "step time" in table
    assert "CPU" in table
    learned = checked(run_plan("calibrate", "-o", "json"), "calibrate")
    assert len(learned["runs"]) == 3
    assert "step time" in run_plan("calibrate").stdout


def test_an_estimate_uses_the_ledger_unless_told_not_to(run_plan: RunPlan, plan_home: Path) -> None:
    def said(*more: str) -> list[dict[str, Any]]:
        answer = run_plan("estimate", GOAT_FILES / "spec.yaml", "--infra", "local", "-o", "json", *more)
        document = checked(answer, "estimate")
        return [row for row in document["assumptions"] if "your runs" in row["source"]]

    record(plan_home, 3.0, "r1")
    assert "start x" in said()[0]["value"]  # the same place, whatever number of cores this machine has
    assert said("--no-calibration") == []
    words = ("estimate", GOAT_FILES / "spec.yaml", "--infra", "local")
    notes = [line for line in run_plan(*words).stdout.splitlines() if line.startswith("note: calibrated")]
    assert len(notes) == 1 and "by one of your runs: " in notes[0] and "start x" in notes[0]
    assert "note: calibrated" not in run_plan(*words, "--no-calibration").stdout


def test_a_damaged_ledger_is_a_warning_for_an_estimate(run_plan: RunPlan, plan_home: Path) -> None:
    (plan_home / "state").mkdir()
    (plan_home / "state" / "plan.db").write_bytes(b"no ledger at all" * 100)
    result = run_plan("estimate", GOAT_FILES / "spec.yaml", "--infra", "local")
    assert result.exit_code == 0
    assert "not calibrated by your runs" in result.stderr


def test_data_is_counted_by_the_models_own_tokenizer(run_plan: RunPlan) -> None:
    files = (GOAT_FILES / "train.jsonl", "--eval", GOAT_FILES / "eval.jsonl", "--model", GOAT_FILES / "base")
    document = checked(run_plan("data", "inspect", *files, "-o", "json"), "data_inspect")
    assert (document["records"], document["tokens_source"]) == (4000, "counted")
    characters = sum(
        len(row["prompt"]) + len(row["completion"])
        for row in map(json.loads, (GOAT_FILES / "train.jsonl").read_text().splitlines())
    )
    assert document["tokens_total"]["p50"] == characters + 4000  # a token a character, and an end mark
    assert document["findings"] == []
    assert sum(one["records"] for one in document["histogram"]) == pytest.approx(4000)


def test_faults_are_shown_with_their_lines(run_plan: RunPlan, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(
        '{"text": "write to a@example.org", "label": "a"}\nnonsense\n{"text": "fine", "label": "a"}\n'
    )
    table = run_plan("data", "inspect", path).stdout
    assert "train.jsonl:1" in table
    assert "broken lines" in table
    assert "train.jsonl:2" in table
    document = checked(run_plan("data", "inspect", path, "-o", "json"), "data_inspect")
    assert document["labels"] == [{"label": "a", "records": 2, "share": 1.0}]
    assert document["tokens_source"] == "guessed"


def test_a_missing_file_and_an_unknown_model_are_usage_errors(run_plan: RunPlan, tmp_path: Path) -> None:
    assert run_plan("data", "inspect", tmp_path / "gone.jsonl").exit_code == 2
    assert run_plan("data", "inspect", GOAT_FILES / "train.jsonl", "--model", "no/such-model").exit_code == 2


@pytest.mark.parametrize("words", [["estimate", "--infra", "clouds"], ["data", "inspect"]])
def test_tokenizers_are_not_imported_where_no_tokenizer_is_at_hand(words: list[str], tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"text": "a few words"}\n' * 50)
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"name: x\nmodel: meta-llama/Llama-3.1-8B\ndata: {data}\n")
    args = [*words, str(spec if words[0] == "estimate" else data)]
    script = f"""
import sys
from planner.cli.main import cli
try:
    cli.main({args!r})
except SystemExit as end:
    assert end.code == 0, end.code
print("LOADED" if {{"tokenizers", "transformers", "pyarrow"}} & set(sys.modules) else "LIGHT")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("LIGHT\n")


@pytest.mark.train
def test_a_probe_measures_and_leaves_nothing_but_its_measurement(run_plan: RunPlan, plan_home: Path) -> None:
    result = run_plan("probe", GOAT_FILES / "spec.yaml", "--steps", "10", "--yes", "-o", "json")
    document = checked(result, "probe")
    # hours are made of mean steps: beside other work on the machine that is more than the median
    measured = mean_step_s(StepTimes(**document["measured"]["step_time_s"]))
    before, after = (document[moment]["step_time_s"]["p50"] for moment in ("before", "after"))
    assert abs(math.log(after / measured)) < max(abs(math.log(before / measured)), math.log(1.2))
    assert not (plan_home / "state" / "checkpoints" / document["run_id"]).exists()
    status = json.loads(run_plan("status", document["run_id"], "-o", "json").stdout)
    assert status["run"]["state"] == "succeeded"
    assert status["run"]["labels"]["plan-probe"] == "tiny-goat"
    assert checked(run_plan("accuracy", "-o", "json"), "accuracy")["rows"] == []
