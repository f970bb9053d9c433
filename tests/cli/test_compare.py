"""`plan compare` and `plan diff`: specs and plans side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.golden_world import SPEC

Run = Callable[..., Result]


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec, the same with more epochs, the same under another name, and one that fits nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    Path("longer.yaml").write_text(SPEC.replace("epochs: 3", "epochs: 6"))
    Path("same.yaml").write_text(SPEC.replace("name: support", "name: other"))
    large = SPEC.replace("Llama-3.1-8B", "Llama-3.1-70B").replace(
        "{kind: lora, rank: 16, targets: all-linear}", "full"
    )
    Path("nowhere.yaml").write_text(large + "where: {gpus: [T4]}\n")
    return tmp_path


def document_of(result: Result) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_what_differs_and_by_how_much(run_plan: Run, specs: Path):
    document = document_of(run_plan("diff", "spec.yaml", "longer.yaml", "-o", "json"))
    assert document["differences"] == [{"path": "train.epochs", "before": 3.0, "after": 6.0}]
    change = {row["quantity"]: row["change"] for row in document["figures"]}
    assert 0.5 < change["wall_clock_h"] < 1.0 and change["cost_usd"] > 0.5  # starting up is not done twice
    assert document["same_prices"] and change["memory_reserved_gib"] == 0
    before, after = document["plans"]
    assert before["cost_usd"] == document["figures"][0]["before"]
    assert float(after["cost_usd"]["p50"]) > float(before["cost_usd"]["p50"])
    text = run_plan("diff", "spec.yaml", "longer.yaml").stdout
    assert "train.epochs  3       6" in text and "none" in text


def test_limits_are_told_as_people_write_them(run_plan: Run, specs: Path):
    limited = SPEC.replace("within: 24h", "within: 12h")
    Path("limited.yaml").write_text(limited)
    for command in ("diff", "compare"):
        told = run_plan(command, "spec.yaml", "limited.yaml")
        line = next(line for line in told.stdout.splitlines() if line.startswith("goal.within"))
        assert line.split()[1:] == ["24h", "12h"]
    document = document_of(run_plan("diff", "spec.yaml", "limited.yaml", "-o", "json"))
    assert {"path": "goal.within", "before": "86400s", "after": "43200s"} in document["differences"]


def test_a_plan_file_says_what_it_said(run_plan: Run, specs: Path):
    assert run_plan("estimate", "spec.yaml", "--out", "plan.json").exit_code == 0
    document = document_of(run_plan("diff", "plan.json", "spec.yaml", "-o", "json"))
    assert document["differences"] == []
    assert all(
        abs(row["change"]) < 1e-5 for row in document["figures"]
    )  # a plan file holds whole micro-dollars
    plan = Path("plan.json").read_text()
    Path("plan.json").write_text(plan.replace('"RTXPRO6000"', '"T4"'))
    changed = run_plan("diff", "plan.json", "spec.yaml")
    assert changed.exit_code == 2 and "was changed after it was made" in changed.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--fail-over", "20%"), 5),
        (("--fail-after", "0.2"), 9),
        (("--fail-over", "300%", "--fail-after", "300%"), 0),
        (("--fail-over", "much"), 2),
    ],
)
def test_a_gate_for_ci(run_plan: Run, specs: Path, words: tuple[str, ...], code: int):
    assert run_plan("diff", "spec.yaml", "longer.yaml", *words).exit_code == code
    backwards = run_plan("diff", "longer.yaml", "spec.yaml", *words)
    assert backwards.exit_code == (2 if code == 2 else 0)


@pytest.mark.parametrize("form", ["table", "md"])
def test_a_comment_that_says_nothing_is_not_written(run_plan: Run, specs: Path, form: str):
    words = ("--quiet-under", "5%", "-o", form)
    assert run_plan("diff", "spec.yaml", "same.yaml", *words).stdout == ""
    assert "train.epochs" in run_plan("diff", "spec.yaml", "longer.yaml", *words).stdout
    assert document_of(run_plan("diff", "spec.yaml", "same.yaml", *words[:2], "-o", "json"))["plans"]


def test_what_fits_nowhere_is_said_and_is_exit_3(run_plan: Run, specs: Path):
    result = run_plan("diff", "spec.yaml", "nowhere.yaml", "-o", "json")
    assert result.exit_code == 3 and "nowhere.yaml fits on no offer" in result.stderr
    document = document_of(result)
    assert document["plans"][1]["verdict"] == "oom" and document["plans"][1]["offer"] is None
    assert {row["change"] for row in document["figures"]} == {None}
    assert "fits nowhere" in run_plan("diff", "spec.yaml", "nowhere.yaml", "--quiet-under", "5%").stdout
    assert run_plan("diff", "nowhere.yaml", "spec.yaml").exit_code == 0
    table = run_plan("compare", "spec.yaml", "longer.yaml", "nowhere.yaml")
    assert table.exit_code == 0
    assert [line.split()[0] for line in table.stdout.splitlines()[1:4]] == [
        "spec.yaml",
        "longer.yaml",
        "nowhere.yaml",
    ]
    assert "nowhere.yaml  meta-llama/Llama-3.1-70B  full    nowhere" in table.stdout


def test_other_prices_are_told(run_plan: Run, specs: Path, plan_home: Path):
    assert run_plan("estimate", "spec.yaml", "--out", "plan.json").exit_code == 0
    (plan_home / "config.yaml").write_text("prices: {overrides: [{discount: 10%}]}\n")
    for words in (("diff", "plan.json", "spec.yaml"), ("compare", "plan.json", "spec.yaml")):
        assert "not planned with the same prices" in run_plan(*words).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compare", "spec.yaml"), "nothing to compare with"),
        (("compare", "spec.yaml", "missing.yaml"), "missing.yaml"),
        (("diff", "spec.yaml"), "Missing argument"),
        (("diff", "spec.yaml", "broken.yaml"), "broken.yaml:1:"),
        (("diff", "spec.yaml", "broken.json"), "is not JSON"),
    ],
)
def test_wrong_use_is_one_error(run_plan: Run, specs: Path, words: tuple[str, ...], said: str):
    Path("broken.yaml").write_text("modle: x\n")
    Path("broken.json").write_text("{")
    result = run_plan(*words)
    assert result.exit_code == 2 and said in result.stderr and result.stdout == ""
