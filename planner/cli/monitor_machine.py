"""`plan monitor machine`: a small always-on machine that launches and watches while one's own is off."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.monitor_machine import (
    NAME,
    Hired,
    command_document,
    monitor_document,
    monitor_machine,
    note_hired,
    read_answers,
    read_hired,
    setup_document,
)
from planner.places import Places
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.monitor_machine import MonitorMachine
    from providers.skypilot_monitor import Host, SkyPilotMonitorHost

_EXTRAS = ("launch", "s3", "objectstore", "notify")
_LOGINS = (
    "SkyPilot gives it your own cloud logins, or a role that may rent machines (remote_identity in"
    " ~/.sky/config.yaml): whoever may log in there may spend"
)


@click.group("machine", epilog="\b\nExample:\n  plan monitor machine up --where aws")
def machine() -> None:
    """A small always-on machine that launches and watches while your own is off."""


@machine.command(
    "up", epilog="\b\nExamples:\n  plan monitor machine up --where aws\n  plan monitor machine up --dry-run"
)
@click.option("--where", default="aws", show_default=True, help="aws, azure or gcp, or CLOUD/REGION.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="Variable that runs from there need; again for more.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print SkyPilot's task, rent nothing.")
@output_option("table", "json")
@pass_app
def up_command(app: App, where: str, secrets: tuple[str, ...], yes: bool, dry_run: bool, output: str) -> None:
    """Rent the machine, install this tuneplan on it and start its monitor; it costs until `plan monitor machine down`.

    Where it is there already, its monitor is installed and started again.
    """
    from planner.own_wheel import write_installable
    from providers.skypilot_start import secret_values

    wanted = monitor_machine(where)
    places = Places(app.directories.state)
    values = secret_values(secrets)
    setup = setup_document(wanted, places.monitor_code)
    monitor = monitor_document(wanted, places.monitor_code, _server())
    if dry_run:
        _show_tasks(app, wanted, (setup, monitor), output)
        return
    before = read_hired(places.monitor_machine)
    if before is not None and before.machine.place != wanted.place:
        hint = "`plan monitor machine down` gives it back"
        raise UsageError(f"there is one in {before.machine.place} already", hint=hint, code="monitor_machine")
    echo_err(f"monitor's machine: {wanted.text()}\n{_LOGINS}")
    confirm("Rent it?" if before is None else "Install and start its monitor again?", yes=yes)
    write_installable(places.monitor_code, _EXTRAS)
    _write_home(app, places.monitor_code / "home")
    since_at = clock(app)() if before is None else before.since_at
    note_hired(places.monitor_machine, Hired(wanted, since_at, secrets))  # before it can cost
    try:
        _host().begin(setup, monitor, values)
    except BaseException:
        echo_err("what was rented for it costs until `plan monitor machine down`")
        raise
    hired = Hired(wanted, since_at, secrets)
    if output == "json":
        _emit(app, _host().look(), hired)
        return
    click.echo(hired.text(clock(app)()))


@machine.command("show", epilog="\b\nExample:\n  plan monitor machine show -o json")
@output_option("table", "json")
@pass_app
def show_command(app: App, output: str) -> None:
    """Show whether the machine is there, and what it has cost."""
    hired = read_hired(Places(app.directories.state).monitor_machine)
    host = _host().look()
    if output == "json":
        _emit(app, host, hired)
        return
    click.echo(_shown(host, hired, clock(app)()))


@machine.command(
    "run",
    context_settings={"ignore_unknown_options": True},
    epilog="\b\nExamples:\n  plan monitor machine run -- status\n  plan monitor machine run -- cancel RUN",
)
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_app
def run_command(app: App, arguments: tuple[str, ...]) -> None:
    """Run `plan ARGUMENTS` on the machine; its answer comes when it has ended."""
    if arguments[0] == "watch" or not {"-f", "--follow"}.isdisjoint(arguments):
        raise UsageError(
            "what goes on and on cannot be shown from there", hint="leave out --follow, or use status"
        )
    with tempfile.TemporaryDirectory(prefix="plan-there-") as nothing:
        code = answer_of(app, arguments, Path(nothing), "by-hand")
    sys.exit(code)


@machine.command("down", epilog="\b\nExample:\n  plan monitor machine down")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def down_command(app: App, yes: bool, output: str) -> None:
    """Give the machine back, with its ledger; runs that it watched go on unwatched."""
    tell_hired(app)
    if _host().look().state == "up":
        with tempfile.TemporaryDirectory(prefix="plan-there-") as nothing:
            hired = read_hired(Places(app.directories.state).monitor_machine)
            lines = _lines(hired, ["status"], Path(nothing), "by-hand", {})
            for answer in read_answers(lines):
                if answer.line:
                    echo_err(f"there: {answer.line}")
    confirm("Give it back? What it knows of its runs is lost (`plan runs adopt` finds them again).", yes=yes)
    _host().end()
    Places(app.directories.state).monitor_machine.unlink(missing_ok=True)
    if output == "json":
        _emit(app, _host().look(), None)
        return
    click.echo("the monitor's machine is given back")


def _write_home(app: App, home: Path) -> None:
    """Settings and prices as they are here: what is launched there is priced as here."""
    from planner.pricebook import cached_prices

    here, there = app.directories, home / "cache"
    there.mkdir(parents=True)
    for path, target in (
        (here.config_file, home / "config.yaml"),
        (cached_prices(here.cache), cached_prices(there)),
    ):
        if path.is_file():
            shutil.copy2(path, target)


def tell_hired(app: App) -> None:
    """Say on stderr since when the machine is there and what it has cost, if one was rented."""
    hired = read_hired(Places(app.directories.state).monitor_machine)
    if hired is not None:
        echo_err(hired.text(clock(app)()))


def answer_of(app: App, arguments: Sequence[str], directory: Path, folder: str) -> int:
    """Run `plan` on the machine, its words as if it ran here; the exit code.

    Args:
        app: The application.
        arguments: Of `plan`.
        directory: Files that go along.
        folder: Name of their place there.

    Raises:
        UsageError: The machine is not there.
    """
    from providers.skypilot_start import secret_values

    need_host()
    hired = read_hired(Places(app.directories.state).monitor_machine)
    secrets = secret_values(() if hired is None else hired.secrets)
    return _told(_lines(hired, arguments, directory, folder, secrets))


def _lines(
    hired: Hired | None, arguments: Sequence[str], directory: Path, folder: str, secrets: Mapping[str, str]
) -> Iterable[str]:
    machine = None if hired is None else hired.machine
    return _host().lines(command_document(arguments, directory, folder, machine, _server()), secrets)


def need_host() -> None:
    """Nothing if the machine is there with its monitor at work.

    Raises:
        UsageError: It is not.
    """
    host = _host().look()
    if host.state != "up":
        hint = "`plan monitor machine up` rents one, and starts its monitor again"
        raise UsageError(f"the monitor's machine is {_STATES[host.state]}", hint=hint, code="no_monitor")


def _told(lines: Iterable[str]) -> int:
    code = 1  # SkyPilot's words are not ours: without an end it has failed
    for answer in read_answers(lines):
        if answer.exit_code is not None:
            code = answer.exit_code
        else:
            click.echo(answer.line, err=not answer.on_stdout)
    return code


_STATES = {
    "absent": "not there",
    "starting": "not up yet",
    "up": "up",
    "idle": "up, but no monitor runs on it",
    "stopped": "stopped",
}


def _shown(host: Host, hired: Hired | None, now: str) -> str:
    state = f"the monitor's machine is {_STATES[host.state]}{f' in {host.place}' if host.place else ''}"
    return state if hired is None else f"{state}\n{hired.text(now)}"


def _show_tasks(
    app: App, wanted: MonitorMachine, tasks: tuple[dict[str, Any], dict[str, Any]], output: str
) -> None:
    from providers.skypilot_task import as_yaml

    written = "---\n".join(as_yaml(task) for task in tasks)
    if output == "json":
        hired = read_hired(Places(app.directories.state).monitor_machine)
        asked = {"machine": wanted._asdict(), "backend_document": written}
        _emit(app, None, hired, asked)
        return
    click.echo(f"# {wanted.text()}\n{written}", nl=False)


def _emit(app: App, host: Host | None, hired: Hired | None, more: Mapping[str, Any] | None = None) -> None:
    usd = None if hired is None else hired.usd(clock(app)())
    document = {
        "state": None if host is None else host.state,
        "place": None if host is None else host.place or None,
        "since_at": None if hired is None else hired.since_at,
        "cost_usd": None if usd is None else f"{usd:.2f}",
        "machine": None if hired is None else hired.machine._asdict(),
        "backend_document": None,
    }
    emit_json("monitor_machine", document | dict(more or {}), now=app.now())


def _host() -> SkyPilotMonitorHost:
    from providers.skypilot_monitor import SkyPilotMonitorHost

    return SkyPilotMonitorHost(NAME)


def _server() -> str | None:
    from providers.skypilot_monitor import server_elsewhere

    return server_elsewhere()
