"""The sign of life for a rented machine: given as long as the run needs it, by whoever looks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.lease import KEY
from jobs.progress import Progress, WorkerState
from planner.lease import is_due, renew
from planner.monitor import tend
from planner.runs import Run
from planner.store import Store
from providers.directory_store import DirectoryStore
from providers.launcher import BackendStatus
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

SOON, LATER = "2026-11-22T12:01:00.000Z", "2026-11-22T12:05:00.000Z"


def rented(tmp_path: Path, state: WorkerState | None = None, heartbeat_at: str = LATER) -> Run:
    """Last looked at when it was started."""
    said = None if state is None else Progress("run-1", 1, state, heartbeat_at=heartbeat_at).to_json()
    terms = terms_of(run_id="run-1", infra="skypilot", checkpoint_uri=(tmp_path / "run").as_uri())
    return replace(run_of("running"), terms=terms, progress_json=said, observed_at=START)


def test_it_is_renewed_every_few_minutes_and_not_at_each_look(tmp_path: Path) -> None:
    run = rented(tmp_path)
    assert not is_due(run, SOON)
    assert is_due(run, LATER)
    assert not is_due(replace(run, observed_at=LATER), LATER)


@pytest.mark.parametrize("state", ["done", "failed", "capped", "preempted", "regressed"])
def test_a_worker_that_has_said_its_last_word_needs_no_machine(tmp_path: Path, state: WorkerState) -> None:
    assert is_due(rented(tmp_path, "training"), LATER)
    assert not is_due(rented(tmp_path, state), LATER)


def test_nor_does_one_that_is_silent_for_long(tmp_path: Path) -> None:
    assert is_due(rented(tmp_path, "training", "2026-11-22T11:51:00.000Z"), LATER)
    assert not is_due(rented(tmp_path, "training", "2026-11-22T11:49:00.000Z"), LATER)


def test_the_last_word_of_earlier_machines_is_none_of_the_newer_ones(tmp_path: Path) -> None:
    run = rented(tmp_path, "preempted")
    asked_anew = replace(run, state="provisioning", attempts=(*run.attempts, attempt_of(2)))
    there = replace(asked_anew, state="running", attempts=(*run.attempts, attempt_of(2, started_at=SOON)))
    said = Progress("run-1", 1, "preempted", heartbeat_at=LATER, started_at=START).to_json()
    for newer in (asked_anew, replace(run, state="recovering"), replace(there, progress_json=said)):
        assert is_due(newer, LATER)
    ended = replace(run, state="preempted", attempts=(attempt_of(started_at=START, ended_at=SOON),))
    assert not is_due(ended, LATER)  # no machine comes, and none must stay


def test_what_is_here_or_over_has_no_lease(tmp_path: Path) -> None:
    run = rented(tmp_path)
    assert not is_due(replace(run, terms=terms_of()), LATER)
    assert not is_due(replace(run, state="succeeded"), LATER)


def test_a_store_that_is_away_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = rented(tmp_path)
    renew(replace(run, terms=replace(run.terms, checkpoint_uri=(tmp_path / "file/run").as_uri())), LATER)
    renew(replace(run, terms=replace(run.terms, checkpoint_uri="gs://not/yet")), LATER)


def test_whoever_looks_at_a_run_renews_its_lease(tmp_path: Path) -> None:
    class Running:
        def status(self, run_id: str) -> BackendStatus:
            return BackendStatus("running", backend_id="7", started_at=START, attempt=1)

    store = DirectoryStore(tmp_path / "run")
    with Store(tmp_path / "plan.db") as ledger:
        ledger.create("run-1", rented(tmp_path).terms, attempt_of())
        tend(ledger, Running(), ledger.find("run-1"), LATER)  # type: ignore[arg-type]
        first = store.get(KEY)
        assert first is not None and json.loads(first[0])["written_at"] == LATER
        tend(ledger, Running(), ledger.find("run-1"), LATER)  # type: ignore[arg-type]
        assert store.get(KEY) == first
        ten_past = "2026-11-22T12:10:00.000Z"
        tend(ledger, Running(), ledger.find("run-1"), ten_past)  # type: ignore[arg-type]
        assert (store.get(KEY) or first)[0] != first[0]
