"""`plan monitor`: one process that watches all runs of this ledger."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock, launcher, open_desk, open_ledger
from planner.cli.output import echo_err, emit_json, output_option
from planner.places import Places
from planner.runs import MonitorBeat
from planner.units import parse_duration_s
from providers.errors import StorageError, UsageError

if TYPE_CHECKING:
    from planner.launch import Desk
    from providers.offers import Offer

_PRICES_S = 240.0
_UNIT = """\
[Unit]
Description=tuneplan: watches runs, holds them to their caps, restarts them
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={plan} monitor run
Environment=PLAN_HOME={home}
Restart=always
RestartSec=5

[Install]
WantedBy=default.target
"""
_CONTAINERFILE = """\
FROM docker.io/library/python:3.11-slim
RUN pip install --no-cache-dir 'tuneplan[launch,s3]'
ENV PLAN_HOME=/plan
VOLUME /plan
ENTRYPOINT ["plan", "monitor", "run"]
"""


@click.group("monitor", epilog="\b\nExample:\n  plan monitor run --every 10s")
def command() -> None:
    """Watch all runs in one process: limits, restarts after preemptions, what `plan status` shows."""


@command.command("run", epilog="\b\nExample:\n  plan monitor run --every 10s\n  plan monitor run --once")
@click.option(
    "--every", default="10s", show_default=True, metavar="DURATION", help="Time between two rounds."
)
@click.option(
    "--retry-delay", default="15s", show_default=True, metavar="DURATION", help="Before the first restart."
)
@click.option("--once", is_flag=True, help="One round, then end; for cron.")
@pass_app
def run_command(app: App, every: str, retry_delay: str, once: bool) -> None:
    """Watch every run that is not over, until interrupted.

    Runs launched with `--monitor service` are started again when they were taken away. It may be killed at any
    moment: the next one goes on from the ledger.
    """
    from planner.service import Habits, look_at_all

    every_s, delay_s = _seconds(every), _seconds(retry_delay)
    habits = Habits(
        retry_delay_s=delay_s,
        settle_s=max(6 * every_s, 1.0),
        offers=_offers(app),
        price_limit=app.price_limit(),
    )
    over = threading.Event()
    now = clock(app)
    with _alone(app), open_desk(app) as desk, _ended_by_signals(over):
        desks: dict[str, Desk] = {}

        def desk_of(infra: str) -> Desk:
            if infra not in desks:
                desks[infra] = replace(desk, launcher=launcher(app, infra))
            return desks[infra]

        host = socket.gethostname()
        beat = MonitorBeat(f"{host}/{os.getpid()}", os.getpid(), host, now(), now(), every_s)
        while not over.is_set():
            desk.store.beat(replace(beat, beat_at=now()))
            look_at_all(desk_of, desk, habits, echo_err)
            if once or over.wait(every_s):
                break
        desk.store.beat(replace(beat, beat_at=now(), ended_at=now()))


@command.command("show", epilog="\b\nExample:\n  plan monitor show -o json")
@output_option("table", "json")
@pass_app
def show_command(app: App, output: str) -> None:
    """Show whether a monitor is at work."""
    with open_ledger(app) as store:
        beat = store.monitor()
    lives = beat is not None and beat.lives(clock(app)())
    if output == "json":
        emit_json(
            "monitor", {"lives": lives, "monitor": None if beat is None else asdict(beat)}, now=app.now()
        )
    else:
        click.echo(monitor_text(beat, clock(app)()))


@command.command("unit", epilog="\b\nExample:\n  plan monitor unit > ~/.config/systemd/user/tuneplan.service")
@pass_app
def unit_command(app: App) -> None:
    """Print a systemd unit that keeps the monitor at work."""
    program = Path(sys.argv[0]).absolute()
    click.echo(_UNIT.format(plan=program, home=app.directories.state.parent), nl=False)


@command.command("container", epilog="\b\nExample:\n  plan monitor container > Containerfile")
def container_command() -> None:
    """Print a Containerfile of the monitor; its ledger lies in the volume /plan."""
    click.echo(_CONTAINERFILE, nl=False)


def monitor_text(beat: MonitorBeat | None, now: str) -> str:
    """One line on the monitor."""
    if beat is None:
        return "no monitor: runs are looked at when a command asks (`plan monitor run` starts one)"
    where = f"monitor {beat.pid} on {beat.host}"
    if beat.lives(now):
        return f"{where} is at work, last round {beat.beat_at}"
    return f"{where} {'ended' if beat.ended_at else 'was last seen'} at {beat.ended_at or beat.beat_at}"


def _offers(app: App) -> Callable[[], Iterable[Offer]]:
    """The prices in use, read again every few minutes: somebody may have fetched newer ones."""
    kept: list[tuple[float, tuple[Offer, ...]]] = []

    def offers() -> tuple[Offer, ...]:
        if not kept or time.monotonic() - kept[-1][0] > _PRICES_S:
            kept[:] = [(time.monotonic(), app.snapshot("clouds").offers)]
        return kept[-1][1]

    return offers


def _seconds(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


@contextmanager
def _ended_by_signals(over: threading.Event) -> Iterator[None]:
    """A round is finished before the process ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: over.set())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _alone(app: App) -> Iterator[None]:
    """One monitor a ledger; the lock of a killed one is gone at once."""
    path = Places(app.directories.state).ledger.with_name("monitor.lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fcntl.flock(held.enter_context(path.open("ab")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "`plan monitor show` says which"
            raise UsageError("a monitor is at work already", hint=hint, code="monitor_runs") from None
        except OSError as error:
            raise StorageError(f"cannot lock {path}: {error.strerror or error}") from error
        yield
