"""The upload thread: training never waits for it, and what it acknowledged stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from jobs.checkpoint import CheckpointStore
from jobs.progress import CheckpointRef
from jobs.uploader import Uploader
from providers.errors import StorageError, StoreAccessError
from tests.jobs.faulty_store import FaultyStore, no_fault


class Watched:
    """An uploader on a store whose uploads can be held up."""

    def __init__(self, tmp_path: Path, pause_s: float = 3600) -> None:
        self.root = tmp_path
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.failing: set[int] = set()
        self.denied: set[int] = set()
        self.commits: list[int] = []
        self.errors: list[StorageError] = []
        self.store = FaultyStore(tmp_path / "store", self.fault)
        self.checkpoints = CheckpointStore(self.store, "run-1", keep=9)
        self.checkpoints.take_over()
        self.uploader = Uploader(self.checkpoints, self.on_commit, self.errors.append, pause_s=pause_s)

    def fault(self, operation: str, key: str, count: int) -> str | None:
        if operation == "put_file":
            self.started.set()
            self.gate.wait(30)
            return "denied" if count in self.denied else "refused" if count in self.failing else None
        return None

    def on_commit(self, reference: CheckpointRef, seconds: float) -> None:
        self.commits.append(reference.step)

    def wait_for_a_failure(self) -> None:
        """Until a commit has failed, and what is tried again waits for it."""
        with self.uploader._changed:
            assert self.uploader._changed.wait_for(lambda: self.errors and not self.uploader._busy, 30)

    def submit(self, step: int, *, best: bool = False) -> Path:
        directory = self.root / f"checkpoint-{step}"
        directory.mkdir()
        (directory / "optimizer.pt").write_text(f"step {step}")
        self.uploader.submit(directory, step, best=best)
        return directory


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_while_one_is_sent_only_the_newest_waits(watched: Watched) -> None:
    watched.gate.clear()
    first = watched.submit(1)
    assert watched.started.wait(30)
    second = watched.submit(2)
    third = watched.submit(3)
    assert first.exists()
    assert not second.exists()
    assert watched.uploader.drain(timeout_s=0.01) is False
    watched.gate.set()
    assert watched.uploader.drain(timeout_s=30) is True
    assert watched.commits == [1, 3]
    assert watched.uploader.committed_step == 3
    assert not first.exists()
    assert not third.exists()
    watched.uploader.close()


def test_the_best_so_far_waits_beside_the_newest(watched: Watched) -> None:
    watched.gate.clear()
    watched.submit(1)
    assert watched.started.wait(30)
    best = watched.submit(2, best=True)
    plain = watched.submit(3)
    watched.submit(4)
    assert best.exists() and not plain.exists()
    watched.gate.set()
    assert watched.uploader.drain(timeout_s=30) is True
    assert watched.commits == [1, 2, 4]
    watched.gate.clear()
    watched.started.clear()
    watched.submit(5)
    assert watched.started.wait(30)
    worse = watched.submit(6, best=True)
    watched.submit(7, best=True)
    assert not worse.exists(), "a better one makes it useless"
    watched.gate.set()
    watched.uploader.close()
    assert watched.commits == [1, 2, 4, 5, 7]
    best = watched.checkpoints.head.best
    assert best is not None and best.step == 7


def test_the_best_so_far_is_tried_again_until_there_is_a_better_one(tmp_path: Path) -> None:
    watched = Watched(tmp_path, pause_s=0.05)
    watched.failing = {1, 3}
    watched.gate.clear()
    best = watched.submit(1, best=True)
    watched.submit(2)
    watched.gate.set()
    assert watched.uploader.drain(30)
    assert (watched.commits, best.exists()) == ([2, 1], False)
    head = watched.checkpoints.head
    assert [one.step for one in head.checkpoints] == [2], "the newest is what is resumed from"
    assert head.best is not None and head.best.step == 1
    assert watched.uploader.committed_step == 2
    watched.uploader.close()


def test_the_best_so_far_goes_before_a_newer_one_that_names_it(watched: Watched) -> None:
    """Killed in between, a run would go on from one whose best is nowhere."""
    watched.failing = {1}
    watched.submit(1, best=True)
    watched.wait_for_a_failure()
    watched.submit(2)
    assert watched.uploader.drain(30)
    assert watched.commits == [1, 2]
    watched.uploader.close()


def test_once_a_commit_gets_through_nothing_waits_for_the_store(watched: Watched) -> None:
    watched.failing = {1}
    watched.gate.clear()
    watched.submit(1, best=True)
    watched.submit(2)
    watched.gate.set()
    assert watched.uploader.drain(30)
    assert watched.commits == [2, 1]
    watched.uploader.close()


def test_a_better_one_ends_the_tries(watched: Watched) -> None:
    watched.failing = {1}
    worse = watched.submit(1, best=True)
    assert not watched.uploader.drain(0.3), "it waits to be tried again"
    watched.submit(2, best=True)
    assert watched.uploader.drain(30)
    assert (watched.commits, worse.exists()) == ([2], False)
    watched.uploader.close()


def test_at_the_end_what_failed_is_tried_as_often_as_the_worker_has_patience(watched: Watched) -> None:
    watched.failing = {1, 2, 3}
    watched.submit(1)
    watched.gate.clear()
    tries: list[bool] = []

    def again() -> bool:
        tries.append(True)
        return True

    threading.Timer(0.05, watched.gate.set).start()
    watched.uploader.close(again)
    assert (watched.commits, len(tries)) == ([1], 3)


def test_a_failed_commit_is_reported_and_the_next_one_works(watched: Watched) -> None:
    watched.failing = {1}
    first = watched.submit(1)
    watched.wait_for_a_failure()
    assert [str(error) for error in watched.errors] == ["503 slow down"]
    assert watched.uploader.committed_step is None
    watched.submit(2)
    assert watched.uploader.drain(timeout_s=30)
    watched.uploader.close()
    assert (watched.commits, first.exists()) == ([2], False)


def test_the_newest_is_tried_again_after_a_burst(tmp_path: Path) -> None:
    """The next one may be half an hour away, and the machine may not live that long."""
    watched = Watched(tmp_path, pause_s=0.05)
    watched.failing = {1, 2}
    newest = watched.submit(1)
    assert watched.uploader.drain(30)
    assert (watched.commits, newest.exists()) == ([1], False)
    assert len(watched.errors) == 2
    watched.uploader.close()


def test_the_best_and_a_newer_one_are_both_tried_again(tmp_path: Path) -> None:
    watched = Watched(tmp_path, pause_s=0.05)
    watched.failing = {1, 2}
    watched.submit(1, best=True)
    watched.submit(2)
    assert watched.uploader.drain(30)
    assert sorted(watched.commits) == [1, 2]
    head = watched.checkpoints.head
    assert (head.best and head.best.step, head.newest and head.newest.step) == (1, 2)
    watched.uploader.close()


def test_what_waits_to_be_tried_again_is_sent_at_the_end(watched: Watched) -> None:
    watched.failing = {1}
    watched.submit(1)
    watched.wait_for_a_failure()
    watched.uploader.close()
    assert watched.commits == [1]


def test_whatever_goes_wrong_with_one_the_next_one_is_sent(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = watched.checkpoints.publish
    monkeypatch.setattr(watched.checkpoints, "publish", lambda *_, **__: 1 // 0)
    watched.submit(1)
    assert watched.uploader.drain(30)
    monkeypatch.setattr(watched.checkpoints, "publish", whole)
    gone = watched.root / "gone"
    watched.uploader.submit(gone, 2)
    assert watched.uploader.drain(30)
    watched.submit(3)
    assert watched.uploader.drain(30) and watched.commits == [3]
    said = [error.message for error in watched.errors]
    assert said == [
        "ZeroDivisionError: integer division or modulo by zero",
        f"cannot read {gone}: No such file or directory",
    ]


def test_refused_for_good_nothing_is_trained_that_cannot_be_committed(watched: Watched) -> None:
    watched.denied = {1, 2}
    for step in (1, 2):
        assert watched.uploader.over is None
        watched.submit(step)
        assert watched.uploader.drain(30)
    over = watched.uploader.over
    assert isinstance(over, StoreAccessError)
    assert over.message == "training ends, as no checkpoint of it can be committed: 403 AccessDenied"
    watched.uploader.close()


def test_refused_after_a_commit_training_goes_on(watched: Watched) -> None:
    watched.denied = {2, 3, 4}
    for step in (1, 2, 3, 4, 5):
        watched.submit(step)
        assert watched.uploader.drain(30)
    assert (watched.uploader.over, watched.commits) == (None, [1, 5])
    watched.uploader.close()


def test_what_is_committed_stays_so_if_that_cannot_be_told(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    watched.on_commit = lambda *_: 1 // 0  # type: ignore[assignment, return-value]
    watched.uploader = Uploader(watched.checkpoints, watched.on_commit, watched.errors.append)
    watched.submit(1)
    assert watched.uploader.drain(30)
    assert watched.uploader.committed_step == 1
    assert [error.message for error in watched.errors] == [
        "step 1 is committed, but that could not be told: integer division or modulo by zero"
    ]


def test_closing_sends_what_waits(watched: Watched) -> None:
    watched.gate.clear()
    watched.submit(1)
    assert watched.started.wait(30)
    watched.submit(2)
    threading.Timer(0.01, watched.gate.set).start()
    watched.uploader.close()
    assert watched.commits == [1, 2]


def test_once_fenced_nothing_is_sent_any_more(watched: Watched) -> None:
    CheckpointStore(FaultyStore(watched.root / "store", no_fault), "run-1").take_over()
    watched.submit(1)
    assert watched.uploader.drain(timeout_s=30)
    assert watched.uploader.fenced is not None
    sent = watched.store.count("put_file")
    watched.submit(2)
    watched.uploader.close()
    assert watched.store.count("put_file") == sent
    assert watched.commits == []
