"""The progress document: read whoever wrote it, written whole, never by an older attempt over a newer one's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.progress import (
    KEY,
    CheckpointRef,
    MetricResult,
    PeakMemory,
    Progress,
    ProgressWriter,
    StageClock,
    StepTimes,
    read_progress,
    utc_now,
    write_atomically,
)
from providers.directory_store import DirectoryStore
from providers.errors import CorruptDataError
from tests.jobs.faulty_store import FaultyStore, no_fault

FULL = Progress(
    run_id="run-1",
    fence=3,
    state="training",
    step=40,
    max_steps=100,
    loss=1.25,
    tokens_per_s_total=1000.5,
    peak_memory_gib=PeakMemory(1.0, 2.0, 3.0),
    last_checkpoint=CheckpointRef(40, "2026-11-22T20:00:00Z", "file:///x", 10, "0" * 64),
    metrics=(MetricResult("accuracy", "eval", 10, None, 0.5, True),),
    stage_seconds={"train": 1.5},
    step_time_s=StepTimes(0.1, 0.2, 0.3),
)


def test_there_and_back() -> None:
    assert Progress.from_json(FULL.to_json()) == FULL


def test_a_newer_writer_is_understood() -> None:
    raw = json.loads(FULL.to_json())
    raw.update(schema_version=2, mood="good", state="pondering")
    raw["last_checkpoint"]["colour"] = "red"
    del raw["pid"]
    read = Progress.from_json(json.dumps(raw))
    assert read.last_checkpoint == FULL.last_checkpoint
    assert str(read.state) == "pondering"
    assert read.pid is None


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"[]", b"\xff", b'{"schema": "tuneplan/progress"}'])
def test_what_is_no_progress_document_is_said_to_be_damaged(tmp_path: Path, body: bytes) -> None:
    store = DirectoryStore(tmp_path)
    store.put(KEY, body)
    with pytest.raises(CorruptDataError, match="progress document"):
        read_progress(store)


def test_nothing_said_yet(tmp_path: Path) -> None:
    assert read_progress(DirectoryStore(tmp_path)) is None


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition that another thread makes true."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ProgressWriter]:
    one = ProgressWriter(
        Progress("run-1", 1), tmp_path / "progress.json", DirectoryStore(tmp_path / "store"), interval_s=3600
    )
    yield one
    one.close()


def test_a_new_state_is_written_at_once_to_both_places(tmp_path: Path, writer: ProgressWriter) -> None:
    store = DirectoryStore(tmp_path / "store")
    writer.update(state="training", step=7)

    def written() -> bool:
        found = read_progress(store)
        return found is not None and (found.state, found.step) == ("training", 7)

    wait_until(written)
    local = Progress.from_json((tmp_path / "progress.json").read_bytes())
    assert (local.state, local.step) == ("training", 7)
    assert local.heartbeat_at is not None
    assert local.heartbeat_at.endswith("Z")


def test_steps_wait_for_the_next_beat(tmp_path: Path) -> None:
    store = FaultyStore(tmp_path / "store", no_fault)
    writer = ProgressWriter(Progress("run-1", 1), tmp_path / "p.json", store, interval_s=3600)
    wait_until(lambda: store.count("compare_and_swap") == 1)
    for step in range(1000):
        writer.update(step=step)
    writer.close()
    found = read_progress(DirectoryStore(tmp_path / "store"))
    assert found is not None
    assert found.step == 999
    assert store.count("compare_and_swap") <= 3


def test_an_older_attempt_does_not_overwrite_a_newer_one(tmp_path: Path, writer: ProgressWriter) -> None:
    store = DirectoryStore(tmp_path / "store")
    wait_until(lambda: read_progress(store) is not None)
    newer = ProgressWriter(Progress("run-1", 2, step=50), tmp_path / "newer.json", store, interval_s=3600)
    newer.close()
    writer.update(state="training", step=99)
    wait_until(lambda: writer.superseded)
    writer.close()
    found = read_progress(store)
    assert found is not None
    assert (found.fence, found.step) == (2, 50)


def test_a_store_that_fails_does_not_stop_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = FaultyStore(tmp_path / "store", lambda name, key, count: "refused" if count < 3 else None)
    writer = ProgressWriter(Progress("run-1", 1), tmp_path / "p.json", store, interval_s=3600)
    writer.update(state="loading")
    writer.close()
    writer.flush()
    found = read_progress(DirectoryStore(tmp_path / "store"))
    assert found is not None
    assert found.state == "loading"
    assert "progress not written: 503 slow down" in capfd.readouterr().err


def test_the_last_word_is_repeated_until_the_store_has_it(tmp_path: Path) -> None:
    asked: list[int] = []
    store = FaultyStore(tmp_path / "store", lambda name, key, count: "refused" if len(asked) < 3 else None)
    writer = ProgressWriter(Progress("run-1", 1), tmp_path / "p.json", store, interval_s=3600)
    writer.update(state="done")

    def again() -> bool:
        asked.append(len(asked))
        return True

    writer.close(again)
    found = read_progress(DirectoryStore(tmp_path / "store"))
    assert (found is not None and found.state, asked) == ("done", [0, 1, 2])


def test_a_full_disk_does_not_keep_the_last_word_from_the_store(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = DirectoryStore(tmp_path / "store")
    taken = tmp_path / "no directory"
    taken.touch()
    writer = ProgressWriter(Progress("run-1", 1), taken / "p.json", store, interval_s=3600)
    writer.update(state="failed", exit_reason="the disk is full")
    writer.close()
    found = read_progress(store)
    assert found is not None
    assert (found.state, found.exit_reason) == ("failed", "the disk is full")
    assert "progress not written: [Errno" in capfd.readouterr().err


def test_a_lost_answer_is_found_out(tmp_path: Path) -> None:
    store = FaultyStore(
        tmp_path / "store",
        lambda name, key, count: "lost" if name == "compare_and_swap" and count == 1 else None,
    )
    writer = ProgressWriter(Progress("run-1", 1), tmp_path / "p.json", store, interval_s=3600)
    writer.update(step=5)
    writer.close()
    found = read_progress(DirectoryStore(tmp_path / "store"))
    assert found is not None
    assert found.step == 5


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, stop, sizes = tmp_path / "file", threading.Event(), set()
    write_atomically(path, "x" * 100_000)

    def read() -> None:
        while not stop.is_set():
            sizes.add(len(path.read_text()))

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(50):
        write_atomically(path, "y" * 100_000)
    stop.set()
    thread.join()
    assert sizes == {100_000}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_inner_stage_is_not_counted_twice() -> None:
    clock = StageClock()
    began = time.monotonic()
    with clock.stage("outer"):
        with clock.stage("inner"):
            time.sleep(0.02)
        with clock.stage("inner"):
            time.sleep(0.02)
    total = time.monotonic() - began
    assert clock.seconds["inner"] >= 0.04
    assert sum(clock.seconds.values()) <= total + 0.001
    clock.move("inner", "outer", clock.seconds["inner"])
    assert clock.seconds["inner"] == 0.0


def test_times_are_utc_with_z() -> None:
    assert len(utc_now()) == len("2026-11-22T20:00:00.000Z")
    assert utc_now()[-1] == "Z"
