"""What the monitor concludes from the evidence, and that it may look as often as it likes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.progress import Progress, StepTimes
from planner.cli.run_text import render_status
from planner.monitor import decide, lost_steps, observe, tend
from planner.run_document import eta_at, run_document
from planner.runs import FINAL, MOVES, STATES, Run
from planner.store import Change, Store
from providers.directory_store import DirectoryStore
from providers.errors import LaunchError
from providers.launcher import BackendState, BackendStatus, LaunchRequest
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

ENDED = "2026-11-22T12:30:00.000Z"
NOW = "2026-11-22T13:00:00.000Z"


def running_status(**changes: Any) -> BackendStatus:
    values: dict[str, Any] = {"backend_id": "77", "started_at": START, "attempt": 1, **changes}
    return BackendStatus("running", **values)


def ended_status(state: BackendState = "failed", **changes: Any) -> BackendStatus:
    return replace(running_status(), state=state, ended_at=ENDED, **changes)


def progress_of(**changes: Any) -> Progress:
    return Progress("run-1", 1, **{"started_at": "2026-11-22T12:00:01.000Z", "state": "training", **changes})


ENDS = [
    ({"state": "succeeded", "exit_code": 0}, "succeeded", "done", ""),
    ({"exit_code": 75}, "preempted", "preempted", "after a committed checkpoint"),
    ({"exit_code": 76}, "preempted", "preempted", "without a new checkpoint"),
    ({"exit_code": 77}, "capped", "capped", "cap or time limit"),
    ({"exit_code": 78, "reason": "error: no data"}, "failed", "failed", "error: no data"),
    ({"exit_code": 1}, "failed", "failed", "exit code 1"),
    ({"exit_code": 79}, "failed", "failed", "regressed: the guard was not kept"),
    ({"exit_code": 139}, "failed", "failed", "exit code 139"),
    ({"exit_code": 137}, "preempted", "preempted", "SIGKILL"),
    ({"exit_code": 143}, "preempted", "preempted", "SIGTERM"),
    ({"state": "vanished", "reason": "vanished (killed)"}, "preempted", "preempted", "vanished"),
    (
        {"state": "cancelled", "exit_code": 75, "stopped_by": "cancel"},
        "cancelled",
        "cancelled",
        "after a committed",
    ),
    (
        {"state": "cancelled", "exit_code": 137, "stopped_by": "cancel"},
        "cancelled",
        "cancelled",
        "without a new",
    ),
    ({"state": "succeeded", "exit_code": 0, "stopped_by": "cancel"}, "succeeded", "done", ""),
    ({"exit_code": 75, "stopped_by": "max_duration"}, "capped", "capped", "maximum duration"),
]


@pytest.mark.parametrize(("evidence", "state", "outcome", "reason"), ENDS)
def test_each_end_has_its_name(evidence: dict[str, Any], state: str, outcome: str, reason: str) -> None:
    change = decide(run_of("running"), ended_status(**evidence), None, NOW)
    assert change is not None
    assert (change.state, change.attempt.outcome) == (state, outcome)
    assert reason in change.reason
    assert (change.attempt.ended_at, change.attempt.exit_code) == (ENDED, evidence.get("exit_code"))
    assert change.attempt.cost_micro_usd == 500_000


@pytest.mark.parametrize(
    ("terms", "began", "state", "outcome", "cost"),
    [
        ({}, None, "failed", "failed", None),
        ({"monitor": "service"}, None, "preempted", "stock_out", None),
        ({"moving_json": "{}"}, None, "preempted", "stock_out", None),
        ({"monitor": "service"}, START, "preempted", "preempted", 500_000),  # Slurm says that it had some
    ],
)
def test_no_machine_to_be_had_ends_only_what_nobody_asks_for_again(
    terms: dict[str, Any], began: str | None, state: str, outcome: str, cost: int | None
) -> None:
    status = ended_status(reason="no machine", refused=True)
    change = decide(run_of(terms=terms_of(**terms)), replace(status, started_at=began), None, NOW)
    assert change is not None and (change.state, change.reason) == (state, "no machine")
    seen = change.attempt
    assert (seen.outcome, seen.started_at, seen.ended_at, seen.cost_micro_usd) == (
        outcome,
        began,
        ENDED,
        cost,
    )


def test_the_worker_s_own_words_win() -> None:
    said = progress_of(state="capped", exit_reason="cap of 2 US dollars reached")
    change = decide(run_of("running"), ended_status(exit_code=77, reason="last line"), said, NOW)
    assert change is not None and change.reason == "cap of 2 US dollars reached"


def test_a_killed_worker_of_a_cancelled_run_is_cancelled() -> None:
    change = decide(run_of("cancelling"), ended_status("vanished"), None, NOW)
    assert change is not None and change.state == "cancelled"


@pytest.mark.parametrize(
    ("said", "state", "outcome"),
    [
        ({"state": "done"}, "succeeded", "done"),
        ({"state": "capped", "exit_reason": "cap of 2 US dollars reached"}, "capped", "capped"),
        ({"state": "regressed"}, "failed", "failed"),
        ({"state": "training"}, "preempted", "preempted"),
        ({"state": "preempted"}, "preempted", "preempted"),
    ],
)
def test_of_a_machine_that_ended_itself_the_worker_s_last_words_count(
    said: dict[str, Any], state: str, outcome: str
) -> None:
    change = decide(run_of("running"), ended_status("vanished"), progress_of(**said), NOW)
    assert change is not None and (change.state, change.attempt.outcome) == (state, outcome)


def test_cost_runs_up_to_now_while_it_runs() -> None:
    change = decide(run_of("running"), running_status(), progress_of(step=7), NOW)
    assert change is not None
    assert (change.state, change.reason, change.attempt.cost_micro_usd) == ("running", "training", 1_000_000)
    assert (change.attempt.first_step, change.attempt.last_step) == (0, 7)


def test_an_unknown_price_is_an_unknown_cost() -> None:
    attempt = attempt_of(backend_id="77", started_at=START, micro_usd_per_hour=None)
    change = decide(run_of("running", attempt), running_status(), None, NOW)
    assert change is not None and change.attempt.cost_micro_usd is None


def test_what_an_earlier_attempt_said_counts_for_nothing() -> None:
    second = attempt_of(2, backend_id="78", started_at=NOW)
    first = attempt_of(1, started_at=START, ended_at=ENDED, outcome="preempted")
    status = replace(running_status(), attempt=2, started_at=NOW)
    old = progress_of(state="preempted", step=40, exit_reason="told to stop")
    change = decide(run_of("running", first, second), status, old, NOW)
    assert change is not None
    assert (change.state, change.reason) == ("running", "starting")
    assert (change.attempt.first_step, change.attempt.last_step) == (None, None)


def test_an_attempt_that_the_backend_has_not_heard_of_waits() -> None:
    change = decide(run_of("queued", attempt_of()), BackendStatus("absent"), None, NOW)
    assert change is not None and (change.state, change.attempt) == ("queued", attempt_of())


def test_a_run_that_the_backend_forgot_is_unknown_and_may_come_back() -> None:
    forgotten = decide(run_of("running"), BackendStatus("absent"), None, NOW)
    assert forgotten is not None and forgotten.state == "unknown"
    back = decide(run_of("unknown"), running_status(), None, NOW)
    assert back is not None and back.state == "running"


@pytest.mark.parametrize("before", ["queued", "running", "recovering"])
def test_a_backend_that_cannot_be_asked_says_so_and_not_that_it_never_heard_of_the_run(before: Any) -> None:
    silent = decide(run_of(before), BackendStatus("unknown", reason="SkyPilot cannot be reached"), None, NOW)
    assert silent is not None and (silent.state, silent.reason) == ("unknown", "SkyPilot cannot be reached")


@pytest.mark.parametrize("state", sorted(FINAL))
def test_what_is_over_is_not_judged_again(state: Any) -> None:
    assert decide(run_of(state), running_status(), None, NOW) is None


@given(
    before=st.sampled_from(sorted(set(STATES) - FINAL - {"scheduled", "waiting"})),
    state=st.sampled_from(
        [
            "unknown",
            "queued",
            "provisioning",
            "running",
            "recovering",
            "releasing",
            "failed",
            "vanished",
            "absent",
        ]
    ),
    exit_code=st.sampled_from([None, 0, 1, 75, 76, 77, 78, 137, 143]),
    ended=st.booleans(),
    stopped_by=st.sampled_from([None, "cancel", "max_duration", "signal"]),
    said=st.sampled_from([None, "starting", "training", "saving", "failed", "done"]),
)
def test_every_conclusion_is_a_legal_move(
    before: Any, state: Any, exit_code: int | None, ended: bool, stopped_by: Any, said: Any
) -> None:
    status = BackendStatus(
        state,
        attempt=0 if state == "absent" else 1,
        started_at=START,
        ended_at=ENDED if ended else None,
        exit_code=exit_code,
        stopped_by=stopped_by,
    )
    change = decide(run_of(before), status, None if said is None else progress_of(state=said), NOW)
    assert change is not None
    assert change.state == before or change.state in MOVES[before]
    assert (change.attempt.outcome == "running") == (change.attempt.ended_at is None)


def test_steps_computed_twice_are_counted() -> None:
    attempts = (
        attempt_of(1, first_step=0, last_step=115),
        attempt_of(2, first_step=None, last_step=None),
        attempt_of(3, first_step=100, last_step=250),
        attempt_of(4, first_step=250, last_step=600),
    )
    assert lost_steps(run_of("succeeded", *attempts)) == 15
    assert lost_steps(run_of("queued", attempt_of())) == 0


class Backend:
    """A backend that says what the test wants, and remembers what it was asked."""

    def __init__(self, status: BackendStatus) -> None:
        self.answer = status
        self.cancelled: list[str] = []

    def launch(self, request: LaunchRequest) -> BackendStatus:
        raise AssertionError("observing never launches")

    def status(self, run_id: str) -> BackendStatus:
        return self.answer

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        self.cancelled.append(run_id)
        return self.answer

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        return iter(())


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "plan.db") as opened:
        opened.create("run-1", terms_of(checkpoint_uri=(tmp_path / "checkpoints").as_uri()), attempt_of())
        yield opened


def test_looking_twice_changes_nothing_but_the_time(ledger: Store, tmp_path: Path) -> None:
    DirectoryStore(tmp_path / "checkpoints").put("progress.json", progress_of(step=5).to_json().encode())
    backend = Backend(ended_status(exit_code=76))
    first = observe(ledger, backend, ledger.find("run-1"), NOW)
    second = observe(ledger, backend, first, "2026-11-22T14:00:00.000Z")
    assert first == second == ledger.find("run-1")
    assert [event.state for event in ledger.events("run-1")] == ["queued", "preempted"]
    assert (first.current.last_step, first.cost_micro_usd) == (5, 500_000)


def test_a_state_is_told_from_when_it_began_not_from_when_somebody_looked(ledger: Store) -> None:
    backend = Backend(running_status(started_at="2026-11-22T12:10:00.000Z"))
    run = observe(ledger, backend, ledger.find("run-1"), NOW)
    assert (run.state, run.state_since_at, run.since_is_told) == ("running", "2026-11-22T12:10:00.000Z", True)
    backend.answer = ended_status("succeeded", exit_code=0, started_at="2026-11-22T12:10:00.000Z")
    run = observe(ledger, backend, run, "2026-11-22T18:00:00.000Z")
    assert (run.state, run.state_since_at, run.since_is_told) == ("succeeded", ENDED, True)
    assert "(since 2026-11-22 12:30:00 UTC)" in render_status(run, (), datetime.fromisoformat(NOW))
    assert ledger.events("run-1")[-1].at == "2026-11-22T18:00:00.000Z"  # when it was written down


def test_a_state_that_nobody_saw_begin_is_told_as_first_seen(ledger: Store) -> None:
    backend = Backend(BackendStatus("provisioning", backend_id="77", attempt=1))
    run = observe(ledger, backend, ledger.find("run-1"), NOW)
    assert (run.state, run.state_since_at, run.since_is_told) == ("provisioning", NOW, False)
    assert "(first seen 2026-11-22 13:00:00 UTC)" in render_status(run, (), datetime.fromisoformat(NOW))


@pytest.mark.parametrize(
    ("ended_at", "since"),
    [("2026-11-22T11:00:00.000Z", "2026-11-22T12:10:00.000Z"), ("2026-11-22T20:00:00.000Z", NOW)],
)
def test_no_state_begins_before_the_one_it_follows_or_after_it_was_seen(
    ledger: Store, ended_at: str, since: str
) -> None:
    """Clocks of clouds differ from ours."""
    backend = Backend(running_status(started_at="2026-11-22T12:10:00.000Z"))
    run = observe(ledger, backend, ledger.find("run-1"), "2026-11-22T12:20:00.000Z")
    backend.answer = replace(ended_status("succeeded", exit_code=0), ended_at=ended_at)
    assert observe(ledger, backend, run, NOW).state_since_at == since


def test_who_reads_an_old_revision_reads_again(ledger: Store) -> None:
    backend = Backend(running_status())
    old = ledger.find("run-1")
    observe(ledger, backend, old, NOW)
    backend.answer = ended_status("succeeded", exit_code=0)
    assert observe(ledger, backend, old, NOW).state == "succeeded"


def test_a_cancel_is_repeated_until_the_backend_has_obeyed(ledger: Store) -> None:
    backend = Backend(running_status())
    run = observe(ledger, backend, ledger.find("run-1"), NOW)
    change = decide(run, backend.answer, None, NOW)
    assert change is not None
    ledger.apply(run, replace(change, state="cancelling", reason="asked for by the user"))
    asked = observe(ledger, backend, ledger.find("run-1"), NOW)
    assert (asked.state, asked.state_reason, backend.cancelled) == (
        "cancelling",
        "asked for by the user",
        ["run-1"],
    )
    backend.answer = ended_status("cancelled", exit_code=75, stopped_by="cancel")
    assert observe(ledger, backend, asked, NOW).state == "cancelled"


class Forgetful(Backend):
    """A backend that loses the first cancel, and then knows nothing of the run for a while."""

    def __init__(self) -> None:
        super().__init__(running_status())
        self.lost = True

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        if self.lost:
            self.lost = False
            raise LaunchError("its server is started again")
        super().cancel(run_id, grace_s=grace_s)
        return self.answer


def test_a_stop_outlives_a_backend_that_knows_nothing_of_the_run_for_a_while(ledger: Store) -> None:
    backend = Forgetful()
    run = observe(ledger, backend, ledger.find("run-1"), NOW)
    ledger.ask_stop(run, "user", "asked for by the user", NOW)
    with pytest.raises(LaunchError):
        tend(ledger, backend, ledger.find("run-1"), NOW)
    backend.answer = BackendStatus("absent")
    assert tend(ledger, backend, ledger.find("run-1"), NOW).state == "cancelling"
    backend.answer, backend.cancelled = running_status(), []
    run = tend(ledger, backend, ledger.find("run-1"), NOW)
    assert (run.state, run.state_reason, backend.cancelled) == (
        *("cancelling", "asked for by the user"),
        ["run-1"],
    )
    backend.answer = ended_status("cancelled", exit_code=75, stopped_by="cancel")
    assert tend(ledger, backend, run, NOW).state == "cancelled"


def test_a_stop_that_an_older_ledger_lost_is_asked_for_again(ledger: Store) -> None:
    backend = Backend(running_status())
    run = observe(ledger, backend, ledger.find("run-1"), NOW)
    ledger.ask_stop(run, "limit", "cap of $1 reached", NOW)
    for state in ("unknown", "running"):  # as it was written before stops were kept
        run = ledger.find("run-1")
        ledger.apply(run, Change(state, "", run.current, NOW))  # type: ignore[arg-type]
    run = tend(ledger, backend, ledger.find("run-1"), NOW)
    assert (run.state, run.state_reason, backend.cancelled) == (
        *("cancelling", "cap of $1 reached"),
        ["run-1"],
    )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"schema": "other"}', b"\xff\xfe"])
def test_a_progress_document_that_cannot_be_read_is_no_reason_to_stop(
    ledger: Store, tmp_path: Path, body: bytes
) -> None:
    DirectoryStore(tmp_path / "checkpoints").put("progress.json", body)
    run = observe(ledger, Backend(running_status()), ledger.find("run-1"), NOW)
    assert (run.state, run.progress_json) == ("running", None)


def test_eta_follows_the_last_heartbeat() -> None:
    said = progress_of(step=40, max_steps=100, step_time_s=StepTimes(1.0, 2.0, 3.0), heartbeat_at=NOW)
    run: Run = run_of("running", progress_json=said.to_json())
    assert eta_at(run, said) == "2026-11-22T13:02:00.000Z"
    assert eta_at(replace(run, state="preempted"), said) is None
    document = run_document(run, now=datetime.fromisoformat(NOW))
    assert json.loads(json.dumps(document))["eta_at"] == "2026-11-22T13:02:00.000Z"


def test_a_run_that_waits_for_machines_says_when_the_next_try_comes_at_the_latest() -> None:
    waiting = replace(run_of("provisioning"), state_reason="none to be had")
    status = BackendStatus(
        "provisioning", backend_id="77", reason="none to be had", attempt=1, retry_within_s=60.0
    )
    first = decide(waiting, status, None, NOW)
    assert first is not None and first.next_try_at == "2026-11-22T13:01:00.000Z"
    told = replace(waiting, next_try_at=first.next_try_at)
    again = decide(told, status, None, "2026-11-22T13:00:30.000Z")
    assert again is not None and again.next_try_at == first.next_try_at  # no news at each look
    later = decide(told, status, None, "2026-11-22T13:02:00.000Z")
    assert later is not None and later.next_try_at == "2026-11-22T13:03:00.000Z"
    had = decide(told, replace(status, reason="starting", retry_within_s=None), None, NOW)
    assert had is not None and had.next_try_at is None
