"""Keeps one local worker: starts it once, ends it at its time limit, passes a stop on, records its end.

`providers.local` runs this file as `python -I supervisor.py DIRECTORY`; the command returns as soon as the
worker is on record, the supervisor lives on. Standard library only, nothing of ours is imported: it depends on
no path and stays small beside the training. Everything it knows is in files:

- `request.json`: argv, cwd, max_duration_s, stop_grace_s (written by the launcher)
- `alive`: locked as long as supervisor or worker lives; its change time is the last sign of life
- `started.json`: written once, before the worker starts; who finds it never starts a second worker
- `worker.json`: the worker's process
- `stop.json`: somebody wants the worker to end, and how long it may take (written by the launcher)
- `exit.json`: how the worker ended
- `worker.log`: its output
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

POLL_S = 0.1
HEARTBEAT_S = 1.0
_KILL_S, _KILL_SHARE = 2.0, 0.01
_PR_SET_PDEATHSIG = 1


def main(directory: Path) -> int:
    """Run the worker of one attempt to its end.

    Returns:
        0 also if another supervisor has or had the attempt.
    """
    announce = detach()
    stop_signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stop_signals.append(received))
    alive = hold(directory / "alive")
    if alive is None or (directory / "started.json").exists():
        return 0
    request = read_json(directory / "request.json") or {}
    start = time.monotonic()
    write_json(directory / "started.json", {**identity(os.getpid()), "started_at": utc_now()})
    try:
        worker = _start_worker(directory, request, alive)
    except OSError as error:
        _record_exit(directory, 127, None, f"cannot start {request.get('argv')}: {error}")
        return 0
    write_json(directory / "worker.json", identity(worker.pid))
    os.close(announce)
    stopped_by = _watch(directory, worker, request, stop_signals, start)
    _end_group(worker.pid)  # the dead worker's pid is not reaped yet, so nobody else can own the group
    _record_exit(directory, _exit_code(worker.wait()), stopped_by, "")
    return 0


def _start_worker(directory: Path, request: dict[str, Any], alive: IO[bytes]) -> subprocess.Popen[bytes]:
    with (directory / "worker.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - argv is ours, no shell
            request["argv"],
            cwd=request["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(alive.fileno(),),
            process_group=0,
            preexec_fn=_die_with_parent,
        )


def _watch(
    directory: Path,
    worker: subprocess.Popen[bytes],
    request: dict[str, Any],
    stop_signals: list[int],
    start: float,
) -> str | None:
    """Wait until the worker is dead (not yet reaped); what stopped it, None if nothing did."""
    last_beat = start
    limit_s = float(request.get("max_duration_s") or "inf")
    limit_s -= min(_KILL_S, limit_s * _KILL_SHARE)  # what it takes to be gone
    grace_s = float(request.get("stop_grace_s", 60.0))
    ask_s = max(limit_s - grace_s, 0.0)
    stopped_by: str | None = None
    kill_at = float("inf")
    while os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        now = time.monotonic()
        if stopped_by is None and now - start >= ask_s:
            stopped_by = "max_duration"
        if stopped_by is None and (stop_signals or (directory / "stop.json").exists()):
            stop = read_json(directory / "stop.json") or {}
            stopped_by = str(stop.get("reason", "signal"))
            grace_s = float(stop.get("grace_s", grace_s))
        if stopped_by is not None and kill_at == float("inf"):
            os.kill(worker.pid, signal.SIGTERM)
            kill_at = min(now + grace_s, start + limit_s)
        elif now >= kill_at:
            _end_group(worker.pid)
        if now - last_beat >= HEARTBEAT_S:
            os.utime(directory / "alive")
            last_beat = now
        time.sleep(POLL_S)
    return stopped_by


def _record_exit(directory: Path, exit_code: int, stopped_by: str | None, reason: str) -> None:
    facts = {"exit_code": exit_code, "stopped_by": stopped_by, "reason": reason, "ended_at": utc_now()}
    write_json(directory / "exit.json", facts)


def _exit_code(returncode: int) -> int:
    """Of a shell: 128 + signal for a killed process.

    >>> _exit_code(0), _exit_code(75), _exit_code(-9)
    (0, 75, 137)
    """
    return returncode if returncode >= 0 else 128 - returncode


def _die_with_parent() -> None:
    """Let the kernel kill the worker when the supervisor is killed: no orphan keeps computing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def detach() -> int:
    """Go on in a child with its own session; the first process ends when the returned descriptor closes."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.setsid()
    return writer


def hold(path: Path) -> IO[bytes] | None:
    """Lock a file for as long as the returned object and its heirs are open; None if somebody else has it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def identity(pid: int) -> dict[str, Any]:
    """A process beyond doubt: its pid and when it started, since pids are used again."""
    return {"pid": pid, "process_start": process_start(pid)}


def process_start(pid: int) -> str | None:
    """When a living process started, in words of the system; None if there is none (a zombie is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file, None if the file is absent."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file so that a reader sees all of it or nothing, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def utc_now() -> str:
    """RFC 3339 UTC with Z, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
