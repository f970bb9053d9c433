"""A small always-on machine for the monitor: what it costs, what runs on it, and since when it is there.

A monitor starts machines, so it needs a login that may, and SkyPilot's own records of what it started. Both are where
the launch is made from: a remote monitor is a machine that launches, with a ledger of its own, and nothing of a run is
handed over. What it runs is this installation's code.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from planner.whole_file import whole_file
from providers.errors import CorruptDataError, UsageError
from providers.sealed import DIRECTORY

HOURS_A_MONTH = 730
NAME = "plan-monitor"
_HOME = "~/tuneplan"
#: On the machine, with the secrets of which SkyPilot has one share in its environment.
_PLAN = f"PLAN_HOME={_HOME}/home {_HOME}/env/bin/python -m providers.sealed {_HOME}/env/bin/plan"
#: Below what goes along with a command: the prices that it was agreed to at.
PRICES = ".prices.csv"
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

    def usd(self, now: str) -> float | None:
        """What it has cost so far at most, from when it was asked for; None if its price is not known."""
        hours = (datetime.fromisoformat(now) - datetime.fromisoformat(self.since_at)).total_seconds() / 3600
        return None if self.machine.usd_per_hour is None else self.machine.usd_per_hour * hours

    def text(self, now: str) -> str:
        """For the person who pays for it."""
        usd = self.usd(now)
        cost = "what it costs is not known here" if usd is None else f"${usd:,.2f} so far"
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


def setup_document(machine: MonitorMachine, code: Path) -> dict[str, Any]:
    """The SkyPilot task that makes the machine: it installs this tuneplan, and ends.

    Args:
        machine: Where.
        code: Directory that `planner.own_wheel.write_installable` has filled.
    """
    kind: dict[str, Any] = {"cpus": "2+"}
    if machine.instance_type is not None:
        kind = {"instance_type": machine.instance_type, "disk_size": _DISK_GIB}
    return {
        "name": f"{NAME}-setup",
        "workdir": str(code),
        "resources": {"infra": machine.place, **kind},
        "setup": f"mkdir -p {_HOME}\ncp -rf ./. {_HOME}/\ncd {_HOME}\nsh install.sh 3.11\n",
        "run": f"{_HOME}/env/bin/plan --version\n",
    }


def monitor_document(machine: MonitorMachine | None, code: Path, endpoint: str | None) -> dict[str, Any]:
    """The SkyPilot task of the monitor on the machine.

    Args:
        machine: Where it runs, None if that is not known.
        code: As of `setup_document`.
        endpoint: SkyPilot's API server, where it is not on the machine itself.
    """
    return _beside_others(machine, code, endpoint) | {
        "name": NAME,
        "run": f"cp -rf ./. {_HOME}/\ncd {_HOME}\nexec env {_PLAN} monitor run\n",
    }


def command_document(
    arguments: Sequence[str],
    directory: Path,
    folder: str,
    machine: MonitorMachine | None,
    endpoint: str | None,
) -> dict[str, Any]:
    """A SkyPilot task that runs `plan` with these arguments on the machine, in the files of a directory.

    Args:
        arguments: Of `plan`.
        directory: Files that go along.
        folder: Name of their place on the machine, a plain one.
        machine: As of `monitor_document`.
        endpoint: As of `monitor_document`.
    """
    there = f"~/plans/{shlex.quote(folder)}"
    script = (
        f"mkdir -p {there}\ncp -rf ./. {there}/\ncd {there}\n"
        f"[ ! -f {PRICES} ] || cp -u {PRICES} {_HOME}/home/cache/prices.csv\nsaid=$(mktemp)\ncode=0\n"
        f"{_PLAN} {shlex.join(arguments)} > $said || code=$?\nrm -rf {DIRECTORY}\n"
        f'echo {_STDOUT}\ncat $said\n[ -z "$(tail -c 1 $said)" ] || echo\nrm -f $said\necho "{_EXIT} $code"\n'
    )
    return _beside_others(machine, directory, endpoint) | {"name": f"{NAME}-command", "run": script}


def _beside_others(machine: MonitorMachine | None, directory: Path, endpoint: str | None) -> dict[str, Any]:
    """What goes along; on Slurm a task takes all processors of the machine if it does not ask for less."""
    document: dict[str, Any] = {"workdir": str(directory)}
    if machine is not None and machine.cloud == "slurm":
        document["resources"] = {"cpus": "1+"}
    if endpoint is not None:
        document["envs"] = {"SKYPILOT_API_SERVER_ENDPOINT": endpoint}
    return document


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


def read_answers(lines: Iterable[str]) -> Iterator[Answer]:
    """What the lines of a `command_document` task are.

    >>> [answer.exit_code or answer.line for answer in read_answers(["a", "tuneplan-stdout", "b", "tuneplan-exit 5"])]
    ['a', 'b', 5]
    """
    on_stdout = False
    for line in lines:
        word, _, code = line.rpartition(" ")
        if line == _STDOUT:
            on_stdout = True
        elif word == _EXIT and code.isdigit():
            yield Answer(int(code), "", on_stdout)
        else:
            yield Answer(None, line, on_stdout)


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
