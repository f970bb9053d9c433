"""Inputs of a job: fetched once, verified, never taken on trust."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.inputs import bring_inputs
from jobs.manifest import FileEntry
from jobs.spec import CheckpointsJob, DataJob, InputsJob, JobSpec, ModelJob
from providers.directory_store import DirectoryStore
from providers.errors import CorruptDataError, UsageError

ROWS = b'{"text": "a"}\n'
SHA256 = hashlib.sha256(ROWS).hexdigest()
ENTRY = FileEntry("inputs/train/part-0.jsonl", len(ROWS), SHA256)


@pytest.fixture
def inputs(tmp_path: Path) -> InputsJob:
    store = DirectoryStore(tmp_path / "store")
    store.put(f"blobs/{SHA256}", ROWS)
    return InputsJob(store.uri, (ENTRY,))


def test_what_is_here_is_not_fetched_again(inputs: InputsJob, tmp_path: Path) -> None:
    base, blob = tmp_path / "job", tmp_path / f"store/blobs/{SHA256}"
    bring_inputs(inputs, base)
    assert (base / ENTRY.path).read_bytes() == ROWS
    blob.unlink()
    bring_inputs(inputs, base)
    (base / ENTRY.path).write_bytes(b"torn")
    with pytest.raises(CorruptDataError, match=r"is missing in file://") as error:
        bring_inputs(inputs, base)
    assert SHA256 in (error.value.hint or "")


def test_a_damaged_file_never_gets_its_name(inputs: InputsJob, tmp_path: Path) -> None:
    (tmp_path / f"store/blobs/{SHA256}").write_bytes(ROWS.replace(b"a", b"b"))
    with pytest.raises(CorruptDataError, match="its hash is wrong"):
        bring_inputs(inputs, tmp_path / "job")
    assert [path for path in (tmp_path / "job").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "path", ["train.jsonl", "/etc/passwd", "inputs/../x", "inputs", "inputs//x", "inputs/a\\..\\b", "inputs/"]
)
def test_a_document_cannot_write_elsewhere(inputs: InputsJob, path: str) -> None:
    with pytest.raises(UsageError, match="is no file below inputs"):
        _job(replace(inputs, files=(replace(ENTRY, path=path),)))


@pytest.mark.parametrize("change", [{"sha256": "../HEAD"}, {"bytes": -1}])
def test_a_hash_is_a_hash(inputs: InputsJob, change: dict[str, str | int]) -> None:
    with pytest.raises(UsageError, match="impossible size or hash"):
        _job(replace(inputs, files=(replace(ENTRY, **change),)))


def test_the_document_goes_there_and_back(inputs: InputsJob) -> None:
    job = _job(inputs)
    assert JobSpec.from_json(job.to_json()) == job
    with pytest.raises(UsageError, match=r"inputs\.uri: missing"):
        _job(replace(inputs, uri=None))


def _job(inputs: InputsJob) -> JobSpec:
    data = DataJob("inputs/train")
    return JobSpec("run", "job", ModelJob("m"), data, CheckpointsJob("file:///x"), inputs=inputs)
