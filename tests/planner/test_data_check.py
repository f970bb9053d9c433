"""What the worker would refuse of the data is found before anything is started."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobs.data import load_examples
from jobs.spec import DataJob
from planner.data_check import data_warnings, unlearnable
from planner.intake import gather
from planner.proposal import spec_blockers
from providers.errors import UsageError
from tests.planner.factories import NOW, spec_of

PAIR = {"chosen": "a", "rejected": "b"}
USER = {"role": "user", "content": "hello"}
ASSISTANT = {"role": "assistant", "content": "hi"}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("task", "name", "body", "said"),
    [
        (
            "sft",
            "a.jsonl",
            lines({"question": "a", "answer": "b"}),
            "a.jsonl: no known format has the keys answer",
        ),
        (
            "classification",
            "a.jsonl",
            lines(PAIR),
            "task classification cannot learn from data of format preference",
        ),
        (
            "classification",
            "a.jsonl",
            lines(*({"text": "x", "label": n} for n in "abc")),
            "do not fit 2 classes",
        ),
        ("sft", "a.csv", "prompt,completion\n" + "a,b\n" * 200 + "c\n", "a.csv:202: number of columns"),
        (
            "sft",
            "a.jsonl",
            lines({"messages": [USER, ASSISTANT]}, {"messages": [USER]}),
            "a.jsonl:2: no message of",
        ),
        (
            "dpo",
            "a.jsonl",
            lines(PAIR, {**PAIR, "rejected": "a"}),
            "a.jsonl:2: chosen and rejected are the same",
        ),
        ("sft", "a.xlsx", "PK", "unknown kind of data file"),
    ],
)
def test_an_estimate_warns_and_a_launch_refuses(
    tmp_path: Path, task: str, name: str, body: str, said: str
) -> None:
    (tmp_path / name).write_text(body, encoding="utf-8")
    spec = spec_of(
        task=task, data={"train": name, "samples": None, "tokens_per_sample": None}, train={"packing": False}
    )
    (warned,) = data_warnings(spec, tmp_path)
    assert warned[0] == "bad_data"
    assert said in warned[1]
    assert warned in gather(spec, tmp_path, NOW).job.warnings
    refused = [row for row in spec_blockers(spec, tmp_path, os.environ) if row.code == "bad_data"]
    assert [row.path for row in refused] == ["data.train"]
    assert said in refused[0].message
    with pytest.raises(UsageError) as caught:  # as the worker would say it
        load_examples(DataJob(name), task, tmp_path)  # type: ignore[arg-type]
    assert caught.value.message == refused[0].message


def test_held_out_and_guard_data_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(lines(*({"text": "x", "label": n} for n in "ab")))
    (tmp_path / "eval.jsonl").write_text(lines({"text": "x", "label": "a"}, {"text": "x", "label": "c"}))
    (tmp_path / "guard.jsonl").write_text(lines({"prompt": "a"}))
    spec = spec_of(
        task="classification",
        data={"train": "train.jsonl", "eval": "eval.jsonl"},
        evaluate={"guard": "guard.jsonl"},
        train={"packing": False},
    )
    found = list(unlearnable(spec, tmp_path))
    assert [row.path for row in found] == ["data.eval", "evaluate.guard.data"]
    assert f"{tmp_path / 'eval.jsonl'}:2: label 'c' is none of a, b" in found[0].message
    assert "guard.jsonl:1: text is missing" in found[1].message
    few = spec.model_copy(update={"evaluate": spec.evaluate.model_copy(update={"samples": 1})})
    assert [row.path for row in unlearnable(few, tmp_path)] == ["evaluate.guard.data"]


def test_a_launch_looks_at_every_row_and_an_estimate_at_the_first_ones(tmp_path: Path) -> None:
    row = {"prompt": "x" * 1000, "completion": "y"}
    (tmp_path / "a.jsonl").write_text(lines(*[row] * 3000, {"prompt": "x"}))
    spec = spec_of(data={"train": "a.jsonl"})
    assert list(data_warnings(spec, tmp_path)) == []
    (found,) = unlearnable(spec, tmp_path)
    assert "a.jsonl:3001: completion is missing" in found.message


def test_data_that_is_not_here_is_missing_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text("not json")
    spec = spec_of(data={"train": "gone.jsonl", "eval": "eval.jsonl"})
    found = spec_blockers(spec, tmp_path, os.environ)
    assert [row.code for row in found if row.path.startswith("data")] == ["data_missing"]
    assert list(data_warnings(spec, tmp_path)) == []
