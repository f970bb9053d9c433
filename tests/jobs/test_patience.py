"""A worker outwaits a store that is away, as long as nobody wants it to end."""

from __future__ import annotations

import json
import time

import pytest

from jobs import patience
from jobs.checkpoint import FencedError
from jobs.patience import Patience, insist
from jobs.preemption import Stopped, StopSignal
from jobs.spec import LimitsJob
from providers.errors import StorageError, StoreAccessError
from tests.jobs.runs import Runs

AWAY = "tests.jobs.runs:train_while_the_store_comes_and_goes"


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> StopSignal:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    return StopSignal(LimitsJob(), time.monotonic())


class Store:
    """Gives these errors one after the other, then an answer."""

    def __init__(self, *errors: StorageError) -> None:
        self.errors = list(errors)

    def ask(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def away() -> StorageError:
    return StorageError("nobody answers", code="unreachable")


def test_a_store_that_comes_back_is_waited_for(stop: StopSignal, capsys: pytest.CaptureFixture[str]) -> None:
    busy = StorageError("503 slow down", code="unavailable")
    assert insist(Store(away(), busy, away()).ask, stop) == "answer"
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[2] for line in said] == ["trying again for 15 min 00 s: nobody answers"]


@pytest.mark.parametrize(
    "error", [FencedError("another attempt"), StoreAccessError("403"), StorageError("the disk is full")]
)
def test_what_will_not_pass_is_not_waited_for(stop: StopSignal, error: StorageError) -> None:
    store = Store(error, away())
    with pytest.raises(type(error), match=error.message):
        insist(store.ask, stop)
    assert len(store.errors) == 1


def test_who_waits_heeds_a_stop(stop: StopSignal) -> None:
    stop.ask()
    with pytest.raises(Stopped, match="asked to end") as stopped:
        insist(Store(away()).ask, stop, committed=True)
    assert (stopped.value.kind, stopped.value.committed) == ("asked", True)


def test_one_that_stays_away_means_to_start_again(stop: StopSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LIMIT_S", 0.01)
    with pytest.raises(Stopped, match="the object store stayed away: nobody answers") as stopped:
        insist(Store(*(away() for _ in range(1000))).ask, stop)
    assert (stopped.value.kind, stopped.value.committed) == ("preempted", False)


def test_the_time_of_a_long_upload_is_not_waited_for_the_store(
    stop: StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs from the first failure on, and anew from one after a try that was answered for longer."""
    monkeypatch.setattr(patience, "LIMIT_S", 0.5)
    monkeypatch.setattr(patience, "_LONGEST_TRY_S", 0.7)
    store, waits = Store(away(), away(), away()), iter([0.8, 0.0, 0.8, 0.0])

    def upload() -> str:
        time.sleep(next(waits))
        return store.ask()

    assert insist(upload, stop) == "answer"


def test_who_ends_already_waits_no_longer_than_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.001)
    hurried = Patience(limit_s=0.05)
    time.sleep(0.06)
    assert not hurried.wait()


@pytest.mark.train
def test_a_run_outlasts_a_store_that_is_away_as_it_begins_and_as_it_ends(runs: Runs) -> None:
    job = runs.sft("whole")
    runs.complete(job)
    (runs.root / "away").mkdir()

    def attempt(at_begin: int, at_end: int, patience_s: float) -> int:
        told = {"at_begin": at_begin, "at_end": at_end, "patience_s": patience_s}
        (runs.root / "away" / "away.json").write_text(json.dumps(told))
        return runs.zygote.wait(runs.start(runs.sft("away"), AWAY))

    assert attempt(10**6, 0, 0.1) == 76, "nothing was taken over"
    assert attempt(3, 10**6, 2.0) == 75, runs.log("away")
    assert attempt(3, 6, 60.0) == 0, runs.log("away")
    progress = runs.progress("away")
    assert (progress.state, progress.resumed_from_step) == ("done", progress.step)
    assert runs.weights("away") == runs.weights("whole")


@pytest.mark.train
def test_a_store_that_stayed_away_from_the_last_checkpoint_is_not_waited_for_again(runs: Runs) -> None:
    """Nothing is measured and nothing is asked of it once it was waited for."""
    (runs.root / "gone").mkdir()
    told = {"at_begin": 0, "at_end": 10**6, "patience_s": 0.2, "last_step": 24}
    (runs.root / "gone" / "away.json").write_text(json.dumps(told))
    job = runs.sft("gone")
    assert runs.zygote.wait(runs.start(job, AWAY)) == 76, runs.log("gone")
    said = runs.log("gone")
    assert "preempted: the object store stayed away: nobody answers" in said
    assert "tuned:" not in said
    assert "trying again" not in said
    stood = runs.newest_step("gone")  # of those that were sent by then
    assert 0 < stood < 24
    assert runs.complete(job).resumed_from_step == stood
