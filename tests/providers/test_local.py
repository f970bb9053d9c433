"""The local launcher keeps the contract, whatever is killed and whenever."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from providers import supervisor
from providers.errors import LaunchError
from providers.launcher import LaunchRequest
from providers.local import LocalLauncher
from tests.providers.launcher_contract import LauncherContract
from tests.workers import eventually, lives, order_exit, starts

LAUNCH = """
import json, sys
from pathlib import Path
from providers.launcher import LaunchRequest
from providers.local import LocalLauncher
root, bundle, orders = sys.argv[1:]
LocalLauncher(Path(root)).launch(LaunchRequest("run-1", Path(bundle), (), env={"ORDERS": orders}))
"""


class TestLocalLauncher(LauncherContract):
    @pytest.fixture
    def launcher(self, tmp_path: Path, orders: Path) -> LocalLauncher:
        return LocalLauncher(tmp_path / "local")

    @pytest.fixture(autouse=True)
    def nothing_survives(self, tmp_path: Path) -> object:
        yield
        for name in ("worker.json", "started.json"):
            for path in (tmp_path / "local").glob(f"*/*/{name}"):
                process = json.loads(path.read_text())
                if supervisor.process_start(process["pid"]) == process["process_start"]:
                    os.kill(process["pid"], signal.SIGKILL)

    def test_a_killed_worker_is_known_by_its_signal(
        self, launcher: LocalLauncher, request_: LaunchRequest
    ) -> None:
        status = launcher.launch(request_)
        worker, keeper = status.pids
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: launcher.status("run-1").ended_at)
        status = launcher.status("run-1")
        assert (status.state, status.exit_code, status.pids) == ("failed", 137, ())
        eventually(lambda: not lives(keeper))

    def test_killed_together_with_its_supervisor_it_has_vanished(
        self, launcher: LocalLauncher, request_: LaunchRequest
    ) -> None:
        pids = launcher.launch(request_).pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(lives, pids)))
        status = launcher.status("run-1")
        assert (status.state, status.exit_code) == ("vanished", None)
        assert status.ended_at is not None and status.pids == ()

    def test_the_worker_does_not_outlive_its_supervisor(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path
    ) -> None:
        worker, keeper = launcher.launch(request_).pids
        eventually((orders / "ready").exists)
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: not lives(worker))
        eventually(lambda: launcher.status("run-1").state == "vanished")

    def test_children_of_the_worker_end_with_it(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path
    ) -> None:
        (orders / "child").touch()
        worker, _ = launcher.launch(request_).pids
        eventually((orders / "ready").exists)
        child = int((orders / "child").read_text())
        assert lives(child)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: not lives(child))

    def test_a_worker_ends_at_its_time_limit(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(replace(request_, max_duration_s=0.5, stop_grace_s=0.1))
        eventually(lambda: launcher.status("run-1").ended_at)
        assert launcher.status("run-1").stopped_by == "max_duration"
        assert len(starts(orders)) == 1

    def test_many_launches_at_once_make_one_worker(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path
    ) -> None:
        words = [sys.executable, "-c", LAUNCH, str(launcher.root), str(request_.bundle), str(orders)]
        launches = [subprocess.Popen(words) for _ in range(6)]
        assert [process.wait(60) for process in launches] == [0] * 6
        eventually((orders / "ready").exists)
        assert len(starts(orders)) == 1
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").state == "succeeded")

    @pytest.mark.parametrize("seed", range(8))
    def test_a_launch_killed_at_any_moment_can_be_repeated(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path, seed: int
    ) -> None:
        words = [sys.executable, "-c", LAUNCH, str(launcher.root), str(request_.bundle), str(orders)]
        process = subprocess.Popen(words)
        time.sleep(random.Random(seed).uniform(0.05, 0.35))  # a moment is what is tried here
        process.kill()
        process.wait()
        assert launcher.launch(request_).state == "running"
        eventually((orders / "ready").exists)
        time.sleep(0.1)  # a supervisor left behind by the killed launch would start its worker now
        assert len(starts(orders)) == 1
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").state == "succeeded")
        assert len(starts(orders)) == 1

    def test_a_supervisor_that_comes_late_starts_nothing(
        self, launcher: LocalLauncher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(request_)
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").state == "succeeded")
        directory = launcher.root / "run-1" / "1"
        subprocess.run([sys.executable, "-I", supervisor.__file__, str(directory)], check=True, timeout=30)
        assert len(starts(orders)) == 1

    def test_a_worker_that_cannot_start_has_failed(self, tmp_path: Path, request_: LaunchRequest) -> None:
        launcher = LocalLauncher(tmp_path / "local", python="/no/such/python")
        launcher.launch(request_)
        status = launcher.status("run-1")
        assert (status.state, status.exit_code) == ("failed", 127)
        assert "/no/such/python" in status.reason

    def test_values_of_the_environment_are_written_nowhere(
        self,
        launcher: LocalLauncher,
        request_: LaunchRequest,
        orders: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("CANARY", "canary-5f0a3c")
        launcher.launch(replace(request_, secrets=("CANARY",)))
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").state == "succeeded")
        for path in launcher.root.rglob("*"):
            if path.is_file():
                assert b"canary-5f0a3c" not in path.read_bytes(), path

    @pytest.mark.parametrize("run_id", ["../up", "a/b", "", ".hidden", "a b", "x\0", "-rf"])
    def test_a_run_id_that_is_no_plain_name_is_refused(
        self, launcher: LocalLauncher, request_: LaunchRequest, run_id: str
    ) -> None:
        with pytest.raises(LaunchError, match="is not a run id"):
            launcher.launch(replace(request_, run_id=run_id))
        assert launcher.status(run_id).state == "absent"

    def test_a_directory_that_cannot_be_made_is_a_launch_error(
        self, tmp_path: Path, request_: LaunchRequest
    ) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(LaunchError, match="cannot start run-1 here"):
            LocalLauncher(tmp_path / "file").launch(request_)


def test_a_pid_of_another_start_is_another_process() -> None:
    own = supervisor.identity(os.getpid())
    assert supervisor.process_start(os.getpid()) == own["process_start"]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert supervisor.process_start(ended.pid) is None
