"""Keeping a tree of daemons: whatever they fork, detach or rename, their common ancestor can end them all by pid."""

import ctypes
import os
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def adopt_orphans() -> None:
    """Make this process the parent of every orphan among its descendants, instead of init."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def descendants(pid: int) -> list[int]:
    """Pids of all living processes below one, zombies left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found, frontier = [], [pid]
    while frontier:
        frontier = [child for parent in frontier for child in children.get(parent, ())]
        found += frontier
    return found


def command_of(pid: int) -> str:
    """Command line of a process, empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def reap() -> None:
    """Take the exit statuses of adopted children, so that they are no zombies."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end_descendants(grace_s: float = 3.0) -> None:
    """SIGTERM to all of our descendants, SIGKILL to those that are left after the grace time."""
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
        deadline = time.monotonic() + patience_s
        while (pids := descendants(os.getpid())) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.2)
            reap()
