"""The job document: what we write we read, and anything else is refused with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.preference import build_kto
from jobs.spec import (
    CheckpointsJob,
    DataJob,
    EvaluateJob,
    JobSpec,
    LimitsJob,
    MethodJob,
    ModelJob,
    OutputJob,
    PreferenceJob,
    TrainJob,
)
from providers.errors import UsageError

JOB = JobSpec(
    run_id="run-1",
    name="support-bot",
    model=ModelJob("meta-llama/Llama-3.1-8B"),
    data=DataJob("train.jsonl", "eval.jsonl"),
    checkpoints=CheckpointsJob("file:///tmp/run-1", every_s=900.0),
)


def text_with(**changes: Any) -> str:
    """The document with keys replaced; a dotted key is written with __."""
    raw = json.loads(JOB.to_json())
    for name, value in changes.items():
        *path, last = name.split("__")
        target = raw
        for key in path:
            target = target[key]
        target[last] = value
    return json.dumps(raw)


def test_there_and_back() -> None:
    assert JobSpec.from_json(JOB.to_json()) == JOB


positive = st.floats(min_value=1e-9, max_value=1e9)


@given(
    steps=st.none() | st.integers(1, 10**9),
    epochs=positive,
    rank=st.integers(1, 4096),
    alpha=st.none() | positive,
    targets=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4).map(tuple),
    cap=st.none() | positive,
    uri=st.none() | st.text(max_size=50),
    kind=st.sampled_from(["lora", "dora", "rslora"]),
)
def test_any_job_goes_there_and_back(
    steps: int | None,
    epochs: float,
    rank: int,
    alpha: float | None,
    targets: tuple[str, ...],
    cap: float | None,
    uri: str | None,
    kind: Any,
) -> None:
    job = replace(
        JOB,
        train=TrainJob(steps=steps, epochs=None if steps else epochs),
        method=MethodJob(kind, rank, alpha, targets=targets),
        limits=LimitsJob(cap_usd=cap, usd_per_hour=1.5),
        output=OutputJob(uri),
    )
    assert JobSpec.from_json(job.to_json()) == job


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "tuneplan/plan"}, "schema: not tuneplan/job"),
        ({"schema_version": 2}, "schema_version: 2, this worker reads 1"),
        ({"secret": "x"}, "secret: unknown key"),
        ({"train__lerning_rate": 1}, "train.lerning_rate: unknown key"),
        ({"train__micro_batch": "8"}, "train.micro_batch: expected int, got str"),
        ({"train__micro_batch": True}, "train.micro_batch: expected int, got bool"),
        ({"train__packing": 1}, "train.packing: expected bool, got int"),
        ({"train__micro_batch": 1.5}, "train.micro_batch: expected int, got float"),
        ({"train__scheduler": "cosinus"}, "train.scheduler: 'cosinus' is none of"),
        ({"method__targets": "q_proj"}, "method.targets: expected a list, got str"),
        ({"method__targets": [1]}, "method.targets[0]: expected str, got int"),
        ({"model": None}, "model: expected an object, got null"),
        ({"model": []}, "model: expected an object, got list"),
        ({"model": {}}, "model.id: missing"),
        ({"run_id": "../x"}, "run_id: '../x' is not a plain name"),
        ({"run_id": ""}, "run_id: '' is not a plain name"),
        ({"train__steps": 5}, "train: exactly one of epochs and steps"),
        ({"train__epochs": None}, "train: exactly one of epochs and steps"),
        ({"train__epochs": 0.0}, "train.epochs: must be more than 0"),
        ({"train__learning_rate": -1.0}, "train.learning_rate: must be more than 0"),
        ({"train__warmup": 1.0}, "train.warmup: must be in [0, 1)"),
        ({"checkpoints__keep": 0}, "checkpoints.keep: must be more than 0"),
        ({"limits__cap_usd": 5.0}, "limits.cap_usd: needs limits.usd_per_hour"),
        ({"task": "kto", "train__micro_batch": 1, "train__grad_accum": 4}, "train.micro_batch: kto compares"),
        ({"method__kind": "full", "quantization": "4bit"}, "a full fine-tuning needs none"),
    ],
)
def test_a_wrong_document_is_refused_with_its_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        JobSpec.from_json(text_with(**changes))
    assert said in caught.value.message
    assert caught.value.code == "bad_job"


def test_kto_alone_in_a_micro_batch_is_refused_by_the_worker_too() -> None:
    """On fewer rows for each process than were planned."""
    of = SimpleNamespace(
        job=SimpleNamespace(preference=PreferenceJob()), settings={"per_device_train_batch_size": 1}
    )
    with pytest.raises(UsageError, match="one at a time"):
        build_kto(of)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", '"x"', "[" * 100_000, '{"schema": "tuneplan/job"}']
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="job document"):
        JobSpec.from_json(text)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(UsageError, match=r"learning_rate: nan is not a finite number"):
        JobSpec.from_json(JOB.to_json().replace("0.0002", "NaN"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        replace(JOB, evaluate=EvaluateJob(every_s=float("inf"))).to_json()


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the job document"):
        JobSpec.load(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read the job document"):
        JobSpec.load(tmp_path / "binary.json")
    (tmp_path / "huge.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(UsageError, match="too large"):
        JobSpec.load(tmp_path / "huge.json")


def test_a_whole_number_is_a_number() -> None:
    assert JobSpec.from_json(text_with(train__learning_rate=1)).train.learning_rate == 1.0
