"""The order in which launches ask for machines, and what a monitor does when a run would go back to a lost place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from planner.asking import avoided_now, late_places, reason_to_move
from planner.avoidance import place_of
from planner.candidate_document import candidate_document
from planner.cli.run_text import render_status
from planner.launch import Desk, launch, resume
from planner.offer_document import offer_document
from planner.places import Places
from planner.run_document import run_document
from planner.runs import Run, utc_text
from planner.service import Habits, look_at
from planner.store import Store
from providers.launcher import BackendStatus, LaunchRequest, MachineUse
from providers.offers import Offer
from tests.planner.run_factories import candidate_of, terms_of

A = Offer("aws", "us-west-2", "us-west-2a", "g6.xlarge", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.28, "test", None)
B, C = A._replace(zone="us-west-2b"), A._replace(region="us-east-1", zone="us-east-1a")
START = datetime.fromisoformat("2026-11-22T12:00:00+00:00")


class Clock:
    """Time as the test says, in minutes."""

    minutes = 0.0

    def __call__(self) -> str:
        return utc_text(START + timedelta(minutes=self.minutes))


class Backend:
    """A backend whose machines come and go as the test says; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[LaunchRequest] = []
        self.now = BackendStatus("absent")
        self.cancelled = 0

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.asked.append(request)
        self.now = BackendStatus("provisioning", backend_id=str(request.attempt), attempt=request.attempt)
        return self.now

    def status(self, run_id: str) -> BackendStatus:
        return self.now

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        self.cancelled += 1
        newest = next(reversed(self.now.machines), None)
        end = utc_text(START) if newest is None else newest.ended_at or newest.started_at
        self.now = replace(self.now, state="cancelled", ended_at=end, stopped_by="cancel")
        return self.now

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        yield from ()

    def has(self, offer: Offer, *, since: str, until: str | None = None) -> None:
        """Its newest attempt has this machine, or had it and looks for another one."""
        use = MachineUse(since, until, offer)
        state = "running" if until is None else "recovering"
        self.now = replace(self.now, state=state, offer=offer, started_at=since, machines=(use,))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def desk(tmp_path: Path, clock: Clock, backend: Backend) -> Iterator[Desk]:
    places = Places(tmp_path / "state")
    with Store(places.ledger) as store:
        yield Desk(store, backend, places, clock)


def start(desk: Desk, run_id: str, *, monitor: str = "service", access: str = "secrets") -> Run:
    document = candidate_document(candidate_of(0.28)._replace(offer=A))
    rented = {
        "alternatives": [offer_document(B), offer_document(C)],
        "max_usd_per_hour": None, "python": "python3", "setup": [], "stores": [], "access": access,
    }  # fmt: skip
    uri = (desk.places.state / "checkpoints" / run_id).as_uri()
    terms = terms_of(
        run_id=run_id, checkpoint_uri=uri, infra="skypilot", secrets=(), monitor=monitor,
        candidate_json=json.dumps({**document, "rented": rented}),
    )  # fmt: skip
    return launch(desk, run_id, terms, 280_000)[0]


def zones(request: LaunchRequest) -> list[str | None]:
    return [offer.zone for offer in request.offers]


def lost_in_a(desk: Desk, backend: Backend, clock: Clock, run_id: str = "one", **more: str) -> Run:
    """A run that had a machine for half an hour and lost it; its backend looks for another one."""
    start(desk, run_id, **more)
    clock.minutes += 1
    since = clock()
    backend.has(A, since=since)
    look_at(desk, desk.store.find(run_id), Habits())
    clock.minutes += 30
    backend.has(A, since=since, until=clock())
    return desk.store.find(run_id)


def test_a_launch_asks_in_the_plans_order_until_a_place_says_no(
    desk: Desk, backend: Backend, clock: Clock
) -> None:
    lost = lost_in_a(desk, backend, clock, monitor="local")
    assert zones(backend.asked[0]) == ["us-west-2a", "us-west-2b", "us-east-1a"]
    look_at(desk, lost, Habits())
    assert backend.cancelled == 0  # nobody gave it to a monitor
    clock.minutes += 5
    start(desk, "two")
    assert zones(backend.asked[-1]) == ["us-west-2b", "us-east-1a", "us-west-2a"]
    (event,) = [row for row in desk.store.events("two") if row.kind == "avoid"]
    assert event.reason.startswith("aws/us-west-2/us-west-2a avoided until 12:")
    assert "preempted 5 min ago" in event.reason
    clock.minutes += 120
    start(desk, "three")
    assert zones(backend.asked[-1]) == ["us-west-2a", "us-west-2b", "us-east-1a"]


def test_a_repeated_launch_asks_as_it_did_before(desk: Desk, backend: Backend, clock: Clock) -> None:
    look_at(desk, lost_in_a(desk, backend, clock, monitor="local"), Habits())
    start(desk, "two")
    clock.minutes += 120
    backend.now = BackendStatus("absent")  # it never heard of it: whoever asked was killed before
    resume(desk, desk.store.find("two"))
    assert zones(backend.asked[-1]) == zones(backend.asked[-2]) == ["us-west-2b", "us-east-1a", "us-west-2a"]


def test_a_monitor_takes_a_run_elsewhere_that_would_go_back_to_where_it_was_lost(
    desk: Desk, backend: Backend, clock: Clock
) -> None:
    run = look_at(desk, lost_in_a(desk, backend, clock), Habits())
    assert backend.cancelled == 1
    (reason,) = {row.reason for row in desk.store.events("one") if row.state == "cancelling"}
    assert "us-west-2a avoided until 12:" in reason and "it goes on elsewhere" in reason
    assert zones(backend.asked[-1]) == ["us-west-2b", "us-east-1a", "us-west-2a"]
    assert [attempt.outcome for attempt in run.attempts] == ["preempted", "running"]
    clock.minutes += 1
    backend.has(B, since=clock())
    assert look_at(desk, run, Habits()).state == "running"
    look_at(desk, desk.store.find("one"), Habits())
    assert backend.cancelled == 1


def test_a_run_that_waits_longer_than_its_keys_hold_is_launched_anew(
    desk: Desk, backend: Backend, clock: Clock
) -> None:
    start(desk, "one", access="session")
    clock.minutes += 35 * 60
    assert look_at(desk, desk.store.find("one"), Habits()).state == "provisioning"
    clock.minutes += 60
    run = look_at(desk, desk.store.find("one"), Habits())
    assert (backend.cancelled, run.state, run.launches) == (1, "provisioning", 2)
    assert run.cost_micro_usd == 0
    clock.minutes += 1
    look_at(desk, run, Habits())
    assert backend.cancelled == 1


def test_a_run_stays_where_it_is_if_every_place_said_no(desk: Desk, backend: Backend, clock: Clock) -> None:
    lost = lost_in_a(desk, backend, clock)
    now = clock()
    for offer, run_id in ((B, "two"), (C, "three")):
        start(desk, run_id, monitor="local")
        backend.has(offer, since=now)
        look_at(desk, desk.store.find(run_id), Habits())
        backend.has(offer, since=now, until=now)
        look_at(desk, desk.store.find(run_id), Habits())
    assert {place_of(offer) for offer in (A, B, C)} >= set(avoided_now(desk.store, now))
    backend.now = replace(backend.now, attempt=1)
    assert reason_to_move(desk.store, replace(lost, state="recovering"), now) is None


def test_status_says_which_places_come_last_until_when_and_why(
    desk: Desk, backend: Backend, clock: Clock
) -> None:
    look_at(desk, lost_in_a(desk, backend, clock, monitor="local"), Habits())
    clock.minutes += 12
    run = desk.store.find("one")
    late = late_places(desk.store, run, clock())
    text = render_status(run, (), datetime.fromisoformat(clock()), late)
    assert "avoided     aws/us-west-2/us-west-2a avoided until 12:" in text
    (row,) = run_document(run, now=datetime.fromisoformat(clock()), avoided=late)["avoided"]
    assert (row["place"], row["reason"]) == ("aws/us-west-2/us-west-2a", "preempted 12 min ago")
