"""What of a spec reaches the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.spec import JobSpec
from planner.job_document import job_document
from planner.setup import Parallelism
from planner.spec import FineTuneSpec
from tests.planner.run_factories import candidate_of

URI = "s3://bucket/runs/run-1?region=eu-west-1"


def document(tmp_path: Path, **keys: Any) -> JobSpec:
    spec = FineTuneSpec.model_validate(
        {"name": "x", "model": "org/model", "data": {"train": "train.jsonl", "format": "text"}, **keys}
    )
    return job_document(spec, tmp_path, candidate_of(), "run-1", URI)


def test_a_model_spread_over_processes_is_spread_in_the_job_too(tmp_path: Path) -> None:
    spec = FineTuneSpec.model_validate({"name": "x", "model": "org/model", "data": "train.jsonl"})
    spread = candidate_of()._replace(parallelism=Parallelism("fsdp", data=8))
    job = job_document(spec, tmp_path, spread, "run-1", URI)
    assert (job.train.sharding, job.train.processes) == ("fsdp", 8)
    assert document(tmp_path).train.sharding == "none"
    assert JobSpec.from_json(job.to_json()) == job


def test_a_model_packed_in_four_bits_is_loaded_as_it_was_estimated(tmp_path: Path) -> None:
    assert document(tmp_path, model="unsloth/Qwen3-8B-bnb-4bit", method="lora").quantization == "4bit"
    assert document(tmp_path, method="lora").quantization == "none"


@pytest.mark.parametrize(
    ("every", "steps", "seconds"), [("200 steps", 200, None), ("10m", None, 600.0), (None, None, None)]
)
def test_evaluation_by_steps_or_by_time(
    tmp_path: Path, every: str | None, steps: int | None, seconds: float | None
) -> None:
    job = document(tmp_path, evaluate={"every": every})
    assert (job.evaluate.every_steps, job.evaluate.every_s) == (steps, seconds)
    assert JobSpec.from_json(job.to_json()) == job


def test_what_ends_the_training_and_what_it_must_not_forget(tmp_path: Path) -> None:
    told = {
        "every": "50 steps",
        "patience": 3,
        "choose": "best",
        "guard": {"data": "g.jsonl", "at_most_worse": 0.1},
    }
    job = document(tmp_path, evaluate=told, data={"train": "a.jsonl", "eval": "b.jsonl"})
    assert (job.evaluate.patience, job.evaluate.choose) == (3, "best")
    guard = job.evaluate.guard
    assert guard is not None and guard.at_most_worse == 0.1
    assert guard.data == str(tmp_path / "g.jsonl")
    assert JobSpec.from_json(job.to_json()) == job


def test_the_run_s_own_prefix_and_a_place_for_the_model(tmp_path: Path) -> None:
    job = document(tmp_path, output="s3://bucket/models/x", checkpoints={"every": "5m"})
    assert (job.checkpoints.uri, job.checkpoints.every_s) == (URI, 300.0)
    assert job.output.uri == "s3://bucket/models/x"
    assert document(tmp_path, output="out").output.uri == (tmp_path / "out").as_uri()
