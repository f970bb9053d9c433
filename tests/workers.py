"""Workers that obey the test instead of training, so that launchers and the ledger are tried with real processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

WORKER = """
import os, pathlib, signal, subprocess, sys, time

orders = pathlib.Path(os.environ["ORDERS"])
with (orders / "starts").open("a") as starts:
    starts.write(f"{os.getpid()}\\n")

def stop(*_):
    if not (orders / "stubborn").exists():
        print("checkpoint committed", flush=True)
        os._exit(75)

signal.signal(signal.SIGTERM, stop)
if (orders / "child").exists():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (orders / "child").write_text(str(child.pid))
print("ready", flush=True)
(orders / "ready").touch()
for _ in range(60_000):
    if (orders / "exit").exists():
        print("last words", flush=True)
        os._exit(int((orders / "exit").read_text()))
    time.sleep(0.01)
"""


def make_bundle(directory: Path) -> Path:
    """A bundle whose `jobs.train` is the worker above."""
    package = directory / "jobs"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "train.py").write_text(WORKER)
    (directory / "job.json").write_text("{}")
    return directory


def order_exit(orders: Path, code: int) -> None:
    """Let the worker end with this exit code."""
    (orders / "exit.new").write_text(str(code))
    (orders / "exit.new").rename(orders / "exit")


def starts(orders: Path) -> list[int]:
    """Pids of all workers that ever started."""
    path = orders / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def eventually(happens: Callable[[], object], limit_s: float = 30.0) -> None:
    """Wait until it is so; fail if it never is."""
    deadline = time.monotonic() + limit_s
    while True:
        asked = time.monotonic()
        if happens():
            return
        now = time.monotonic()
        assert now < deadline, "it never happened"
        time.sleep(max(0.01, 4 * (now - asked)))  # asking must not take the time of what is waited for


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def make_python(directory: Path) -> Path:
    """A `python` that runs the worker above whatever job it is given, and everything else as Python does."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "worker.py").write_text(WORKER)
    script = directory / "python"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = -m ]; then exec {sys.executable} -S "{directory}/worker.py"; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return script
