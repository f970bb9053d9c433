"""Cap and maximum duration at the controller: a warning in time, then the end before they are passed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.limits import cap_warning, limit_reached
from planner.monitor import tend
from planner.store import Store
from providers.launcher import BackendStatus
from tests.planner.run_factories import START, attempt_of, run_of, terms_of
from tests.planner.test_machines import at, status
from tests.planner.test_monitor import Backend

USD = 1_000_000


def spent(micro: int, **terms: Any) -> Any:
    """A run that began at START at 1 US dollar an hour and was last seen when it had spent this."""
    attempt = attempt_of(started_at=START, cost_micro_usd=micro)
    return run_of("running", attempt, terms=terms_of(**terms), observed_at=at(micro * 60 // USD))


def test_four_fifths_of_the_cap_are_worth_a_warning() -> None:
    assert cap_warning(spent(799_999, cap_micro_usd=USD)) is None
    assert cap_warning(spent(800_000, cap_micro_usd=USD)) == "80 % of the cap of $1 is spent"
    assert cap_warning(spent(800_000)) is None


@pytest.mark.parametrize(
    ("micro", "minute", "terms", "reason"),
    [
        (900_000, 54, {"cap_micro_usd": USD}, None),
        (900_000, 59, {"cap_micro_usd": USD}, "cap of $1 reached"),  # the ledger is five minutes old
        (985_000, 59, {"cap_micro_usd": USD}, "cap of $1 reached"),
        (900_000, 54, {"max_duration_s": 3360.0}, None),
        (900_000, 56, {"max_duration_s": 3360.0}, "time limit of 3360 s reached"),
        (900_000, 600, {}, None),
    ],
)
def test_the_controller_ends_it_before_the_limit(
    micro: int, minute: int, terms: dict[str, Any], reason: str | None
) -> None:
    assert limit_reached(spent(micro, **terms), at(minute)) == reason


def test_the_price_of_the_machine_that_was_got_counts() -> None:
    first = attempt_of(1, started_at=START, ended_at=at(30), cost_micro_usd=500_000, outcome="preempted")
    dear = attempt_of(2, started_at=at(30), micro_usd_per_hour=10 * USD, cost_micro_usd=5 * USD, recovery=1)
    run = run_of("running", first, dear, terms=terms_of(cap_micro_usd=6 * USD), observed_at=at(60))
    assert limit_reached(run, at(62)) is None
    assert limit_reached(run, at(63)) == "cap of $6 reached"
    assert limit_reached(replace(run, terms=terms_of(max_duration_s=3600.0)), at(60)) is not None


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "plan.db") as store:
        terms = terms_of(checkpoint_uri=(tmp_path / "c").as_uri(), cap_micro_usd=USD)
        store.create("run-1", terms, attempt_of())
        yield store


def test_it_is_warned_once_then_asked_to_end_and_then_capped(ledger: Store) -> None:
    backend = Backend(status())

    def look(minute: int) -> Any:
        return tend(ledger, backend, ledger.find("run-1"), at(minute))

    look(10)
    look(49)
    look(50)
    assert backend.cancelled == []
    asked = look(59)
    assert (asked.state, asked.stopping, asked.state_reason) == ("cancelling", "limit", "cap of $1 reached")
    assert backend.cancelled[0] == "run-1"
    backend.answer = BackendStatus(
        "cancelled",
        started_at=START,
        ended_at=at(59),
        attempt=1,
        exit_code=75,
        stopped_by="cancel",
        backend_id="7",
    )
    done = look(60)
    assert (done.state, done.current.outcome) == ("capped", "capped")
    assert done.state_reason == "cap of $1 reached, after a committed checkpoint"
    assert done.cost_micro_usd is not None and done.cost_micro_usd <= USD
    kinds = [event.kind for event in ledger.events("run-1")]
    assert kinds == ["launch", "observed", "cap_warning", "stop", "observed"]


def test_a_backend_that_does_not_answer_stops_no_clock(ledger: Store) -> None:
    backend = Backend(status())
    tend(ledger, backend, ledger.find("run-1"), at(10))
    backend.answer = BackendStatus("unknown", reason="nobody answers")
    for minute in range(11, 59):
        run = tend(ledger, backend, ledger.find("run-1"), at(minute))
        assert run.state == "unknown"
    run = tend(ledger, backend, ledger.find("run-1"), at(59))
    assert (run.state, run.state_reason) == ("cancelling", "cap of $1 reached")


@contextmanager
def _due(tmp_path: Path, minute: int) -> Iterator[Store]:
    """A run of half an hour to two whose result must be there at a minute."""
    terms = terms_of(checkpoint_uri=(tmp_path / "c").as_uri(), cap_micro_usd=USD)
    candidate = json.loads(terms.candidate_json) | {"deadline_at": at(minute)}
    with Store(tmp_path / "due.db") as store:
        store.create("run-1", replace(terms, candidate_json=json.dumps(candidate)), attempt_of())
        yield store


def _kinds(store: Store) -> list[tuple[str, str]]:
    return [
        (event.kind, event.reason) for event in store.events("run-1") if event.kind in ("deadline", "stop")
    ]


def test_a_run_that_is_still_queued_at_its_deadline_buys_nothing(tmp_path: Path) -> None:
    with _due(tmp_path, 90) as store:
        backend = Backend(status("queued", started_at=None))
        assert tend(store, backend, store.find("run-1"), at(60)).state == "queued"
        assert _kinds(store) == []
        tend(store, backend, store.find("run-1"), at(61))  # a p10 of half an hour does not fit any more
        assert tend(store, backend, store.find("run-1"), at(89)).state == "queued"
        late = f"no machine has come yet: even at its fastest it will be done after {at(90)}; `plan cancel` ends it"
        assert _kinds(store) == [("deadline", late)]
        asked = tend(store, backend, store.find("run-1"), at(90))
        assert (asked.state, backend.cancelled) == ("cancelling", ["run-1"])
        backend.answer = status("cancelled", started_at=None, ended_at=at(90), stopped_by="cancel")
        done = tend(store, backend, store.find("run-1"), at(91))
        assert (done.state, done.cost_micro_usd) == ("capped", 0)
        assert done.state_reason.startswith(f"the deadline {at(90)} has passed before a machine came")


def test_one_that_had_machines_goes_on_late_and_that_is_told_once(tmp_path: Path) -> None:
    with _due(tmp_path, 20) as store:
        backend = Backend(status())
        for minute in (10, 20, 30):
            assert tend(store, backend, store.find("run-1"), at(minute)).state == "running"
        assert _kinds(store) == [("deadline", f"the deadline {at(20)} has passed")]
        assert backend.cancelled == []


def test_without_a_deadline_nobody_is_late(ledger: Store) -> None:
    run = tend(ledger, Backend(status("queued", started_at=None)), ledger.find("run-1"), at(600))
    assert run.state == "queued" and _kinds(ledger) == []
