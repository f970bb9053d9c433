"""Finding and ending the bed's processes by pid, whatever became of the shell that started them.

Everything the bed starts carries its root directory in the environment; children inherit it, daemons too.
"""

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

MARK = "TUNEPLAN_BED"


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def marked_pids(root: Path) -> list[int]:
    """Pids of living processes whose environment names this bed, never our own."""
    wanted = f"{MARK}={root}".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    pids.append(int(entry.name))
            except OSError:  # it ended meanwhile
                continue
    return sorted(pids)


def command_of(pid: int) -> str:
    """Command line of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def end_marked(root: Path, grace_s: float = 5.0) -> None:
    """SIGTERM to every process of the bed, SIGKILL to those that are left after the grace time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        while pids := marked_pids(root):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
