"""What holds for every launcher; a launcher's own tests inherit this class and say how to launch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from providers.errors import LaunchError
from providers.launcher import Launcher, LaunchRequest
from tests.workers import eventually, make_bundle, order_exit, starts


class LauncherContract:
    """A subclass has a fixture `launcher`."""

    @pytest.fixture
    def orders(self, tmp_path: Path) -> Path:
        path = tmp_path / "orders; $(touch pwned)"
        path.mkdir()
        return path

    @pytest.fixture
    def request_(self, tmp_path: Path, orders: Path) -> LaunchRequest:
        bundle = make_bundle(tmp_path / "bundle with 'quotes' && spaces")
        return LaunchRequest("run-1", bundle, (), env={"ORDERS": str(orders)})

    def test_an_unknown_run_is_absent(self, launcher: Launcher) -> None:
        assert launcher.status("never-heard-of").state == "absent"
        assert launcher.status("never-heard-of").attempt == 0
        assert launcher.cancel("never-heard-of").state == "absent"
        assert list(launcher.logs("never-heard-of")) == []

    def test_a_run_starts_once_and_succeeds(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        first = launcher.launch(request_)
        second = launcher.launch(request_)
        assert (first.state, first.attempt) == ("running", 1)
        assert second.backend_id == first.backend_id
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").ended_at)
        status = launcher.status("run-1")
        assert (status.state, status.exit_code, status.stopped_by) == ("succeeded", 0, None)
        assert status.started_at is not None and status.ended_at is not None
        assert status.started_at <= status.ended_at
        assert launcher.launch(request_) == status
        assert len(starts(orders)) == 1

    def test_exit_code_and_last_line_tell_why_it_failed(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(request_)
        order_exit(orders, 78)
        eventually(lambda: launcher.status("run-1").ended_at)
        status = launcher.status("run-1")
        assert (status.state, status.exit_code, status.reason) == ("failed", 78, "last words")

    def test_cancel_lets_the_worker_checkpoint(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(request_)
        eventually((orders / "ready").exists)
        launcher.cancel("run-1")
        launcher.cancel("run-1")
        eventually(lambda: launcher.status("run-1").ended_at)
        status = launcher.status("run-1")
        assert (status.state, status.exit_code, status.stopped_by) == ("cancelled", 75, "cancel")
        assert "checkpoint committed" in list(launcher.logs("run-1"))
        assert launcher.cancel("run-1") == status

    def test_cancel_ends_a_worker_that_does_not_listen(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        (orders / "stubborn").touch()
        launcher.launch(request_)
        eventually((orders / "ready").exists)
        launcher.cancel("run-1", grace_s=0.1)
        eventually(lambda: launcher.status("run-1").ended_at)
        assert launcher.status("run-1").state == "cancelled"

    def test_attempts_follow_each_other(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(request_)
        with pytest.raises(LaunchError, match="still runs"):
            launcher.launch(replace(request_, attempt=2))
        order_exit(orders, 1)
        eventually(lambda: launcher.status("run-1").ended_at)
        (orders / "exit").unlink()
        assert launcher.launch(replace(request_, attempt=2)).attempt == 2
        with pytest.raises(LaunchError, match="attempt 2"):
            launcher.launch(request_)
        eventually(lambda: len(starts(orders)) == 2)
        order_exit(orders, 0)
        eventually(lambda: launcher.status("run-1").ended_at)

    def test_logs_follow_to_the_end_of_the_run(
        self, launcher: Launcher, request_: LaunchRequest, orders: Path
    ) -> None:
        launcher.launch(request_)
        lines = launcher.logs("run-1", follow=True)
        assert next(lines) == "ready"
        order_exit(orders, 0)
        assert list(lines) == ["last words"]
