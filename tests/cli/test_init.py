from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.specfile import load_spec
from planner.support import unsupported

RunPlan = Callable[..., Result]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "My Project_2"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_template_loads_without_findings_and_can_be_estimated(run_plan: RunPlan, project: Path) -> None:
    result = run_plan("init", "--yes")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "next: plan estimate spec.yaml" in result.stderr
    loaded = load_spec(project / "spec.yaml")
    assert loaded.spec.name == "my-project-2"
    assert unsupported(loaded.spec, for_launch=True) == []
    assert run_plan("estimate", "spec.yaml").exit_code == 0


def test_the_editor_line_names_the_schema_that_lies_beside_it(run_plan: RunPlan, project: Path) -> None:
    run_plan("init")
    first = (project / "spec.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./.tuneplan-schema.json"
    assert (project / ".tuneplan-schema.json").read_text(encoding="utf-8") == schema_text("spec")


def test_answers_may_be_given_as_options(run_plan: RunPlan, project: Path) -> None:
    result = run_plan(
        "init", "a b.yaml", "--name", "goat", "--model", "./it's: # odd", "--data", "my data/@NAME@.jsonl"
    )
    assert result.exit_code == 0
    assert "next: plan estimate 'a b.yaml'" in result.stderr
    spec = load_spec(project / "a b.yaml").spec
    assert (spec.name, spec.model.id, spec.data.train) == ("goat", "./it's: # odd", "my data/@NAME@.jsonl")


@pytest.mark.parametrize("model", ["true", "null", "123", "1e5", "~", "- x", "a\nb: c", "é"])
def test_answers_that_yaml_would_misread_are_quoted(run_plan: RunPlan, project: Path, model: str) -> None:
    assert run_plan("init", "--model", model).exit_code == 0
    assert load_spec(project / "spec.yaml").spec.model.id == model


def test_an_existing_spec_is_never_overwritten(run_plan: RunPlan, project: Path) -> None:
    (project / "spec.yaml").write_text("mine", encoding="utf-8")
    result = run_plan("init", "--yes")
    assert result.exit_code == 2
    assert "spec.yaml exists already" in result.stderr
    assert (project / "spec.yaml").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in project.iterdir()] == ["spec.yaml"]


def test_a_directory_gets_a_spec_inside(run_plan: RunPlan, project: Path) -> None:
    (project / "new").mkdir()
    assert run_plan("init", "new").exit_code == 0
    assert load_spec(project / "new" / "spec.yaml").spec.name == "new"


def test_a_bad_name_is_refused_before_anything_is_written(run_plan: RunPlan, project: Path) -> None:
    result = run_plan("init", "--name", "Bad Name")
    assert result.exit_code == 2
    assert "lower-case letters" in result.stderr
    assert list(project.iterdir()) == []


def test_a_missing_folder_is_a_usage_error(run_plan: RunPlan) -> None:
    result = run_plan("init", "no/such/spec.yaml")
    assert result.exit_code == 2
    assert "cannot write no/such/spec.yaml" in result.stderr
