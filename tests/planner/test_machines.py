"""Each recovery by the backend is an attempt of its own, with its machine, price, time and cost."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from planner.candidate_document import candidate_document
from planner.monitor import decide, observe
from planner.offer_document import offer_document
from planner.run_document import run_document
from planner.runs import Attempt, Run, RunTerms
from planner.store import Store
from providers.launcher import BackendStatus, MachineUse
from providers.offers import Offer
from tests.planner.run_factories import START, candidate_of, run_of, terms_of
from tests.planner.test_monitor import Backend

HOUR = 1_000_000


def at(minute: int) -> str:
    return f"2026-11-22T{12 + minute // 60:02}:{minute % 60:02}:00.000Z"


def offer(region: str, price: float) -> Offer:
    return Offer("aws", region, None, "g5", "A10G", 1, 24.0, 8.0, 32.0, "spot", price, "test", None)


EAST, WEST = offer("east", 1.0), offer("west", 2.0)


def rented_terms(**changes: Any) -> RunTerms:
    document = candidate_document(candidate_of()._replace(offer=EAST))
    document["rented"] = {"alternatives": [offer_document(WEST)], "max_usd_per_hour": None}
    return terms_of(infra="skypilot", candidate_json=json.dumps(document), secrets=(), **changes)


def first_attempt() -> Attempt:
    return Attempt(1, json.dumps(offer_document(EAST)), HOUR, START)


def status(state: Any = "running", **changes: Any) -> BackendStatus:
    return BackendStatus(state, **{"backend_id": "7", "started_at": START, "attempt": 1, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Store(tmp_path / "plan.db") as store:
        terms = rented_terms(checkpoint_uri=(tmp_path / "c").as_uri(), cap_micro_usd=10 * HOUR)
        store.create("run-1", terms, first_attempt())
        yield store


def look(store: Store, answer: BackendStatus, minute: int) -> Run:
    return observe(store, Backend(answer), store.find("run-1"), at(minute))


def rows(run: Run) -> list[tuple[object, ...]]:
    return [
        (row.attempt, row.recovery, json.loads(row.offer_json)["region"], row.outcome, row.cost_micro_usd)
        for row in run.attempts
    ]


def test_a_recovery_elsewhere_is_an_attempt_at_its_own_price(ledger: Store) -> None:
    look(ledger, status(offer=EAST), 30)
    lost = look(ledger, status("recovering", offer=EAST), 60)
    assert (lost.state, rows(lost)) == ("recovering", [(1, 0, "east", "preempted", HOUR)])
    waiting = look(ledger, status("recovering"), 90)  # nothing is paid while it has no machine
    assert rows(waiting) == rows(lost)
    back = look(ledger, status(offer=WEST, recoveries=1), 100)
    assert (back.state, back.launches) == ("running", 1)
    done = look(ledger, status("succeeded", offer=WEST, recoveries=1, ended_at=at(130), exit_code=0), 131)
    assert rows(done) == [(1, 0, "east", "preempted", HOUR), (2, 1, "west", "done", HOUR)]
    assert done.cost_micro_usd == 2 * HOUR
    document = run_document(done, now=datetime.fromisoformat(START))
    assert document["recoveries"] == 1
    assert [row["offer"]["price_usd_per_h"] for row in document["attempts"]] == ["1", "2"]


def test_a_backend_that_keeps_machines_apart_is_believed_to_the_second(ledger: Store) -> None:
    machines = (
        MachineUse(at(1), at(31), EAST),
        MachineUse(at(40), at(50), WEST),
        MachineUse(at(55), None, EAST),
    )
    run = look(ledger, status(machines=machines, recoveries=2), 61)
    assert rows(run) == [
        (1, 0, "east", "preempted", HOUR // 2),
        (2, 1, "west", "preempted", 2 * HOUR // 6 + 1),  # rounded up
        (3, 2, "east", "running", HOUR // 10),
    ]
    ended = status("failed", machines=(*machines[:2], replace(machines[2], ended_at=at(85))), ended_at=at(85))
    done = look(ledger, ended, 90)
    assert (done.state, rows(done)[2]) == ("failed", (3, 2, "east", "failed", HOUR // 2))


def test_a_machine_costs_before_its_worker_began_and_after_it_ended(ledger: Store) -> None:
    look(ledger, status("provisioning", started_at=None), 1)
    look(ledger, status(offer=EAST), 10)  # seen before its owner could be asked
    machine = MachineUse(at(-15), None, EAST)
    run = look(ledger, status(machines=(machine,)), 15)
    assert (run.current.started_at, run.cost_micro_usd) == (at(-15), HOUR // 2)
    leaving = look(ledger, status("releasing", machines=(machine,), reason="given back"), 44)
    assert (leaving.state, leaving.final, leaving.current.ended_at) == ("running", False, None)
    over = replace(machine, ended_at=at(45))
    done = look(ledger, status("succeeded", machines=(over,), ended_at=at(45), exit_code=0), 50)
    assert (done.state, rows(done)) == ("succeeded", [(1, 0, "east", "done", HOUR)])


@pytest.mark.parametrize(
    ("leaving", "outcome"),
    [({"state": "releasing"}, "done"), ({"stopped_by": "cancel"}, "cancelled")],
)
def test_a_machine_that_goes_before_its_backend_is_done_was_not_lost(
    ledger: Store, leaving: dict[str, Any], outcome: str
) -> None:
    gone = MachineUse(START, at(30), EAST)
    look(ledger, status(machines=(replace(gone, ended_at=None),)), 10)
    run = look(ledger, status(**leaving, machines=(gone,)), 31)
    assert (run.state, run.current.outcome, run.current.ended_at) == ("running", "running", None)
    end = {"state": "succeeded", "exit_code": 0} if outcome == "done" else {"state": "cancelled", **leaving}
    done = look(ledger, status(**end, machines=(gone,), ended_at=at(30)), 32)
    assert rows(done) == [(1, 0, "east", outcome, HOUR // 2)]


def test_a_backend_that_has_forgotten_the_first_machines_opens_nothing_twice(ledger: Store) -> None:
    first = MachineUse(at(1), at(31), EAST)
    second = MachineUse(at(40), None, WEST)
    look(ledger, status(machines=(first, second), recoveries=1), 50)
    run = look(ledger, status(machines=(second,), recoveries=1), 60)
    assert [row.started_at for row in run.attempts] == [at(1), at(40)]
    third = MachineUse(at(75), None, EAST)
    later = look(ledger, status(machines=(replace(second, ended_at=at(70)), third), recoveries=2), 80)
    assert [(row.started_at, row.ended_at) for row in later.attempts] == [
        (at(1), at(31)),
        (at(40), at(70)),
        (at(75), None),
    ]


def test_recoveries_that_nobody_saw_cost_what_lay_between(ledger: Store) -> None:
    look(ledger, status(offer=EAST), 10)
    run = look(ledger, status(offer=WEST, recoveries=3), 60)
    assert [(row.recovery, row.started_at, row.ended_at) for row in run.attempts] == [
        (0, START, at(60)),
        (3, at(60), None),
    ]
    assert rows(look(ledger, status("recovering", recoveries=3), 90))[1][3:] == ("preempted", HOUR)


def test_a_launch_that_gives_up_while_recovering_keeps_its_loss_apart(ledger: Store) -> None:
    look(ledger, status(offer=EAST), 10)
    look(ledger, status("recovering"), 20)
    run = look(ledger, status("failed", ended_at=at(80), reason="no capacity"), 81)
    assert (run.state, run.state_reason) == ("failed", "no capacity")
    (only,) = run.attempts
    assert (only.outcome, only.ended_at) == ("preempted", at(20))


def test_a_launch_without_any_machine_costs_nothing(ledger: Store) -> None:
    run = look(ledger, status("failed", started_at=None, ended_at=at(5), reason="no capacity"), 6)
    assert (run.state, run.current.outcome, run.cost_micro_usd) == ("failed", "failed", 0)


def test_what_a_lost_machine_said_counts_for_nothing() -> None:
    from jobs.progress import Progress

    lost = replace(
        first_attempt(), started_at=START, ended_at=at(20), outcome="preempted", cost_micro_usd=333_334
    )
    old = Progress("run-1", 1, started_at=at(1), state="training", step=70)
    change = decide(
        run_of("recovering", lost, terms=rented_terms()), status(recoveries=1, offer=WEST), old, at(30)
    )
    assert change is not None
    (begun,) = change.opened
    assert (change.state, change.reason, begun.first_step) == ("running", "starting", None)


def test_looking_again_adds_no_attempt(ledger: Store) -> None:
    answer = status(offer=WEST, recoveries=1)
    look(ledger, status(offer=EAST), 10)
    assert len(look(ledger, answer, 20).attempts) == len(look(ledger, answer, 30).attempts) == 2
