"""The record of a run in its prefix: one ledger owns it, whoever writes at the same moment."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from planner.ledger_identity import LedgerIdentity
from planner.record import KEY, OtherLedgerError, claim, keep, read_record
from planner.runs import Run
from providers.directory_store import DirectoryStore
from providers.errors import CorruptDataError, UsageError
from providers.object_store import ObjectStore
from providers.s3 import S3Store
from tests.planner.run_factories import START, attempt_of, run_of
from tests.seaweed import BUCKET, Seaweed

RUN = run_of(
    "running", attempt_of(started_at=START, ended_at=START, cost_micro_usd=7), attempt_of(2, started_at=START)
)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "file":
        return DirectoryStore(tmp_path / "runs")
    server: Seaweed = request.getfixturevalue("s3_server")
    return S3Store(f"s3://{BUCKET}/record/{tmp_path.name}?endpoint={server.endpoint}")


def write(store: ObjectStore, ledger: str = "a", run: Run | None = RUN, *, create: bool = True) -> bool:
    return keep(store, LedgerIdentity(ledger), lambda: run, START, create=create)


def test_a_record_says_all_that_the_ledger_does_but_for_the_worker(store: ObjectStore) -> None:
    assert read_record(store) is None
    assert not write(store, create=False)
    assert write(store, run=replace(RUN, progress_json="{}"))
    record = read_record(store)
    assert record is not None
    assert (record.run, record.ledger, record.written_at) == (RUN, "a", START)


def test_it_has_one_owner(store: ObjectStore) -> None:
    write(store)
    assert claim(store, "b", START).run == RUN
    with pytest.raises(OtherLedgerError, match="was adopted by a ledger on"):
        write(store)
    assert write(store, "b", create=False)
    claim(store, "a", START)
    assert write(store)


def test_of_many_owners_at_once_one_is_left(store: ObjectStore) -> None:
    write(store)

    def take(ledger: str) -> str:
        try:
            claim(store, ledger, START)
            write(store, ledger)
        except OtherLedgerError:
            return ""
        return ledger

    with ThreadPoolExecutor(4) as pool:
        took = [name for name in pool.map(take, "bcde") if name]
    record = read_record(store)
    assert record is not None and record.ledger in took


def test_a_newer_writers_keys_are_left_out_and_rubbish_is_one_error(store: ObjectStore) -> None:
    write(store)
    found = store.get(KEY)
    assert found is not None
    document = json.loads(found[0])
    document["run"]["terms"]["new"] = document["run"]["new"] = document["new"] = 1
    store.put(KEY, json.dumps(document).encode())
    assert read_record(store) is not None
    for body in (b"", b"{}", b"[]", b'{"schema": "tuneplan/run-record"}', b"[" * 100_000):
        store.put(KEY, body)
        with pytest.raises(CorruptDataError, match=r"run\.json"):
            read_record(store)


def test_a_record_that_names_no_run_or_state_of_ours_is_rubbish_too(store: ObjectStore) -> None:
    keep(store, LedgerIdentity("a"), lambda: run_of("running"), START, create=True)
    found = store.get(KEY)
    assert found is not None
    for key, value in (
        ("run_id", "../../elsewhere"), ("run_id", 7), ("state", "asleep"), ("attempts", []), ("terms", []),
    ):  # fmt: skip
        document = json.loads(found[0])
        document["run"][key] = value
        store.put(KEY, json.dumps(document).encode())
        with pytest.raises(CorruptDataError, match=r"run\.json"):
            read_record(store)


def test_without_a_record_there_is_nothing_to_claim(store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="no record of a run"):
        claim(store, "a", START)
