"""A stop through the store reaches the launch that is meant, and no other."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import stop_request
from jobs.preemption import StopSignal
from jobs.spec import CheckpointsJob, DataJob, JobSpec, LimitsJob, ModelJob
from jobs.stop_request import KEY, heeding
from providers.directory_store import DirectoryStore
from providers.errors import StorageError

AT = "2026-11-22T12:00:00.000Z"
JOB = JobSpec(
    *("run-1", "run", ModelJob("base"), DataJob("train.jsonl"), CheckpointsJob("file:///none")),
    limits=LimitsJob(launch=2, launched_at=AT),
)


class Looked(DirectoryStore):
    """A store that is out of order at the first look, and counts the others."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.looks = 0
        self.twice = threading.Event()

    def get(self, key: str) -> tuple[bytes, str] | None:
        self.looks += 1
        if self.looks == 1:
            raise StorageError("503 for a while")
        if self.looks > 3:
            self.twice.set()
        return super().get(key)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looked:
    monkeypatch.setattr(stop_request, "POLL_S", 0.001)
    return Looked(tmp_path)


def test_a_launch_that_is_meant_is_told(store: Looked) -> None:
    told, stop = threading.Event(), StopSignal(JOB.limits, 0.0)

    def tell() -> None:
        stop.ask()
        told.set()

    with heeding(tell, store, JOB):
        assert store.twice.wait(30) and stop.reason() is None
        store.put(KEY, stop_request.stop_request("run-1", 2, AT))
        assert told.wait(30)
    assert stop.reason() == ("asked", "asked to end")


@pytest.mark.parametrize(
    "body",
    [
        stop_request.stop_request("run-1", 1, AT),
        stop_request.stop_request("run-1", 2, None),
        stop_request.stop_request("run-1", 2, "2026-11-22T12:00:00.001Z"),
        stop_request.stop_request("run-2", 2, AT),
        b"",
        b"{",
    ],
)
def test_any_other_is_not(store: Looked, body: bytes) -> None:
    store.put(KEY, body)
    told = threading.Event()
    with heeding(told.set, store, replace(JOB)):
        assert store.twice.wait(30)
    assert not told.is_set()
