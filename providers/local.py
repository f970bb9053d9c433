"""Runs a job on this machine, detached: it survives the terminal, and nothing is rented."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from providers import supervisor
from providers.errors import LaunchError
from providers.launcher import BackendStatus, LaunchRequest

_START_TIMEOUT_S = 30.0
_TAIL_BYTES = 8192
_FOLLOW_POLL_S = 0.2
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class LocalLauncher:
    """One process group a run, kept by `providers.supervisor`; each attempt has a directory below `root`.

    The directory is the truth: any number of `plan` processes may launch, watch and cancel the same run, and
    each may be killed at any moment.
    """

    def __init__(self, root: Path, *, python: str = sys.executable) -> None:
        """Use a directory of this machine (not of a network disk); `python` runs the worker."""
        self.root = root.absolute()
        self._python = python

    def launch(self, request: LaunchRequest) -> BackendStatus:
        """Start the attempt, or report it if it was started before."""
        directory = self._run_directory(request.run_id) / str(request.attempt)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _locked(directory.parent / "launch.lock"):
                self._refuse_other_attempts(request)
                if not (directory / "started.json").exists():
                    self._start(directory, request)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaunchError(f"cannot start {request.run_id} here: {error}") from error
        return self.status(request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        """What this machine says of the run's newest attempt."""
        started = [
            n for n in self._attempts(run_id) if (self._directory(run_id, n) / "started.json").exists()
        ]
        if not started:
            return BackendStatus("absent")
        return _attempt_status(self._directory(run_id, started[-1]), started[-1])

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        """Ask the worker to checkpoint and stop; its supervisor ends it after the grace time."""
        status = self.status(run_id)
        if status.state == "running":
            directory = self._directory(run_id, status.attempt)
            supervisor.write_json(directory / "stop.json", {"reason": "cancel", "grace_s": grace_s})
            if not _lives(supervisor.read_json(directory / "started.json")):
                _signal(supervisor.read_json(directory / "worker.json"), signal.SIGKILL)
        return self.status(run_id)

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        """Lines of the worker's output over all attempts, oldest first."""
        attempts = self._attempts(run_id)
        for attempt in attempts:
            wait = follow and attempt == attempts[-1]
            yield from self._attempt_log(self._directory(run_id, attempt), attempt, follow=wait)

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        """Whether no process of the run's attempts lives any more; of those before one, if it is named."""
        asked = [n for n in self._attempts(run_id) if before_attempt is None or n < before_attempt]
        return not any(_is_held(self._directory(run_id, n) / "alive") for n in asked)

    def _refuse_other_attempts(self, request: LaunchRequest) -> None:
        status = self.status(request.run_id)
        if status.attempt > request.attempt:
            raise LaunchError(f"attempt {status.attempt} of {request.run_id} was started already")
        if status.attempt < request.attempt and status.state == "running":
            raise LaunchError(f"attempt {status.attempt} of {request.run_id} still runs")

    def _start(self, directory: Path, request: LaunchRequest) -> None:
        work = directory / "work"
        work.mkdir(exist_ok=True)
        supervisor.write_json(
            directory / "request.json",
            {
                "argv": [
                    self._python,
                    *request.worker,
                    str(request.bundle / "job.json"),
                    "--work",
                    str(work),
                ],
                "cwd": str(work),
                "max_duration_s": request.max_duration_s,
                "stop_grace_s": request.stop_grace_s,
            },
        )
        with (directory / "supervisor.log").open("ab") as log:
            subprocess.run(  # noqa: S603 - argv is ours, no shell
                [sys.executable, "-I", str(Path(supervisor.__file__)), str(directory)],
                cwd="/",
                env=_worker_environment(request),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_START_TIMEOUT_S,
                check=False,
            )
        _await_start(directory)

    def _attempt_log(self, directory: Path, attempt: int, *, follow: bool) -> Iterator[str]:
        """Lines of one log; a last line without an end is given when no more can come."""
        rest = b""
        with contextlib.suppress(FileNotFoundError), (directory / "worker.log").open("rb") as log:
            while True:
                ended = not follow or _attempt_status(directory, attempt).state != "running"
                *lines, rest = (rest + log.read()).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
                if ended:
                    break
                time.sleep(_FOLLOW_POLL_S)
        if rest:
            yield rest.decode(errors="replace")

    def _attempts(self, run_id: str) -> list[int]:
        try:
            names = [entry.name for entry in self._run_directory(run_id).iterdir()]
        except (FileNotFoundError, NotADirectoryError, LaunchError):
            return []
        return sorted(int(name) for name in names if name.isdigit())

    def _directory(self, run_id: str, attempt: int) -> Path:
        return self._run_directory(run_id) / str(attempt)

    def _run_directory(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise LaunchError(f"{run_id!r} is not a run id")
        return self.root / run_id


def _worker_environment(request: LaunchRequest) -> dict[str, str]:
    """What the user has here, plus the job's own; of our code Python sees only the bundle."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ours = {"PYTHONPATH": str(request.bundle), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    secrets = {"TUNEPLAN_SECRETS": " ".join(request.secrets)} if request.secrets else {}
    return {**inherited, **request.env, **secrets, **ours, "PYTHONDONTWRITEBYTECODE": "1"}


def _await_start(directory: Path) -> None:
    """Wait until a worker is on record, ours or that of another supervisor that was faster.

    Raises:
        LaunchError: No supervisor came up.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while _is_held(directory / "alive") and time.monotonic() < deadline:
        if any((directory / name).exists() for name in ("worker.json", "exit.json")):
            return
        time.sleep(0.01)
    if not (directory / "started.json").exists():
        log = _last_line(directory / "supervisor.log")
        raise LaunchError(f"the worker's supervisor did not start: {log or 'no message'}")


def _attempt_status(directory: Path, attempt: int) -> BackendStatus:
    started = supervisor.read_json(directory / "started.json") or {}
    alive = _is_held(directory / "alive")
    worker = supervisor.read_json(directory / "worker.json") or {}
    ended = supervisor.read_json(
        directory / "exit.json"
    )  # read after the lock: a dead attempt writes no more
    facts: dict[str, Any] = {
        "backend_id": str(worker.get("pid") or started.get("pid")),
        "started_at": started.get("started_at"),
        "attempt": attempt,
    }
    if ended is not None:
        return _ended_status(directory, ended, facts)
    if alive:
        pids = tuple(process["pid"] for process in (worker, started) if _lives(process))
        stop = supervisor.read_json(directory / "stop.json")
        reason, by = ("", None) if stop is None else ("asked to stop", stop.get("reason"))
        return BackendStatus("running", pids=pids, reason=reason, stopped_by=by, **facts)
    reason = "worker process vanished (killed)"
    return BackendStatus("vanished", reason=reason, ended_at=_last_moment(directory), **facts)


def _last_moment(directory: Path) -> str:
    """When a vanished worker was gone at the latest: one heartbeat after the last one."""
    latest_s = (directory / "alive").stat().st_mtime + supervisor.HEARTBEAT_S
    moment = datetime.fromtimestamp(min(latest_s, time.time()), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ended_status(directory: Path, ended: dict[str, Any], facts: dict[str, Any]) -> BackendStatus:
    exit_code, stopped_by = ended.get("exit_code"), ended.get("stopped_by")
    reason = ended.get("reason") or _last_line(directory / "worker.log")
    facts |= {"exit_code": exit_code, "ended_at": ended.get("ended_at"), "stopped_by": stopped_by}
    if exit_code == 0:
        return BackendStatus("succeeded", **facts)
    return BackendStatus("cancelled" if stopped_by == "cancel" else "failed", reason=reason, **facts)


def _is_held(path: Path) -> bool:
    """Whether supervisor or worker still has its lock; a killed one's is gone at once."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _lives(process: dict[str, Any] | None) -> bool:
    """Whether exactly this process runs, not a later one of the same pid."""
    if not process or process.get("process_start") is None:
        return False
    return bool(supervisor.process_start(process["pid"]) == process["process_start"])


def _signal(process: dict[str, Any] | None, number: signal.Signals) -> None:
    if process and _lives(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process["pid"], number)


def _last_line(path: Path) -> str:
    """The last line that says something, at most 300 characters."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip()[-300:] for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
