"""A ledger is the same owner under each name of its host and each path, also one that signed with those before."""

from __future__ import annotations

import socket
import sqlite3
from pathlib import Path

import pytest

from planner.ledger_identity import LedgerIdentity, identity_of
from planner.record import KEY, OtherLedgerError, claim, keep, read_record
from planner.register import enter, other_owner
from planner.schema_sql import MIGRATIONS
from providers.directory_store import DirectoryStore
from providers.errors import UsageError
from tests.planner.run_factories import START, attempt_of, run_of

LATER = "2026-11-22T12:00:00.001Z"
RUN = run_of("running", attempt_of(started_at=START))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A ledger of the time when host name and path were the word, with a run that was last looked at at START."""
    path = tmp_path / "older" / "plan.db"
    path.parent.mkdir()
    before = next(n for n, steps in enumerate(MIGRATIONS) if any("TABLE identity" in step for step in steps))
    with sqlite3.connect(path) as db:
        for statements in MIGRATIONS[:before]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {before}")
        names = (
            "run_id",
            "state_since_at",
            "name",
            "project",
            "labels",
            "infra",
            "plan_hash",
            "candidate_id",
        )
        names += ("candidate_json", "job_json", "checkpoint_uri", "env", "secrets", "created_at", "state")
        values = ["run-1", START, *("" for _ in names[2:]), ""]
        places = ", ".join("?" * len(values))
        db.execute(f"INSERT INTO runs ({', '.join(names)}, state_reason) VALUES ({places})", values)
        db.execute("INSERT INTO observations (run_id, observed_at) VALUES ('run-1', ?)", (START,))
    db.close()
    return path


def test_each_ledger_has_a_word_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    word = identity_of(tmp_path / "a" / "plan.db")
    assert word != identity_of(tmp_path / "b" / "plan.db")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-name")
    assert identity_of(tmp_path / "link" / "plan.db") == word


def test_an_older_ledger_keeps_its_runs_whatever_its_host_was_called(older: Path, tmp_path: Path) -> None:
    store, ledger = DirectoryStore(tmp_path / "run"), identity_of(older)
    keep(store, LedgerIdentity("0123456789abcdef" * 2), lambda: RUN, START, create=True)
    assert keep(store, ledger, lambda: RUN, LATER, create=False)
    record = read_record(store)
    assert record is not None and record.ledger == ledger.token
    assert identity_of(older) == ledger


def test_what_was_signed_after_it_last_looked_is_another_ledgers(older: Path, tmp_path: Path) -> None:
    store, ledger = DirectoryStore(tmp_path / "run"), identity_of(older)
    keep(store, ledger, lambda: RUN, START, create=True)
    for token, at in (("0123456789abcdef" * 2, LATER), (identity_of(tmp_path / "b.db").token, START)):
        claim(store, token, at)
        with pytest.raises(OtherLedgerError, match="was adopted by a ledger on"):
            keep(store, ledger, lambda: RUN, LATER, create=False)
    assert store.get(KEY) is not None


def test_a_monitor_that_was_not_started_anew_finds_its_own_word(older: Path) -> None:
    """Host name and path as the word of the one who migrates: a process of the older version compares with that."""
    import hashlib

    place = f"{socket.gethostname()}:{older.parent.absolute()}"
    assert identity_of(older).token == hashlib.sha256(place.encode()).hexdigest()[:32]


def test_an_id_that_it_took_before_is_still_its_own(older: Path, tmp_path: Path) -> None:
    register, ledger = DirectoryStore(tmp_path / "register"), identity_of(older)
    for run_id, at in (("run-1", START), ("run-2", START)):
        enter(register, run_id, "p", "ann", ledger=LedgerIdentity("0" * 32), cap_micro_usd=1, at=at)
    assert (other_owner(register, "run-1", ledger), other_owner(register, "run-2", ledger)) == (None, "ann")
    enter(register, "run-1", "p", "ann", ledger=ledger, cap_micro_usd=1, at=LATER)
    with pytest.raises(UsageError, match="was taken by ann"):
        enter(register, "run-2", "p", "ann", ledger=ledger, cap_micro_usd=1, at=LATER)
