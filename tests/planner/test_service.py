"""One round of the monitor over several runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import service
from planner.launch import Desk
from planner.places import Places
from planner.runs import Run
from planner.service import Habits, look_at_all
from planner.store import Store
from providers.launcher import BackendStatus
from tests.planner.run_factories import START, attempt_of, terms_of


def test_what_is_wrong_with_one_run_leaves_no_other_one_unwatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(desk: Desk, run: Run, habits: Habits) -> Run:
        if run.run_id == "run-1":
            raise ValueError("moving terms of version 9")
        return run

    monkeypatch.setattr(service, "look_at", look)
    with Store(tmp_path / "plan.db") as store:
        for name in ("run-1", "run-2"):
            store.create(name, terms_of(run_id=name), attempt_of())
        desk = Desk(store, None, Places(tmp_path), lambda: START)  # type: ignore[arg-type]
        told: list[str] = []
        seen = look_at_all(lambda _: desk, desk, Habits(), told.append)
    assert [run.run_id for run in seen] == ["run-2"]
    assert told == ["run-1: cannot be looked at: ValueError: moving terms of version 9"]


class Silent:
    """A backend that has heard of nothing."""

    def status(self, run_id: str) -> BackendStatus:
        return BackendStatus("absent")


def test_a_launch_that_nobody_confirmed_says_when_it_is_asked_for_again(tmp_path: Path) -> None:
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", terms_of(run_id="run-1", monitor="service"), attempt_of())
        desk = Desk(store, Silent(), Places(tmp_path), lambda: START)  # type: ignore[arg-type]
        for _ in range(2):
            seen = service.look_at(desk, store.find("run-1"), Habits(settle_s=60.0))
        assert (seen.state, seen.next_try_at) == ("queued", "2026-11-22T12:01:00.000Z")
        assert [event.kind for event in store.events("run-1")] == [
            "launch",
            "observed",
        ]  # no news at each look
