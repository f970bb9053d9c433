"""Ids and caps of launches that came to no run are free again, and of no others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from planner.entry_book import Entry, EntryBook, entering, give_back_cut_off
from planner.ledger_identity import LedgerIdentity, identity_of
from planner.register import enter, is_taken, read_book
from planner.store import Store
from providers.directory_store import DirectoryStore
from providers.errors import StorageError
from tests.planner.run_factories import attempt_of, terms_of

USD = 1_000_000
AT, SOON, LATER = (f"2026-11-22T{clock}:00.000Z" for clock in ("12:00", "12:14", "12:15"))
ENTRY = Entry("run-1", "p", "file:///team", AT)


@pytest.fixture
def register(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "register")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "plan.db") as store:
        yield store


def take(register: DirectoryStore, ledger: LedgerIdentity) -> None:
    enter(register, ENTRY.run_id, "p", "ann", ledger=ledger, cap_micro_usd=80 * USD, at=AT)


def given_back(ledger: Store, register: DirectoryStore, now: str) -> bool:
    give_back_cut_off(ledger.path, register, ENTRY.register_uri, "p", now=now)
    held = read_book(register, "p").runs
    assert is_taken(register, ENTRY.run_id) == bool(held)
    return not held


def test_a_launch_killed_before_its_run_was_on_record_holds_nothing_for_long(
    ledger: Store, register: DirectoryStore
) -> None:
    pid = os.fork()
    if pid == 0:
        with entering(ledger.path, register, ENTRY):
            take(register, identity_of(ledger.path))
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not given_back(ledger, register, SOON)  # it may be about to record its run
    assert given_back(ledger, register, LATER)
    with EntryBook(ledger.path) as book:
        assert not book.is_begun(ENTRY.run_id)


def test_one_that_fails_gives_back_at_once(ledger: Store, register: DirectoryStore) -> None:
    with pytest.raises(StorageError, match="disk full"), entering(ledger.path, register, ENTRY):
        take(register, identity_of(ledger.path))
        raise StorageError("disk full")
    assert not is_taken(register, ENTRY.run_id) and read_book(register, "p").runs == {}


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_on_record_keeps_what_it_has(ledger: Store, register: DirectoryStore, fails: bool) -> None:
    try:
        with entering(ledger.path, register, ENTRY):
            take(register, identity_of(ledger.path))
            ledger.create(ENTRY.run_id, terms_of(project="p"), attempt_of())
            if fails:
                raise StorageError("no answer of the backend")
    except StorageError:
        assert fails
    assert not given_back(ledger, register, LATER)


def test_what_another_ledger_has_taken_stays(ledger: Store, register: DirectoryStore) -> None:
    take(register, LedgerIdentity("theirs"))
    with pytest.raises(StorageError), entering(ledger.path, register, ENTRY):
        raise StorageError("disk full")
    assert not given_back(ledger, register, LATER)


def test_a_run_of_a_ledger_that_was_lost_may_still_cost(ledger: Store, register: DirectoryStore) -> None:
    take(register, LedgerIdentity("the lost one's"))
    with pytest.raises(StorageError), entering(ledger.path, register, ENTRY):
        raise StorageError("disk full")
    assert not given_back(ledger, register, LATER)


def test_other_projects_and_registers_are_left_alone(ledger: Store, register: DirectoryStore) -> None:
    take(register, identity_of(ledger.path))
    with EntryBook(ledger.path) as book:
        book.begin(replace(ENTRY, project="q"))
        assert not given_back(ledger, register, LATER)
        book.begin(replace(ENTRY, register_uri="file:///elsewhere"))
    assert not given_back(ledger, register, LATER)
