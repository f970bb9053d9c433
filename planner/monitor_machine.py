"""A small always-on machine for the monitor: what it costs, what runs on it, and since when it is there.

A monitor starts machines, so it needs a login that may, and SkyPilot's own records of what it started. Both are where
the launch is made from: a remote monitor is a machine that launches, with a ledger of its own, and nothing of a run is
handed over. What it runs is this installation's code.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from planner.whole_file import whole_file
from providers.errors import CorruptDataError, UsageError

HOURS_A_MONTH = 730
NAME = "plan-monitor"
#: On the machine.
_PLAN = "~/tuneplan/env/bin/plan"
_DISK_GIB = 64
_STDOUT, _EXIT = "tuneplan-stdout", "tuneplan-exit"


class MonitorMachine(NamedTuple):
    """A machine without GPUs that is large enough for SkyPilot's server and the monitor: 2 processors, 8 GiB.

    Attributes:
        region: None for wherever SkyPilot likes.
        instance_type: None where there are none, as on Slurm.
        usd_per_hour: List price on demand, None if it is not known.
        as_of: Date of the price.
        source: Who says so.
    """

    cloud: str
    region: str | None
    instance_type: str | None = None
    usd_per_hour: float | None = None
    as_of: str = ""
    source: str = ""

    @property
    def place(self) -> str:
        """In SkyPilot's words."""
        return self.cloud if self.region is None else f"{self.cloud}/{self.region}"

    def text(self) -> str:
        """For the person who will pay for it."""
        where = f"{self.instance_type or 'a machine of 2 processors'} in {self.place}"
        if self.usd_per_hour is None:
            return f"{where}: its price is not known here"
        month = self.usd_per_hour * HOURS_A_MONTH
        price = f"${self.usd_per_hour:g}/h, ${month:,.0f} a month and a disk of {_DISK_GIB} GiB"
        return f"{where}: {price} (list price of {self.as_of}, {self.source})"


_V8, _ANYCLOUD = "SkyPilot catalog v8", "anycloud-sh catalog"
MACHINES = {
    row.cloud: row
    for row in (
        MonitorMachine("aws", "us-east-1", "r6a.large", 0.1134, "2025-08-28", _V8),
        MonitorMachine("azure", "eastus", "Standard_D2s_v5", 0.096, "2026-05-20", _ANYCLOUD),
        MonitorMachine("gcp", "us-central1", "n2-standard-2", 0.09712, "2026-05-20", _ANYCLOUD),
    )
}


class Hired(NamedTuple):
    """The machine that was asked for, as it is written down before it is.

    Attributes:
        since_at: RFC 3339 UTC, when it was asked for.
        secrets: Names of what its monitor was given.
    """

    machine: MonitorMachine
    since_at: str
    secrets: tuple[str, ...]

    def text(self, now: str) -> str:
        """What it has cost so far, at most: from when it was asked for."""
        hours = (datetime.fromisoformat(now) - datetime.fromisoformat(self.since_at)).total_seconds() / 3600
        price = self.machine.usd_per_hour
        cost = "what it costs is not known here" if price is None else f"${price * hours:,.2f} so far"
        kind = self.machine.instance_type or "machine"
        return f"monitor's machine: {kind} in {self.machine.place} since {self.since_at}, {cost}"


def monitor_machine(where: str) -> MonitorMachine:
    """The machine for a cloud, or at `CLOUD/REGION` of another.

    Raises:
        UsageError: None is known, and no region was named.
    """
    cloud, _, region = where.partition("/")
    known = MACHINES.get(cloud)
    if known is not None and region in ("", known.region):
        return known
    if region:
        return MonitorMachine(cloud, region)
    others = "name a region too, as in slurm/mycluster, or use any machine: `plan monitor unit`"
    hint = f"known are {', '.join(sorted(MACHINES))}; {others}"
    raise UsageError(f"no small machine of {cloud} is known here", hint=hint)


def task_document(machine: MonitorMachine, code: Path, endpoint: str | None) -> dict[str, Any]:
    """Its SkyPilot task: installs this tuneplan and runs the monitor.

    Args:
        machine: Where.
        code: Directory that `planner.own_wheel.write_installable` has filled.
        endpoint: SkyPilot's API server, where it is not on the machine itself.
    """
    kind: dict[str, Any] = {"cpus": "2+"}
    if machine.instance_type is not None:
        kind = {"instance_type": machine.instance_type, "disk_size": _DISK_GIB}
    return {
        "name": NAME,
        "workdir": str(code),
        "resources": {"infra": machine.place, **kind},
        **({} if endpoint is None else {"envs": {"SKYPILOT_API_SERVER_ENDPOINT": endpoint}}),
        "setup": "mkdir -p ~/tuneplan\ncp -f ./* ~/tuneplan/\ncd ~/tuneplan\nsh install.sh 3.11\n",
        "run": f"exec {_PLAN} monitor run\n",
    }


def command_document(
    arguments: Sequence[str], directory: Path | None, folder: str, endpoint: str | None
) -> dict[str, Any]:
    """A SkyPilot task that runs `plan` with these arguments on the machine, in the files of a directory.

    Args:
        arguments: Of `plan`.
        directory: Files that go along, None for none.
        folder: Name of their place on the machine, a plain one.
        endpoint: As of `task_document`.
    """
    home = f"mkdir -p ~/plans/{shlex.quote(folder)}\n"
    bring = f"cp -rf ./. ~/plans/{shlex.quote(folder)}/\n" if directory is not None else ""
    script = (
        f"{home}{bring}cd ~/plans/{shlex.quote(folder)}\n"
        f"said=$(mktemp)\ncode=0\n{_PLAN} {shlex.join(arguments)} > $said || code=$?\n"
        f'echo {_STDOUT}\ncat $said\nrm -f $said\necho "{_EXIT} $code"\n'
    )
    return {
        "name": f"{NAME}-command",
        **({} if directory is None else {"workdir": str(directory)}),
        **({} if endpoint is None else {"envs": {"SKYPILOT_API_SERVER_ENDPOINT": endpoint}}),
        "run": script,
    }


class Answer(NamedTuple):
    """Where the lines of a command on the machine belong.

    Attributes:
        exit_code: Of the command once it is over.
        line: For a person or a program.
        on_stdout: For the program.
    """

    exit_code: int | None
    line: str
    on_stdout: bool


def read_answer(line: str, on_stdout: bool) -> Answer:
    """What a line of a `command_document` task is, after lines that were or were not for stdout.

    >>> read_answer("tuneplan-exit 5", True)
    Answer(exit_code=5, line='', on_stdout=True)
    """
    if line == _STDOUT:
        return Answer(None, "", True)
    word, _, code = line.rpartition(" ")
    if word == _EXIT and code.isdigit():
        return Answer(int(code), "", on_stdout)
    return Answer(None, line, on_stdout)


def note_hired(path: Path, hired: Hired) -> None:
    """Write down what is about to be asked for."""
    text = json.dumps({**hired._asdict(), "machine": hired.machine._asdict()}, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        beside.write_text(text, encoding="utf-8")


def read_hired(path: Path) -> Hired | None:
    """What was asked for, None if nothing is there.

    Raises:
        CorruptDataError: The note is damaged; the machine may be there all the same.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        machine = MonitorMachine(**document["machine"])
        return Hired(machine, document["since_at"], tuple(document["secrets"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"`sky status {NAME}` says whether the machine is there"
        raise CorruptDataError(f"{path} cannot be read: {error}", hint=hint) from None
