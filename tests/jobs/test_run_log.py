"""The worker's log in the object store: whole, masked, bounded, and never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs import run_log
from jobs.run_log import PREFIX, RunLog, StoredLog
from providers.directory_store import DirectoryStore
from providers.errors import StorageError
from providers.object_store import ObjectStore
from providers.s3 import S3Store
from tests.seaweed import BUCKET, Seaweed
from tests.workers import eventually


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "file":
        return DirectoryStore(tmp_path / "run")
    server: Seaweed = request.getfixturevalue("s3_server")
    return S3Store(f"s3://{BUCKET}/log/{tmp_path.name}?endpoint={server.endpoint}")


def write(store: ObjectStore, text: str, *, fence: int = 1, log: RunLog | None = None) -> None:
    log = log or RunLog()
    log.attach(store, fence, every_s=0.01)
    for line in text.splitlines(keepends=True):
        log.add(line)
    log.close()


def read(store: ObjectStore) -> list[str]:
    return list(StoredLog(store).lines(last=True))


def test_what_was_written_is_read_attempt_by_attempt(store: ObjectStore) -> None:
    write(store, "b1\nb2", fence=12)
    write(store, "a1\n\nä\n", fence=2)
    assert read(store) == ["a1", "", "ä", "b1", "b2"]


def test_it_is_read_while_it_grows(store: ObjectStore) -> None:
    log, reader = RunLog(), StoredLog(store)
    log.attach(store, 1, every_s=0.01)
    log.add("one\ntw")
    seen: list[str] = []
    eventually(lambda: seen.extend(reader.lines()) or seen)
    log.add("o\nthree")
    log.close()
    seen += reader.lines(last=True)
    assert seen == ["one", "two", "three"]


def test_secrets_are_masked_even_if_they_were_written_in_two_parts(
    store: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog.of(
        {"TUNEPLAN_SECRETS": "MINE OTHER", "MINE": "canary-a", "HF_TOKEN": "canary-b", "OTHER": "x"}
    )
    log.tee()
    log.attach(store, 1, every_s=1000)
    sys.stdout.write("it is cana")
    print("ry-a, x")
    print("and canary-b", file=sys.stderr)
    log.close()
    assert read(store) == ["it is ***, x", "and ***"]
    print("after")
    assert capsys.readouterr().out.endswith("after\n") and len(read(store)) == 2


def test_it_is_bounded_and_keeps_beginning_and_end(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "PIECE_BYTES", 100)
    monkeypatch.setattr(run_log, "MOST_PIECES", 3)
    write(store, "".join(f"line {number}\n" for number in range(200)))
    lines = read(store)
    assert lines[0] == "line 0" and lines[-1] == "line 199" and "[lines left out]" in lines
    assert sum(item.bytes for item in store.list(PREFIX)) <= 400


class Down(DirectoryStore):
    """A store that does not answer."""

    down = True

    def put(self, key: str, body: bytes) -> None:
        if self.down:
            raise StorageError("down")
        super().put(key, body)


def test_a_store_that_does_not_answer_for_long_costs_lines_not_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "_MOST_WAITING_BYTES", 1000)
    store, log = Down(tmp_path), RunLog()
    log.attach(store, 1, every_s=1000)
    for number in range(500):
        log.add(f"line {number}\n")
        log._send()
    assert len(log._piece) <= 1000
    store.down = False
    log.close()
    assert read(store)[0] == "[lines left out]" and read(store)[-1] == "line 499"


def test_a_store_that_does_not_answer_costs_nothing_but_time(tmp_path: Path) -> None:
    store, log = Down(tmp_path), RunLog()
    log.attach(store, 1, every_s=0.01)
    log.add("one\n")
    eventually(lambda: not log._waiting)
    store.down = False
    log.add("two\n")
    log.close()
    assert read(store) == ["one", "two"]
