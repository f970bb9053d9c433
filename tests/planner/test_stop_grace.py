"""A worker on rented machines commits before its backend is asked to end them; one that cannot is ended anyway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.progress import CheckpointRef, Progress
from jobs.stop_request import KEY, stop_request
from planner.launch import Desk, cancel
from planner.limits import limit_grace_s
from planner.monitor import observe, tend
from planner.moving.guide import guide
from planner.places import Places
from planner.price_age import PriceLimit
from planner.runs import Run
from planner.store import Store
from providers.directory_store import DirectoryStore
from tests.planner.moving_runs import attempt_at, moving
from tests.planner.run_factories import START, attempt_of, run_of, terms_of
from tests.planner.test_monitor import Backend, ended_status, running_status

BEGAN = "2026-11-22T12:00:01.000Z"


def at(seconds: float) -> str:
    """So long after half past twelve."""
    return f"2026-11-22T12:{30 + int(seconds) // 60}:{int(seconds) % 60:02}.000Z"


def said(state: str = "training", step: int = 40, committed: int = 0, **changes: Any) -> Progress:
    last = CheckpointRef(committed, START, "file:///none", 1, "0" * 64) if committed else None
    values = {
        "state": state,
        "step": step,
        "last_checkpoint": last,
        "launch": 1,
        "heartbeat_at": at(0),
        **changes,
    }
    return Progress("run-1", 1, started_at=BEGAN, **values)  # type: ignore[arg-type]


class Rented:
    """A run whose worker trains on a rented machine; the test says what worker and backend say."""

    def __init__(self, root: Path, **terms: Any) -> None:
        self.bucket = DirectoryStore(root / "bucket")
        self.store = Store(root / "state" / "plan.db")
        self.backend = Backend(running_status())
        kept = terms_of(infra="skypilot", secrets=(), checkpoint_uri=self.bucket.uri, **terms)
        self.store.create("run-1", kept, attempt_of())
        self.worker(said())
        observe(self.store, self.backend, self.run, at(0))

    @property
    def run(self) -> Run:
        return self.store.find("run-1")

    def worker(self, progress: Progress) -> None:
        self.bucket.put("progress.json", progress.to_json().encode())

    def cancel(self, seconds: float = 0.0, grace_s: float = 60.0) -> Run:
        desk = Desk(self.store, self.backend, Places(self.store.path.parent), lambda: at(seconds))
        return cancel(desk, self.run, grace_s=grace_s)

    def look(self, seconds: float) -> Run:
        return tend(self.store, self.backend, self.run, at(seconds))

    @property
    def request(self) -> bytes | None:
        found = self.bucket.get(KEY)
        return None if found is None else found[0]


@pytest.fixture
def rented(tmp_path: Path) -> Iterator[Rented]:
    one = Rented(tmp_path)
    yield one
    one.store.close()


def test_a_worker_commits_before_its_machine_is_ended(rented: Rented) -> None:
    run = rented.cancel()
    assert (run.state, run.next_try_at, rented.backend.cancelled) == ("cancelling", at(60), [])
    assert rented.request == stop_request("run-1", 1, run.launched_at)
    rented.worker(said("saving", heartbeat_at=at(8)))
    assert rented.look(10).next_try_at == at(60) and rented.backend.cancelled == []
    rented.worker(said("preempted", committed=40, exit_reason="asked to end"))
    rented.look(20)
    assert rented.backend.cancelled == ["run-1"]
    rented.backend.answer = ended_status("cancelled", stopped_by="cancel")
    run = rented.look(25)
    assert (run.state, run.next_try_at) == ("cancelled", None)
    assert run.state_reason == "cancelled by the user, after a committed checkpoint"


def test_one_that_does_not_answer_is_ended_after_its_time(rented: Rented) -> None:
    rented.cancel(grace_s=30.0)
    assert rented.look(29).state == "cancelling" and rented.backend.cancelled == []
    assert rented.look(31).next_try_at is None
    assert rented.backend.cancelled == ["run-1"]


def test_a_clock_that_was_set_back_gives_no_worker_more_time(rented: Rented) -> None:
    rented.worker(said(heartbeat_at=at(1500)))
    rented.cancel(seconds=1500.0, grace_s=30.0)  # by a clock that is 25 minutes fast
    assert rented.backend.cancelled == []
    rented.look(0)
    assert rented.backend.cancelled == ["run-1"]


def test_a_clock_that_is_put_right_by_a_second_takes_no_time_away(rented: Rented) -> None:
    rented.cancel(seconds=1.0, grace_s=30.0)
    assert rented.look(0).state == "cancelling" and rented.backend.cancelled == []


def test_one_that_is_done_meanwhile_is_not_taken_for_cancelled(rented: Rented) -> None:
    rented.cancel()
    rented.worker(said("done"))
    rented.look(10)
    rented.backend.answer = ended_status("succeeded", exit_code=0)
    assert rented.look(20).state == "succeeded" and rented.backend.cancelled == []


@pytest.mark.parametrize(
    "progress",
    [
        said("loading"),
        said("preempted"),
        said(launch=2),
        said(heartbeat_at="2026-11-22T12:20:00.000Z"),
        said(heartbeat_at=None),
    ],
)
def test_where_nobody_would_commit_the_backend_is_asked_at_once(rented: Rented, progress: Progress) -> None:
    rented.worker(progress)
    run = rented.cancel()
    assert (run.state, run.next_try_at, rented.request) == ("cancelling", None, None)
    assert rented.backend.cancelled[0] == "run-1"


def test_without_a_grace_or_with_a_shorter_one_later_it_is_sooner(rented: Rented) -> None:
    assert rented.cancel().next_try_at == at(60)
    assert rented.cancel(5, grace_s=120.0).next_try_at == at(60)
    assert rented.cancel(5, grace_s=10.0).next_try_at == at(15)
    assert rented.backend.cancelled == []
    assert rented.cancel(6, grace_s=0.0).next_try_at is None
    assert rented.backend.cancelled[0] == "run-1"


def test_who_cannot_be_told_is_not_waited_for(rented: Rented) -> None:
    (rented.bucket.root / KEY).mkdir()  # nothing can be written there
    rented.cancel()
    assert rented.backend.cancelled[0] == "run-1"


def test_a_limit_leaves_half_of_its_time_for_the_worker(tmp_path: Path) -> None:
    rented = Rented(tmp_path, cap_micro_usd=515_000)  # a dollar an hour since noon
    run = rented.look(0)
    assert (run.state, run.state_reason, run.next_try_at) == (
        *("cancelling", "cap of $0.515 reached"),
        "2026-11-22T12:30:27.810Z",
    )
    assert rented.backend.cancelled == [] and rented.request is not None
    rented.look(28)
    assert rented.backend.cancelled == ["run-1"]
    rented.backend.answer = ended_status("cancelled", stopped_by="cancel")
    assert rented.look(30).state == "capped"
    rented.store.close()


def test_the_time_for_a_limit_is_half_of_what_it_leaves() -> None:
    assert limit_grace_s(run_of("running")) == 30.0
    assert limit_grace_s(run_of("running", terms=terms_of(max_duration_s=300.0))) == 4.5


def test_a_request_binds_no_later_launch(rented: Rented) -> None:
    first = rented.cancel()
    rented.backend.answer = ended_status("cancelled", stopped_by="cancel")
    ended = rented.look(10)
    again = attempt_of(2, intent_at=at(20))
    assert rented.store.add_attempt(ended, again, cap_micro_usd=None, max_duration_s=None)
    assert rented.run.next_try_at is None
    assert rented.request == stop_request("run-1", 1, first.launched_at)
    assert rented.request != stop_request("run-1", rented.run.launches, rented.run.launched_at)


def test_a_move_waits_for_the_checkpoint_too(tmp_path: Path) -> None:
    terms = moving(work_h=4.0, deadline_h=4.2)
    rented = Rented(tmp_path, moving_json=terms.to_json(), monitor="service")
    spot = json.loads(attempt_at(1, "bed-a", "spot").offer_json)
    run = replace(
        rented.run, attempts=(replace(rented.run.current, offer_json=json.dumps(spot), first_step=0),)
    )
    desk = Desk(rented.store, rented.backend, Places(tmp_path), lambda: at(0))
    moved = guide(desk, run, dict, PriceLimit())
    assert (moved.state, moved.stopping, moved.next_try_at) == ("cancelling", "move", at(60))
    assert rented.backend.cancelled == []
    rented.worker(said("preempted", committed=40))
    rented.look(10)
    assert rented.backend.cancelled == ["run-1"]
    rented.backend.answer = ended_status("cancelled", stopped_by="cancel")
    rested = rented.look(15)
    assert rested.resting and rested.state_reason.endswith("after a committed checkpoint")
    rented.store.close()
