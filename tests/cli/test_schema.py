from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_names, schema_text
from planner.spec import FineTuneSpec
from planner.spec_schema import spec_schema
from planner.yaml_source import read_yaml

RunPlan = Callable[..., Result]
ROOT = Path(__file__).parents[2]
SPECS = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("examples/*/spec.yaml")])


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def spec_validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(schema_text("spec")))


def test_the_shipped_spec_schema_is_the_models_schema() -> None:
    assert json.loads(schema_text("spec")) == as_json(spec_schema()), (
        "after a change of the models: python -m planner.spec_schema > planner/schemas/spec.json"
    )


@pytest.mark.parametrize("name", schema_names())
def test_every_schema_is_valid_draft_07_and_uses_only_its_words(name: str) -> None:
    schema = json.loads(schema_text(name))
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    newer = (
        '"$defs"',
        '"prefixItems"',
        '"dependentRequired"',
        '"dependentSchemas"',
        '"unevaluatedProperties"',
    )
    assert not [word for word in newer if word in schema_text(name)]


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "x", "model": "a/b"},
        {"name": "x", "model": {"id": "a/b"}, "method": "lora", "data": "train.jsonl", "where": None},
        {
            "name": "x",
            "model": "a/b",
            "where": {"clouds": "aws", "gpus": "H100:8", "market": "spot", "nodes": 2},
        },
        {
            "name": "x",
            "model": "a/b",
            "goal": {"budget": 50, "within": "1d"},
            "train": {"micro_batch": "auto"},
        },
        {"name": "x", "model": "a/b", "environment": {"python": 3.11, "secrets": "HF_TOKEN"}, "notify": "x"},
    ],
)
def test_shorthands_are_fine_for_editors_and_for_us(spec: dict[str, Any]) -> None:
    assert list(spec_validator().iter_errors(spec)) == []
    if spec.get("environment") is None:
        FineTuneSpec.model_validate(spec)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "x"},
        {"name": "X y", "model": "a/b"},
        {"name": "x", "model": "a/b", "methd": "lora"},
        {"name": "x", "model": "a/b", "method": {"kind": "lorra"}},
        {"name": "x", "model": "a/b", "train": {"epochs": -1}},
        {"name": "x", "model": "a/b", "train": {"steps": "many"}},
        {"name": "x", "model": "a/b", "environment": {"secrets": ["A=b"]}},
    ],
)
def test_editors_see_what_is_wrong(spec: dict[str, Any]) -> None:
    assert list(spec_validator().iter_errors(spec))


def test_editors_accept_the_examples() -> None:
    assert len(SPECS) >= 5
    for path in SPECS:
        assert list(spec_validator().iter_errors(as_json(read_yaml(path).data))) == []


def test_schemas_are_printed_as_they_are_shipped(run_plan: RunPlan) -> None:
    assert {"spec", "error"} <= set(schema_names())
    for name in schema_names():
        result = run_plan("schema", name)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == schema_text(name)
    assert run_plan("schema").stdout == schema_text("spec")


@pytest.mark.parametrize("name", ["nothing", "../data/gpus", "error.json", ""])
def test_an_unknown_schema_is_a_usage_error_that_lists_them(run_plan: RunPlan, name: str) -> None:
    result = run_plan("schema", name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no schema" in result.stderr
    assert "error, " in result.stderr
