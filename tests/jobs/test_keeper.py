"""The keeper of a rented machine: what it decides, what it sees, and that a machine is really given back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs import keeper
from jobs.keeper import Rules, Watch
from jobs.lease import KEY
from jobs.machine import keeper_directory, mark_start, started_s
from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob
from planner.bundle import build_bundle
from providers.directory_store import DirectoryStore
from providers.launcher import LaunchRequest
from providers.offers import Offer
from providers.skypilot_task import task_document

LEASE_S = 5.0  # of the real keepers here: longer than Python takes to start on a busy machine
RULES = Rules(lease_s=900, limit_s=3600, grace_s=60, after_limit_s=120)


def test_an_idle_machine_goes_when_nobody_has_renewed_its_lease() -> None:
    watch = Watch(RULES, 0)
    assert watch.act(10, at_work=True) == "wait"
    watch.see("old", 100)
    assert [watch.act(at, at_work=False) for at in (100, 999, 1000)] == ["wait", "wait", "release"]


def test_somebody_who_watches_keeps_it_there() -> None:
    watch = Watch(Rules(lease_s=900), 0)
    for minute in range(1, 50):
        watch.see(f"written at {minute}", minute * 60)
        assert watch.act(minute * 60, at_work=False) == "wait"
    watch.see("written at 49", 50 * 60)  # the same again is no sign of life
    assert watch.act(49 * 60 + 899, at_work=False) == "wait"


def test_a_lease_that_cannot_be_read_is_none() -> None:
    watch = Watch(RULES, 0)
    assert [watch.act(at, at_work=False) for at in (0, 899, 900)] == ["wait", "wait", "release"]


def test_a_machine_at_work_never_goes_before_its_limit() -> None:
    watch = Watch(Rules(lease_s=1), 0)
    assert {watch.act(at, at_work=True) for at in range(0, 100_000, 600)} == {"wait"}
    assert watch.act(100_001, at_work=False) == "wait"  # idleness begins when it is seen


def test_at_its_limit_the_worker_is_asked_once_then_ended_and_the_machine_goes() -> None:
    watch = Watch(RULES, 0)
    acts = [watch.act(at, at_work=True) for at in (3539, 3540, 3550, 3600, 3839, 3840)]
    assert acts == ["wait", "ask", "wait", "kill", "kill", "release"]  # the last: nothing can end the worker
    watch = Watch(RULES, 0)
    watch.see("a", 3700)
    watch.see("b", 3719)
    assert [watch.act(at, at_work=False) for at in (3719, 3720)] == ["wait", "release"]


def test_since_when_a_machine_is_set_up(tmp_path: Path) -> None:
    assert started_s(tmp_path) is None
    before = time.monotonic()
    mark_start(tmp_path)
    assert before <= (started_s(tmp_path) or 0) <= time.monotonic()
    told = json.loads((tmp_path / "since.json").read_text())
    (tmp_path / "since.json").write_text(json.dumps(told | {"boot": "another"}))
    assert started_s(tmp_path) is None


def test_what_cannot_be_seen_to_work_is_never_taken_for_idle(tmp_path: Path) -> None:
    directory = keeper_directory(tmp_path)
    (directory / "at-work").mkdir(parents=True)  # so that it cannot be locked
    (directory / "keeper").write_text("1")
    done = subprocess.run(
        [sys.executable, "-m", "jobs.keeper", "hold", "echo", "trained"],
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert not (directory / "keeper").exists()


class Vast:
    """The seller's API, which hears that a machine wants to go."""

    def __init__(self) -> None:
        self.deleted: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_DELETE(self) -> None:
                outer.deleted.append((self.path, self.headers.get("Authorization")))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def vast() -> Iterator[Vast]:
    server = Vast()
    yield server
    server.http.shutdown()
    server.http.server_close()


class Machine:
    """A rented machine: a home directory in which set-up and worker run as SkyPilot runs them."""

    def __init__(self, root: Path, vast: Vast, worker: str, limit_s: float | None = None) -> None:
        job = JobSpec("goat", "goat", ModelJob("m"), DataJob("d"), CheckpointsJob("file:///nowhere"))
        self.bundle = build_bundle(root / "bundle", job).path
        self.home = root / "home"
        self.home.mkdir()
        self.used = root / "used"
        (root / "python").write_text(f'#!/bin/sh\necho "$@" >> {self.used}\nexec {sys.executable} "$@"\n')
        (root / "python").chmod(0o755)  # what the set-up installs, and has the packages
        self.store = DirectoryStore(root / "run")
        self.leases = 0
        offer = Offer("vast", "x", None, "m", "A10G", 1, 24.0, 4.0, 16.0, "on_demand", 0.4, "test", None)
        request = LaunchRequest(
            "goat",
            self.bundle,
            (offer,),
            python=sys.executable,
            setup=("mkdir -p env/bin", "cp ../python env/bin/python"),
            max_duration_s=limit_s,
            stop_grace_s=1.0,
        )
        document = task_document(request)
        quick = f"start --lease-s {LEASE_S} --poll-s 0.05 --lease-every-s 0.2"
        self.setup = document["setup"].replace("-m jobs.keeper start", f"-m jobs.keeper {quick}")
        self.run = document["run"].replace("-m jobs.train job.json", f"-c {worker!r}")
        if limit_s is not None:  # as if it were hung or killed: the keeper is alone
            self.run = re.sub(r"timeout --signal=TERM --kill-after=1 \d+ ", "timeout 100 ", self.run)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "SKYPILOT_CLUSTER_INFO": json.dumps({"cloud": "Vast", "region": "x"}),
            "TUNEPLAN_STORE": self.store.uri,
            "CONTAINER_ID": "C.7",
            "CONTAINER_API_KEY": "of this machine",
            "VAST_URL": vast.url,
        }

    def begin(self) -> subprocess.Popen[bytes]:
        subprocess.run(["bash", "-c", self.setup], cwd=self.bundle, env=self.environ, check=True, timeout=60)
        return subprocess.Popen(["bash", "-c", self.run], cwd=self.bundle, env=self.environ)

    def renew(self) -> None:
        self.leases += 1
        self.store.put(KEY, str(self.leases).encode())

    def forget(self) -> None:
        """Its keeper ends."""
        (keeper_directory(self.home) / "keeper").unlink(missing_ok=True)


def wait_until(is_so: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def test_a_machine_whose_job_is_over_and_that_nobody_watches_gives_itself_back(
    tmp_path: Path, vast: Vast
) -> None:
    machine = Machine(tmp_path, vast, "print('trained')")
    watching = threading.Event()

    def watch() -> None:
        while not watching.wait(0.2):
            machine.renew()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert machine.begin().wait() == 0
        time.sleep(1.2 * LEASE_S)
        assert vast.deleted == []  # idle for longer than the lease, but somebody watches
        watching.set()
        wait_until(lambda: bool(vast.deleted), 60.0)
        assert vast.deleted[0] == ("/api/v0/instances/7/", "Bearer of this machine")
        assert {"-m jobs.lease", "-m providers.self_release vast"} <= set(
            machine.used.read_text().splitlines()
        )
    finally:
        watching.set()
        watcher.join()
        machine.forget()


def test_a_machine_ends_its_worker_at_its_limit_and_goes_whoever_watches(tmp_path: Path, vast: Vast) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(100)"
    machine = Machine(tmp_path, vast, deaf, limit_s=8.0)
    worker = machine.begin()
    try:
        assert worker.wait(timeout=30) in (-9, 137)
        assert (started_s(keeper_directory(machine.home)) or 0) + 8 <= time.monotonic()
    finally:
        machine.forget()
        worker.kill()


def test_a_worker_that_heeds_its_limit_is_not_taken_for_a_lost_one(tmp_path: Path, vast: Vast) -> None:
    machine = Machine(tmp_path, vast, "import time; time.sleep(100)", limit_s=4.0)
    worker = machine.begin()
    try:
        assert worker.wait(timeout=60) == 124  # of `timeout`, not the worker's own
    finally:
        machine.forget()
        worker.kill()


def test_where_a_machine_cannot_give_itself_back_nothing_is_left_behind(tmp_path: Path, vast: Vast) -> None:
    machine = Machine(tmp_path, vast, "print(1)")
    machine.environ["SKYPILOT_CLUSTER_INFO"] = json.dumps({"cloud": "Slurm", "region": "x"})
    assert machine.begin().wait() == 0
    assert list(machine.home.iterdir()) == []


def test_what_needs_packages_runs_where_they_were_installed(tmp_path: Path) -> None:
    assert keeper._python(tmp_path) == sys.executable
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").touch()
    assert keeper._python(tmp_path) == str(tmp_path / "env/bin/python")
