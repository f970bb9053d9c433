"""`plan monitor`: one process that watches all runs of this ledger."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock, launcher, open_desk, open_ledger
from planner.cli.monitor_machine import machine, tell_hired
from planner.cli.output import echo_err, emit_json, output_option
from planner.places import Places
from planner.runs import MonitorBeat
from planner.store import Store
from planner.units import parse_duration_s
from providers.errors import TuneplanError, UsageError
from providers.process_lock import held

if TYPE_CHECKING:
    from planner.launch import Desk
    from planner.runs import Run
    from planner.service import Look
    from providers.launcher import Launcher
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
#: Runs that are looked at side by side: most of a look is waiting for a backend or a store.
_AT_ONCE = 8
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
    with _alone(app), open_desk(app) as desk, _ended_by_signals(over), _Looks(app, desk) as looks:
        host = socket.gethostname()
        beat = MonitorBeat(f"{host}/{os.getpid()}", os.getpid(), host, now(), now(), every_s)
        while not over.is_set():
            desk.store.beat(replace(beat, beat_at=now()))
            look_at_all(looks.desk, desk, habits, echo_err, looks.side_by_side)
            looks.deliver()
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
        tell_hired(app)


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


command.add_command(machine)


class _Looks:
    """Threads that look at runs, each with a ledger of its own, and one that tells people."""

    def __init__(self, app: App, desk: Desk) -> None:
        """No thread yet: they come as runs do."""
        self._app = app
        self._desk = desk
        self._own = threading.local()
        self._held = ExitStack()
        self._holding = threading.Lock()
        self._launchers: dict[str, Launcher] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "look")
        self._teller = ThreadPoolExecutor(1, "tell")
        self._telling: Future[None] | None = None

    def __enter__(self) -> Self:
        """The looks themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the threads; what is being sent is waited for."""
        self._pool.shutdown()
        self._teller.shutdown()
        self._held.close()

    def side_by_side(self, look: Callable[[Run], Look], runs: list[Run]) -> Iterable[Look]:
        """Look at several at once; a single one needs no thread."""
        return self._pool.map(look, runs) if len(runs) > 1 else map(look, runs)

    def desk(self, infra: str) -> Desk:
        """This thread's desk of a backend."""
        with self._holding:
            if infra not in self._launchers:
                self._launchers[infra] = launcher(self._app, infra)
            store = self._store()
        return replace(self._desk, store=store, launcher=self._launchers[infra])

    def _store(self) -> Store:
        if threading.current_thread() is threading.main_thread():
            return self._desk.store
        own: Store | None = getattr(self._own, "store", None)
        if own is None:
            own = self._own.store = self._held.enter_context(Store(self._desk.store.path, shared=True))
        return own

    def deliver(self) -> None:
        """Send messages that are due, unless those of the round before are still on their way."""
        if self._telling is None or self._telling.done():
            self._telling = self._teller.submit(self._tell)

    def _tell(self) -> None:
        from planner.cli.notify import deliver_due

        try:
            for row in deliver_due(self._app):
                if row.error is not None:
                    echo_err(f"not delivered: {row.recipient}: {row.title}: {row.error}")
        except TuneplanError as error:
            echo_err(f"messages: {error.message}")


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
    hint = "`plan monitor show` says which"
    with held(path, UsageError("a monitor is at work already", hint=hint, code="monitor_runs")):
        yield
