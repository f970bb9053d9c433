"""Stays on a rented machine, holds it to its limit, and gives it back when everybody who should has gone.

Three commands, all of the standard library alone, since the first one runs before anything is installed:

- `python -m jobs.keeper start [--lease-s S] [--limit-s S --grace-s S [--limits-s JSON]]` leaves a process behind that
  outlives set-up and worker; `TUNEPLAN_LEASE_S` under environment.env is another lease than the usual one. It does
  nothing where a machine cannot give itself back (`providers.self_release`).
- `python -m jobs.keeper hold COMMAND...` becomes the command; while it or a child of it lives, the machine is at work.
- `python -m jobs.keeper ask-s --limit-s S --grace-s S --limits-s JSON` says after how many seconds the worker is asked
  to end. The JSON has other limits by "cloud/region": for how long a cap pays depends on which machine it became.

Whoever watches the run rewrites `lease.json` in the run's prefix every few minutes, as long as the worker has not
said that it is over. A machine that is idle and sees no new lease for `lease_s` ends itself: with nobody there neither
a backend nor a person would. At its limit it asks the worker to checkpoint, ends it, and goes, whoever watches. Nothing
is compared with another machine's clock.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.lease import LEASE_S
from jobs.machine import keeper_directory, mark_start, place
from providers.self_release import bare_environment, can_release

Act = Literal["wait", "ask", "kill", "release"]

#: Names the keeper at work by its pid; one that is not named ends.
_OWNER = "keeper"
_LEASE_VARIABLE = "TUNEPLAN_LEASE_S"
_POLL_S = 5.0
_LEASE_EVERY_S = 60.0
_CHILD_TIMEOUT_S = 120.0
_RETRY_S = 60.0
_MOST_DESCRIPTORS = 1024
#: What a machine that has reached its limit may still need to send its last words.
_AFTER_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the machine is held to; times in seconds.

    Attributes:
        lease_s: It stays idle for so long after the last sign of life.
        limit_s: From the beginning of its set-up to the end of its work, inf without one.
        grace_s: How long before the limit the worker is asked to end.
        after_limit_s: How long after the limit the machine goes.
    """

    lease_s: float = LEASE_S
    limit_s: float = math.inf
    grace_s: float = 60.0
    after_limit_s: float = _AFTER_LIMIT_S


@dataclass(slots=True)
class Watch:
    """Decides; knows no clock, no process and no store.

    Attributes:
        started_s: When the machine began to be set up.
    """

    rules: Rules
    started_s: float
    _idle_since_s: float | None = field(default=None, init=False)
    _seen: str | None = field(default=None, init=False)
    _sign_s: float = field(default=-math.inf, init=False)
    _asked: bool = field(default=False, init=False)

    def see(self, lease: str, now_s: float) -> None:
        """The lease was read; only another one than before is a sign of life."""
        if self._seen is not None and lease != self._seen:
            self._sign_s = now_s
        self._seen = lease

    def act(self, now_s: float, *, at_work: bool) -> Act:
        """What to do now."""
        over_s = now_s - self.started_s - self.rules.limit_s
        if over_s >= (2 if at_work else 1) * self.rules.after_limit_s:
            return "release"  # also with a worker that nothing can end
        if at_work:
            self._idle_since_s = self._seen = None
            if over_s >= 0:
                return "kill"
            asks = over_s >= -self.rules.grace_s and not self._asked
            self._asked = self._asked or asks
            return "ask" if asks else "wait"
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        quiet_s = now_s - max(self._idle_since_s, self._sign_s)
        return "release" if quiet_s >= self.rules.lease_s else "wait"


def keep(
    directory: Path, bundle: Path, cloud: str, rules: Rules, *, poll_s: float, lease_every_s: float
) -> None:
    """Watch this machine until it is gone, or another keeper has taken over."""
    watch = Watch(rules, time.monotonic())
    me, next_lease_s, next_release_s = os.getpid(), 0.0, 0.0
    while _owner(directory) == me:
        now_s, at_work = time.monotonic(), is_held(directory)
        if not at_work and now_s >= next_lease_s:
            next_lease_s = now_s + lease_every_s
            lease = _ask([_python(bundle), "-m", "jobs.lease"], dict(os.environ))
            if lease is not None:
                watch.see(lease, now_s)
        act = watch.act(now_s, at_work=at_work)
        if act in ("ask", "kill"):
            _signal_worker(directory, signal.SIGTERM if act == "ask" else signal.SIGKILL)
        if act == "release" and now_s >= next_release_s:
            next_release_s = now_s + max(_RETRY_S, lease_every_s)
            _say("nobody watches and nothing runs, or the limit is passed: this machine gives itself back")
            _ask([_python(bundle), "-m", "providers.self_release", cloud], bare_environment(os.environ))
        time.sleep(poll_s)


def start(directory: Path, arguments: argparse.Namespace) -> int:
    """Leave a keeper behind, in place of an earlier one; 0 also where none is of use."""
    cloud = (place(os.environ) or "").partition("/")[0]
    if not can_release(cloud):
        return 0
    bundle = Path.cwd()
    directory.mkdir(mode=0o700, exist_ok=True)
    mark_start(directory)
    rules = Rules(arguments.lease_s, limit_here_s(arguments, os.environ), arguments.grace_s)
    if os.fork():
        return 0
    os.setsid()
    if os.fork():
        os._exit(0)
    log = os.open(directory / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.closerange(3, _MOST_DESCRIPTORS)  # whoever waits for the set-up's pipes shall not wait for us
    os.chdir("/")
    (directory / _OWNER).write_text(str(os.getpid()))
    keep(directory, bundle, cloud, rules, poll_s=arguments.poll_s, lease_every_s=arguments.lease_every_s)
    os._exit(0)


def limit_here_s(arguments: argparse.Namespace, environ: Mapping[str, str]) -> float:
    """The limit of a machine where this one is, inf without one."""
    by_place: dict[str, float] = arguments.limits_s
    return float(by_place.get(place(environ) or "", arguments.limit_s or math.inf))


def hold(directory: Path, command: Sequence[str]) -> None:
    """Become the command; its processes hold a lock that says so, until the last one ends."""
    if directory.is_dir():
        try:
            _lock(directory)
        except OSError as error:  # what cannot be seen to work must not be taken for idle
            _say(f"no lock, so no keeper: {error}")
            (directory / _OWNER).unlink(missing_ok=True)
    os.execvp(command[0], list(command))  # noqa: S606 - that is what it is for; no shell


def _lock(directory: Path) -> None:
    descriptor = os.open(directory / "at-work", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.set_inheritable(descriptor, True)
    os.truncate(descriptor, 0)
    os.write(descriptor, json.dumps({"pid": os.getpid()}).encode())


def is_held(directory: Path) -> bool:
    """Whether set-up or worker lives."""
    try:
        with (directory / "at-work").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _owner(directory: Path) -> int | None:
    try:
        return int((directory / _OWNER).read_text())
    except (OSError, ValueError):
        return None


def _signal_worker(directory: Path, number: signal.Signals) -> None:
    """SIGTERM goes to the worker, which passes it on; SIGKILL to all of its group.

    Around a worker with a limit is coreutils' `timeout`. Its own alarm makes it ask the worker just so, and end with
    124 instead of the worker's code, which a backend would take for a lost machine and start it again.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
        pid = int(json.loads((directory / "at-work").read_text())["pid"])
        if number == signal.SIGKILL:
            os.killpg(os.getpgid(pid), number)
            return
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if Path(f"/proc/{parent}/comm").read_text().strip() == "timeout":
            os.kill(parent, signal.SIGALRM)
        else:
            os.kill(pid, number)


def _python(bundle: Path) -> str:
    """The interpreter that has the packages, once `jobs/install.sh` has made it in the directory of the bundle."""
    installed = bundle / "env/bin/python"
    return str(installed) if installed.exists() else sys.executable


def _ask(command: Sequence[str], environ: dict[str, str]) -> str | None:
    """What a child prints, None if it fails: what it imports and what it hangs on are no matter of ours."""
    try:
        done = subprocess.run(  # noqa: S603 - ours, no shell
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_CHILD_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"{command[-1]}: {error}")
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands; the exit code."""
    directory = keeper_directory(Path.home())
    if arguments[:1] == ["hold"]:
        hold(directory, arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m jobs.keeper", description="Keep a rented machine.")
    parser.add_argument("command", choices=["start", "hold", "ask-s"])
    parser.add_argument("--lease-s", type=float, default=os.environ.get(_LEASE_VARIABLE) or LEASE_S)
    parser.add_argument("--limit-s", type=float)
    parser.add_argument("--grace-s", type=float, default=60.0)
    parser.add_argument("--limits-s", type=json.loads, default={})
    parser.add_argument("--poll-s", type=float, default=_POLL_S)
    parser.add_argument("--lease-every-s", type=float, default=_LEASE_EVERY_S)
    parsed = parser.parse_args(arguments)
    if parsed.command == "ask-s":
        sys.stdout.write(f"{max(1.0, limit_here_s(parsed, os.environ) - parsed.grace_s):.0f}\n")
        return 0
    try:
        return start(directory, parsed)
    except OSError as error:  # the backend still ends the machine; the run is not to suffer from this
        _say(f"no keeper: {error}")
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
