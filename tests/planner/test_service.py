"""One round of the monitor over several runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.spec import JobSpec
from planner import service
from planner.answer import estimate_spec
from planner.candidate_document import candidate_document
from planner.launch import Desk, launch
from planner.places import Places
from planner.rented import terms_document
from planner.repricing import machines_of
from planner.runs import Run
from planner.service import Habits, look_at_all
from planner.store import Store
from providers.launcher import BackendStatus, LaunchRequest
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.run_factories import START, attempt_of, terms_of

LATER = "2026-11-22T13:00:00.000Z"


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


class ShortOfMachines:
    """A backend that only takes a launch down, and finds out later that there is no machine for it."""

    def __init__(self, *, full_until: int) -> None:
        self.full_until, self.asked, self.is_known = full_until, 0, False

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.asked, self.is_known = request.attempt, False
        return self.status(request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        if self.asked == 0:
            return BackendStatus("absent")
        now = BackendStatus("provisioning", f"c-{self.asked}", attempt=self.asked, started_at=START)
        if self.asked > self.full_until:
            return replace(now, state="running")
        if not self.is_known:
            self.is_known = True
            return now
        return replace(
            now, state="failed", started_at=None, ended_at=START, reason="no machine", refused=True
        )


def test_what_no_machine_can_be_had_for_is_asked_for_again_and_costs_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "plan.db") as store:
        desk = Desk(store, ShortOfMachines(full_until=9), Places(tmp_path), lambda: LATER)  # type: ignore[arg-type]
        uri = (tmp_path / "checkpoints").as_uri()
        terms = terms_of(checkpoint_uri=uri, monitor="service", cap_micro_usd=4_000_000, secrets=())
        run, _ = launch(desk, "run-1", terms, 1_000_000)
        for _ in range(20):
            run = service.look_at(desk, run, Habits())
        *refused, last = run.attempts
        assert (run.state, len(refused), {row.outcome for row in refused}) == ("running", 9, {"stock_out"})
        assert {row.started_at for row in refused} == {None} and last.started_at == START
        waits = [event for event in store.events("run-1") if event.state == "preempted"]
        assert {(event.kind, event.reason) for event in waits} == {("refused", "no machine")}


def test_without_a_monitor_a_refused_launch_is_over(tmp_path: Path) -> None:
    with Store(tmp_path / "plan.db") as store:
        desk = Desk(store, ShortOfMachines(full_until=1), Places(tmp_path), lambda: LATER)  # type: ignore[arg-type]
        terms = terms_of(checkpoint_uri=(tmp_path / "checkpoints").as_uri(), secrets=())
        run, _ = launch(desk, "run-1", terms, 1_000_000)
        run = service.look_at(desk, run, Habits())
        assert (run.state, run.state_reason, run.cost_micro_usd) == ("failed", "no machine", 0)


class TakenAway:
    """A backend that has lost the machines of its first launches, each after 55 minutes."""

    def __init__(self, *, vanished: int) -> None:
        self.launches, self.vanished = 0, vanished

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.launches += 1
        return self.status(request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        if self.launches == 0:
            return BackendStatus("absent")
        seen = BackendStatus("running", f"c-{self.launches}", attempt=self.launches, started_at=START)
        if self.launches > self.vanished:
            return seen
        return replace(seen, state="vanished", reason="lost", ended_at="2026-11-22T12:55:12.000Z")


def test_a_run_that_was_taken_away_with_its_cap_all_but_spent_is_over(tmp_path: Path) -> None:
    with Store(tmp_path / "plan.db") as store:
        backend = TakenAway(vanished=1)
        desk = Desk(store, backend, Places(tmp_path), lambda: LATER)  # type: ignore[arg-type]
        uri = (tmp_path / "checkpoints").as_uri()
        terms = terms_of(checkpoint_uri=uri, monitor="service", cap_micro_usd=1_000_000, secrets=())
        launch(desk, "run-1", terms, 1_000_000)
        told: list[str] = []
        look_at_all(lambda _: desk, desk, Habits(), told.append)
        run = store.find("run-1")
        assert (run.state, run.state_reason, run.cost_micro_usd) == (
            "capped",
            "run run-1 has spent its cap",
            920_000,
        )
        assert told == ["run-1: capped: run run-1 has spent its cap"] and backend.launches == 1


def test_what_is_started_again_is_paid_at_the_price_of_today(tmp_path: Path) -> None:
    offers = [offer_of(region=name, zone=None, price=price) for name, price in (("a", 1.0), ("b", 1.1))]
    plan = estimate_spec(spec_of(), tmp_path, snapshot_of(*offers), NOW).plan()
    chosen = next(row for row in plan.candidates if row.offer.region == "a" and row.nodes == 1)
    terms = terms_of(checkpoint_uri=(tmp_path / "checkpoints").as_uri(), infra="cluster", monitor="service")
    job = JobSpec.from_json(terms.job_json)
    document = candidate_document(chosen) | {"rented": terms_document(plan, chosen, job)}
    terms = replace(terms, candidate_json=json.dumps(document), cap_micro_usd=3_000_000, secrets=())
    with Store(tmp_path / "plan.db") as store:
        backend = TakenAway(vanished=1)
        desk = Desk(store, backend, Places(tmp_path), lambda: LATER)  # type: ignore[arg-type]
        run, _ = launch(desk, "run-1", terms, 1_000_000)
        habits = Habits(offers=lambda: [offers[0]._replace(price_usd_per_hour=1.5)])
        run = service.look_at(desk, run, habits)
    assert [row.micro_usd_per_hour for row in run.attempts] == [1_000_000, 1_500_000]
    machines = machines_of(json.loads(run.terms.candidate_json))
    assert [(row.region, row.price_usd_per_hour) for row in machines] == [("a", 1.5), ("b", 1.1)]


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
