"""Local data of rented runs: named by content, sent once, never sent half or changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from jobs.data_files import files_of
from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob
from planner.data_cache import content_sha256
from planner.inputs import Sending, reads, send, with_inputs
from providers.errors import StorageError, UsageError
from tests.chaos.fault_proxy import FaultProxy, fault_proxy
from tests.seaweed import BUCKET, Seaweed
from tests.workers import eventually

_PART_BYTES = 5 << 20  # the least that S3 takes
ROWS = ('{"text": "one"}\n', '{"text": "two"}\n')


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory of two files, with things beside them that nobody learns from."""
    folder = tmp_path / "data"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jsonl").write_text(ROWS[0])
    (folder / "more/b.jsonl").write_text(ROWS[1])
    for name in ("README.md", "_SUCCESS", ".a.jsonl.swp", "_old.jsonl", "more/.b.jsonl"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def proxy(s3_server: Seaweed) -> Iterator[FaultProxy]:
    with fault_proxy(s3_server.endpoint) as made:
        yield made


def job_of(train: Path | str, model: Path | None = None) -> JobSpec:
    path = None if model is None else str(model)
    return JobSpec(
        "run", "job", ModelJob("m", path=path), DataJob(str(train)), CheckpointsJob("s3://b/r/run")
    )


def place(proxy: FaultProxy, name: str) -> str:
    return f"s3://{BUCKET}/{name}?endpoint={proxy.endpoint}"


def test_a_directory_is_its_data_files_in_order(data: Path, tmp_path: Path) -> None:
    job, sources = with_inputs(job_of(data), "s3://b/r")
    assert job.data.train == "inputs/train"
    assert [entry.path for entry in job.inputs.files] == ["inputs/train/a.jsonl", "inputs/train/more/b.jsonl"]
    assert sources["inputs/train/more/b.jsonl"] == str(data / "more/b.jsonl")
    assert job.inputs.uri == "s3://b/r/_inputs"
    assert reads(job.inputs)[0] == f"s3://b/r/_inputs/blobs/{job.inputs.files[0].sha256}"
    (data / "c.csv").write_text("text\nthree\n")
    with pytest.raises(UsageError, match=r"files of several kinds: \.csv, \.jsonl"):
        files_of(data)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no data file"):
        files_of(tmp_path / "empty")


def test_a_name_of_the_hub_and_a_run_without_a_place_stay_as_they_are(data: Path) -> None:
    assert with_inputs(job_of("org/rows"), "s3://b/r") == (job_of("org/rows"), {})
    assert with_inputs(job_of(data), None) == (job_of(data), {})


def test_a_model_goes_along_whole(tmp_path: Path, data: Path) -> None:
    model = tmp_path / "llama-3.1"
    (model / ".cache").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", ".cache/lock"):
        (model / name).write_text(name)
    job, _ = with_inputs(job_of(data / "a.jsonl", model), "s3://b/r")
    names = ["inputs/train.jsonl", "inputs/model/config.json", "inputs/model/model.safetensors"]
    assert [entry.path for entry in job.inputs.files] == names
    assert job.model.path == "inputs/model"


def test_the_hash_of_a_directory_is_what_sha256sum_says(data: Path) -> None:
    names = ["a.jsonl", "more/b.jsonl"]
    printed = subprocess.run(["sha256sum", *names], cwd=data, check=True, capture_output=True).stdout
    assert content_sha256(data) == hashlib.sha256(printed).hexdigest()


def test_the_same_data_is_sent_once(data: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    proxy.event = lambda kind, moment: counts.update([kind] if moment == "arrived" else [])
    told: list[Sending] = []
    job, sources = with_inputs(job_of(data), place(proxy, tmp_path.name))
    send(job.inputs, sources, told.append)
    size = sum(map(len, ROWS))
    assert (counts["put input"], told[-1].sent_bytes, told[-1].total_bytes) == (2, size, size)
    counts.clear()
    other, sources = with_inputs(replace(job_of(data), run_id="another"), place(proxy, tmp_path.name))
    send(other.inputs, sources, told.append)
    assert (counts["put input"], counts["put part"]) == (0, 0)
    assert sum(counts.values()) == 2  # one question a file
    (data / "a.jsonl").write_text("new\n")
    changed, sources = with_inputs(job_of(data), place(proxy, tmp_path.name))
    counts.clear()
    send(changed.inputs, sources, told.append)
    assert counts["put input"] == 1


def test_a_large_file_goes_on_where_it_was_cut(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.txt"
    monkeypatch.setattr("providers.s3.PART_BYTES", _PART_BYTES)
    path.write_bytes(os.urandom(3 * _PART_BYTES + 5))
    job, sources = with_inputs(job_of(path), place(proxy, tmp_path.name))
    counts: Counter[str] = Counter()
    proxy.event = lambda kind, moment: counts.update([kind] if moment == "answered" else [])
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    parts = count(1)
    proxy.fault = lambda kind: "unavailable" if kind == "put part" and next(parts) > 2 else None
    with pytest.raises(StorageError):
        send(job.inputs, sources, lambda _: None)
    eventually(lambda: counts["put part"] == 2)  # the proxy counts an answer after it is given
    proxy.fault = lambda _: None
    told: list[Sending] = []
    send(job.inputs, sources, told.append)
    eventually(lambda: counts["put part"] == 4)
    assert counts["put part"] == 4  # none twice
    assert told[-1].sent_bytes == path.stat().st_size


def test_a_file_that_changed_is_not_sent_under_its_old_name(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    job, sources = with_inputs(job_of(data / "a.jsonl"), store.as_uri())
    (data / "a.jsonl").write_text("changed\n")
    with pytest.raises(UsageError) as error:
        send(job.inputs, sources, lambda _: None)
    assert (error.value.code, error.value.path) == ("inputs_changed", str(data / "a.jsonl"))
    assert not list(store.rglob("blobs/*"))
    (data / "a.jsonl").write_text(ROWS[0])
    send(job.inputs, sources, lambda _: None)
    (data / "a.jsonl").unlink()
    send(job.inputs, sources, lambda _: None)  # a resume on a later day needs it no more


def test_a_file_that_changes_while_it_is_sent_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    path = data / "a.jsonl"
    job, sources = with_inputs(job_of(path), (tmp_path / "runs").as_uri())
    with pytest.raises(UsageError, match="is not what the run was launched with"):
        send(job.inputs, sources, lambda _: path.write_text("changed\n") and None)
    assert not list((tmp_path / "runs").rglob("blobs/*"))


def test_a_ledger_that_does_not_know_where_a_file_is_says_which_is_missing(
    data: Path, tmp_path: Path
) -> None:
    job, _ = with_inputs(job_of(data / "a.jsonl"), (tmp_path / "runs").as_uri())
    with pytest.raises(UsageError) as error:
        send(job.inputs, {}, lambda _: None)
    assert (error.value.code, error.value.path) == ("inputs_changed", "inputs/train.jsonl")
