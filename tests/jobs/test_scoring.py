"""Evaluating while training, by steps and by time, is seen in the log and changes nothing of the result."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from jobs.spec import EvaluateJob
from tests.jobs.runs import Runs

pytestmark = pytest.mark.train


def scored_steps(runs: Runs, name: str) -> list[int]:
    return [int(step) for step in re.findall(r"step (\d+): loss", runs.log(name))]


def test_evaluation_by_steps_or_time_does_not_change_the_weights(runs: Runs) -> None:
    often = {"none": {}, "steps": {"every_steps": 3}, "time": {"every_s": 1e-6}, "rare": {"every_s": 3600.0}}
    for name, every in often.items():
        job = runs.sft(name, steps=8, every=8)
        runs.complete(replace(job, evaluate=EvaluateJob("loss", **every)))  # type: ignore[arg-type]
    seen = {name: scored_steps(runs, name) for name in often}
    assert seen == {"none": [], "steps": [3, 6], "time": list(range(1, 9)), "rare": []}
    assert len({runs.weights(name) for name in often}) == 1


def test_equal_runs_write_equal_files(runs: Runs) -> None:
    """Names of modules are a set in peft: they are written in the order of the alphabet, not of the set."""
    for name in ("one", "two"):
        runs.complete(runs.sft(name, steps=4, every=4))
    first, second = (
        {path.name: path.read_bytes() for path in runs.output(name).iterdir()} for name in ("one", "two")
    )
    assert {name for name in first if first[name] != second[name]} == {"result.json"}
    targets = json.loads(first["adapter_config.json"])["target_modules"]
    assert targets == sorted(targets) and len(targets) > 1
