"""The ledger: nothing is lost, nothing is written twice, and what is wrong with the file is said."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from planner import database, filesystem
from planner.database import Database
from planner.filesystem import file_system, network_file_system
from planner.runs import Run
from planner.schema_sql import MIGRATIONS
from planner.store import Change, Store
from providers.errors import CorruptDataError, StorageError, TuneplanError, UsageError
from tests.planner.run_factories import START, attempt_of, terms_of

LATER = "2026-11-22T13:00:00.000Z"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "state" / "plan.db") as opened:
        yield opened


def created(ledger: Store, run_id: str = "run-1") -> Run:
    assert ledger.create(run_id, terms_of(), attempt_of())
    run = ledger.get(run_id)
    assert run is not None
    return run


def running(run: Run, **changes: object) -> Change:
    attempt = replace(run.current, backend_id="77", started_at=START, **changes)
    return Change("running", "training", attempt, LATER)


def test_a_run_is_read_as_it_was_written(ledger: Store) -> None:
    run = created(ledger)
    assert run.terms == terms_of()
    assert run.attempts == (attempt_of(),)
    assert (run.state, run.observed_at, run.revision) == ("queued", START, 1)


def test_the_same_id_is_recorded_once(ledger: Store) -> None:
    created(ledger)
    assert not ledger.create("run-1", terms_of(project="other"), attempt_of())
    assert [run.terms.project for run in ledger.all_runs()] == ["default"]


def test_of_two_writers_who_read_the_same_one_wins(ledger: Store) -> None:
    run = created(ledger)
    assert ledger.apply(run, running(run))
    assert not ledger.apply(run, replace(running(run), state="failed"))
    now = ledger.get("run-1")
    assert now is not None and now.state == "running"
    assert (now.state_since_at, now.current.backend_id) == (LATER, "77")


def test_an_illegal_move_changes_nothing(ledger: Store) -> None:
    run = created(ledger)
    ledger.apply(run, Change("succeeded", "", run.current, LATER))
    done = ledger.get("run-1")
    assert done is not None
    with pytest.raises(TuneplanError, match="cannot go from succeeded to running"):
        ledger.apply(done, running(done))
    assert ledger.get("run-1") == done


def test_history_grows_only_when_something_happened_and_cannot_be_changed(ledger: Store) -> None:
    run = created(ledger)
    ledger.apply(run, running(run))
    again = ledger.get("run-1")
    assert again is not None
    ledger.apply(again, running(again))
    assert [(event.kind, event.state) for event in ledger.events("run-1")] == [
        ("launch", "queued"),
        ("observed", "running"),
    ]
    with sqlite3.connect(ledger.path) as database:
        for statement in ("UPDATE events SET reason = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)
    database.close()


def test_the_price_is_that_of_the_machine_that_was_got_and_then_fixed(ledger: Store) -> None:
    run = created(ledger)
    ledger.apply(run, running(run, micro_usd_per_hour=2_000_000))
    started = ledger.find("run-1")
    assert started.current.micro_usd_per_hour == 2_000_000
    ledger.apply(started, running(started, micro_usd_per_hour=3_000_000))
    assert ledger.find("run-1").current.micro_usd_per_hour == 2_000_000
    with (
        sqlite3.connect(ledger.path) as database,
        pytest.raises(sqlite3.IntegrityError, match="fixed once"),
    ):
        database.execute("UPDATE attempts SET micro_usd_per_hour = 1")
    database.close()


def test_a_resume_is_a_new_attempt_under_the_new_limits(ledger: Store) -> None:
    run = created(ledger)
    ledger.apply(run, Change("preempted", "killed", replace(run.current, outcome="preempted"), LATER))
    stopped = ledger.get("run-1")
    assert stopped is not None
    assert ledger.add_attempt(stopped, attempt_of(2), cap_micro_usd=9, max_duration_s=60.0)
    assert not ledger.add_attempt(stopped, attempt_of(2), cap_micro_usd=9, max_duration_s=60.0)
    run = ledger.find("run-1")
    assert [attempt.attempt for attempt in run.attempts] == [1, 2]
    assert (run.state, run.terms.cap_micro_usd, run.terms.max_duration_s) == ("queued", 9, 60.0)


def test_what_the_worker_said_stays_until_it_says_more(ledger: Store) -> None:
    run = created(ledger)
    ledger.apply(run, replace(running(run), progress_json='{"step": 1}'))
    again = ledger.find("run-1")
    ledger.apply(again, running(again))
    assert ledger.find("run-1").progress_json == '{"step": 1}'


def test_a_run_is_found_by_the_beginning_of_its_id(ledger: Store) -> None:
    for run_id in ("goat-1", "goat-2", "bert%"):
        created(ledger, run_id)
    assert ledger.find("bert").run_id == "bert%"
    assert ledger.find("goat-1").run_id == "goat-1"
    with pytest.raises(UsageError, match="more than one run begins with goat: "):
        ledger.find("goat")
    for unknown in ("", "%", "_", "nothing"):
        with pytest.raises(UsageError, match="there is no run"):
            ledger.find(unknown)


def test_only_an_unconfirmed_first_launch_is_pending(ledger: Store) -> None:
    run = created(ledger)
    assert ledger.pending(terms_of().plan_hash) == run
    assert ledger.pending("sha256:other") is None
    ledger.apply(run, running(run))
    assert ledger.pending(terms_of().plan_hash) is None


def test_what_was_recorded_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    script = (
        "import sys; from pathlib import Path; from planner.store import Store\n"
        "from tests.planner.run_factories import attempt_of, terms_of\n"
        "ledger = Store(Path(sys.argv[1]))\n"
        "for number in range(10_000):\n"
        "    ledger.create(f'run-{number}', terms_of(), attempt_of()); print(number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 25:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    acknowledged = int(rest[-1]) if rest else acknowledged
    with Store(path) as ledger:
        runs = ledger.all_runs()
        assert len(runs) in (acknowledged + 1, acknowledged + 2)
        assert all(len(run.attempts) == 1 for run in runs)


def test_many_processes_create_each_run_once(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    script = (
        "import sys; from pathlib import Path; from planner.store import Store\n"
        "from tests.planner.run_factories import attempt_of, terms_of\n"
        "with Store(Path(sys.argv[1])) as ledger:\n"
        "    print(sum(ledger.create(f'run-{n}', terms_of(), attempt_of()) for n in range(20)))\n"
    )
    words = [sys.executable, "-c", script, str(path)]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    counts = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(counts) == 20
    with Store(path) as ledger:
        assert len(ledger.all_runs()) == 20


def test_a_ledger_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    Store(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="newer tuneplan"):
        Store(path)
    assert path.read_bytes() == before


def test_an_older_ledger_is_copied_and_then_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.db"
    with Store(path) as ledger:
        created(ledger)
    longer = (*MIGRATIONS, ("ALTER TABLE runs ADD COLUMN colour TEXT",))
    monkeypatch.setattr(database, "MIGRATIONS", longer)
    with Store(path) as ledger:
        assert ledger.find("run-1").run_id == "run-1"
    copy = sqlite3.connect(tmp_path / f"plan.db.version-{len(MIGRATIONS)}")
    assert copy.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert copy.execute("SELECT run_id FROM runs").fetchall() == [("run-1",)]
    copy.close()


def test_a_saved_ledger_of_the_first_version_is_backed_up_and_read(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    saved = sqlite3.connect(path)
    saved.executescript((Path(__file__).parent / "data" / "ledger-version-1.sql").read_text(encoding="utf-8"))
    saved.close()
    with Store(path) as ledger:
        run = ledger.find("old-1")
        assert (run.state, run.current.last_step, run.current.cost_micro_usd) == ("succeeded", 30, 1_000_000)
        assert [event.state for event in ledger.events("old-1")] == ["queued", "running", "succeeded"]
        assert ledger.create("new-1", terms_of(run_id="new-1"), attempt_of())
    copy = sqlite3.connect(tmp_path / "plan.db.version-1")
    assert copy.execute("SELECT run_id, state FROM runs").fetchall() == [("old-1", "succeeded")]
    copy.close()
    again = sqlite3.connect(path)
    assert again.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    again.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.db"
    with Store(path) as ledger:
        created(ledger)
    monkeypatch.setattr(
        database, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE t (x INTEGER) STRICT", "NOT SQL"))
    )
    with pytest.raises(StorageError, match="syntax error"):
        Store(path)
    monkeypatch.undo()
    with Store(path) as ledger:
        assert ledger.find("run-1").run_id == "run-1"


@pytest.mark.parametrize("content", [b"this is no database at all, only words " * 40, b"\0" * 8192])
def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"plan\.db"):
        Store(path)
    assert path.read_bytes()[:100] == content[:100]


def test_a_file_that_another_process_makes_meanwhile_is_a_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands at once in a new home: one reads the version just before the other makes the tables."""
    path = tmp_path / "plan.db"
    maker = threading.Thread(target=lambda: Store(path).close())
    version = Database._version
    first = threading.current_thread()
    told = iter([True])

    def slowly(database: Database) -> int:
        found = version(database)
        if threading.current_thread() is first and next(told, False):
            maker.start()
            maker.join(0.5)
        return found

    monkeypatch.setattr(Database, "_version", slowly)
    Store(path).close()
    maker.join()
    monkeypatch.undo()
    with Store(path) as store:
        assert store.all_runs() == []


def test_another_program_s_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE theirs (x)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(CorruptDataError, match="another program's database"):
        Store(path)
    assert path.read_bytes() == before


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    with Store(path) as ledger:
        for number in range(50):
            created(ledger, f"run-{number}")
    body = bytearray(path.read_bytes())
    body[4096:] = b"\xa5" * (len(body) - 4096)
    path.write_bytes(body)
    with pytest.raises(CorruptDataError, match="damaged"), Store(path) as ledger:
        ledger.all_runs()


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the ledger"):
        Store(tmp_path / "file" / "plan.db")


def test_a_full_disk_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    script = (
        "import resource, signal, sys; from pathlib import Path; from planner.store import Store\n"
        "from providers.errors import StorageError\n"
        "from tests.planner.run_factories import attempt_of, terms_of\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "ledger = Store(Path(sys.argv[1])); done = 0\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    while True:\n"
        "        ledger.create(f'run-{done}', terms_of(), attempt_of()); done += 1\n"
        "except StorageError as error:\n"
        "    print(done, error.message)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    done, _, message = answer.stdout.partition(" ")
    assert "plan.db" in message
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with Store(path) as ledger:
        assert len(ledger.all_runs()) == int(done) > 0
        created(ledger, "after")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"none / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    with pytest.raises(UsageError, match="nfs4"):
        Store(tmp_path / "plan.db")
    assert not (tmp_path / "plan.db").exists()


def test_the_innermost_mount_decides() -> None:
    mounts = "a / ext4 rw 0 0\nb /mnt nfs rw 0 0\nc /mnt/fast\\040disk xfs rw 0 0\nbroken\n"
    assert file_system(Path("/mnt/x"), mounts) == "nfs"
    assert file_system(Path("/mnt/fast disk/x"), mounts) == "xfs"
    assert file_system(Path("/mntx"), mounts) == "ext4"
    assert network_file_system(Path("/"), "d / fuse.sshfs rw 0 0\n") == "fuse.sshfs"
    assert network_file_system(Path("/"), "d / fuse.lxcfs rw 0 0\n") is None


def test_a_home_that_is_no_directory_hints_at_another(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(StorageError, match="Not a directory") as refused:
        Store(tmp_path / "home/state/plan.db")
    assert "PLAN_HOME" in (refused.value.hint or "")
