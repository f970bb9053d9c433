"""`-o yaml` and `-o md`: the JSON document in other clothes, on every command that has one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml as yaml_1_1
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.cli.as_markdown import markdown_text
from planner.cli.as_yaml import yaml_text
from tests.cli.commands import leaves

RunPlan = Callable[..., Result]
HEAD = {"schema": "tuneplan/x_y", "schema_version": 1, "tuneplan_version": "1", "generated_at": "now"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_every_command_with_a_format_has_all_of_them() -> None:
    found = {
        words: option for words, command in leaves() for option in command.params if option.name == "output"
    }
    assert len(found) > 40
    for words, option in found.items():
        choices = getattr(option.type, "choices", ())
        assert {"table", "json", "yaml", "md"} <= set(choices), words


@given(st.dictionaries(st.text(max_size=9), VALUES, max_size=4))
def test_yaml_reads_back_as_the_same(document: dict[str, Any]) -> None:
    text = yaml_text(document)
    assert text.isascii()
    assert YAML(typ="safe", pure=True).load(text) == document


@pytest.mark.parametrize(
    "text",
    ["12.5", "1e3", "0x1F", "1:30", "yes", "No", "on", "null", "~", "2026-01-02", "2026-01-02T03:04:05Z", "a: b",
     "- a", "#a", "'", '"', "", " a", "é€😀", "a\nb\tc", "=", "<<", "!x", "&a", "*a", "%", "@", "`"],
)  # fmt: skip
def test_older_readers_take_texts_for_texts_too(text: str) -> None:
    assert yaml_1_1.safe_load(yaml_text({"a": text, "b": [text]})) == {"a": text, "b": [text]}


def test_markdown_has_a_table_for_each_list() -> None:
    text = markdown_text(
        {
            **HEAD,
            "plain": "a|b\n<c>\\",
            "nothing": None,
            "yes": True,
            "cost_usd": {"p10": "1.25", "p50": "2.5", "p90": "4"},
            "deep": {"hours_h": 1234.56789, "rows": [{"x": 1, "in": {"y": ["p", "q"]}}, {"x": 2, "z": None}]},
            "runs": [{"name": "n", "attempts": [{"attempt": 1}]}],
            "empty": [],
        }
    )
    assert text.splitlines() == [
        "## x y",
        "",
        "| field | value |",
        "| --- | --- |",
        "| `plain` | a\\|b &lt;c>\\\\ |",
        "| `nothing` | n/a |",
        "| `yes` | yes |",
        "| `cost_usd` | 2.5 (1.25 to 4) |",
        "| `deep.hours_h` | 1234.57 |",
        "| `empty` | none |",
        "",
        "### deep.rows",
        "",
        "| x | in.y | z |",
        "| --- | --- | --- |",
        "| 1 | p, q | n/a |",
        "| 2 | n/a | n/a |",
        "",
        "### runs",
        "",
        "| name |",
        "| --- |",
        "| n |",
        "",
        "### runs 1: attempts",
        "",
        "| attempt |",
        "| --- |",
        "| 1 |",
        "",
        "tuneplan 1, now",
    ]


def test_changes_shares_and_chances_are_per_cent_in_markdown() -> None:
    row = {"change": 0.772, "p_in_time": 1.0, "spot_share": 0.975, "before": 0.5, "share": None}
    text = markdown_text({**HEAD, "rows": [row, {**row, "change": -0.5}]})
    assert "| +77.2% | 100% | 97.5% | 0.5 | n/a |" in text
    assert "| -50.0% |" in text


def test_numbers_in_markdown_are_as_exact_as_a_person_reads_them() -> None:
    text = markdown_text(
        {
            "schema": "tuneplan/x",
            "tuneplan_version": "1",
            "generated_at": "now",
            "revision": "1.23456",
            "figures": [
                {"of": "cost", "before": {"p10": "6.206262", "p50": "1234.567891", "p90": "0.001543"}},
                {"of": "hours", "before": {"p10": 6.206262, "p50": 1234.567891, "p90": 0.001543}},
            ],
            "price_usd_per_h": "10.239999",
            "tiny_usd": "0.000012",
            "change": -0.123456,
        }
    )
    assert "| cost | 1234.57 (6.21 to 0.0015) |" in text
    assert "| hours | 1234.57 (6.21 to 0.00154) |" in text
    assert "| `revision` | 1.23456 |" in text and "| `price_usd_per_h` | 10.24 |" in text
    assert "| `tiny_usd` | 0.000012 |" in text and "| `change` | -12.3% |" in text


def test_the_same_answer_in_every_format(run_plan: RunPlan) -> None:
    words = ("offers", "--gpu", "H100:8", "--limit", "3", "-o")
    document, again = json.loads(run_plan(*words, "json").stdout), run_plan(*words, "yaml").stdout
    loaded = YAML(typ="safe", pure=True).load(again)
    assert {**loaded, "generated_at": 0, "offers": 0} == {**document, "generated_at": 0, "offers": 0}
    assert [row["price_usd_per_h"] for row in loaded["offers"]] == [
        row["price_usd_per_h"] for row in document["offers"]
    ]
    table = run_plan(*words, "md").stdout
    assert table.startswith("## offers\n") and table.count("\n| ") > 20


def test_an_error_is_an_answer_in_yaml_and_none_in_markdown(run_plan: RunPlan) -> None:
    result = run_plan("status", "nothing", "-o", "yaml")
    document = YAML(typ="safe", pure=True).load(result.stdout)
    assert (document["schema"], document["exit_code"], result.exit_code) == ("tuneplan/error", 2, 2)
    result = run_plan("status", "nothing", "-o", "md")
    assert (result.stdout, result.exit_code) == ("", 2) and "there is no run" in result.stderr


def test_drawings_have_no_place_in_documents(run_plan: RunPlan) -> None:
    result = run_plan("estimate", "spec.yaml", "--plot", "-", "-o", "md")
    assert result.exit_code == 2 and "no place in `-o md`" in result.stderr
