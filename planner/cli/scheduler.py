"""`plan scheduler`: the process that buys and starts what is due, or one turn of it for cron."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.errors import PolicyError
from planner.places import Places
from planner.runs import utc_text
from planner.units import parse_duration_s
from providers.errors import CleanupPendingError, TuneplanError

if TYPE_CHECKING:
    from planner.reserve.agenda import Done
    from planner.reserve.reservations import Reservation
    from providers.offers import Offer

_EXAMPLE = """\b
Examples:
  plan scheduler run
  plan scheduler tick            one turn, for cron or CI
  plan scheduler status -o json
  plan scheduler unit > ~/.config/systemd/user/tuneplan.service
"""
_TICK_S = 3 * 3600.0
#: A heartbeat older than so many of its own intervals, and than this, is that of a dead scheduler.
_DEAD_AFTER, _LEAST_DEAD_S = 4, 20.0


@click.group("scheduler", epilog=_EXAMPLE, short_help="Buy and start what is due: as a service, or one turn")
def command() -> None:
    """Buy and start what is due.

    What a person should hear of (missed, failed, unknown, bought) is given to the program `notify` in the
    configuration directory, as JSON on its stdin, if there is one.
    """


@command.command("run", epilog=_EXAMPLE)
@click.option("--every", default="15s", show_default=True, metavar="DURATION", help="Look at the ledger.")
@click.option(
    "--reservations-every",
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="Ask providers about open ones.",
)
@pass_app
def run(app: App, every: str, reservations_every: str) -> None:
    """Run until it is stopped (SIGTERM or Ctrl-C). Runs that it started go on without it."""
    from planner.cli.reserve_desk import parsed
    from planner.reserve.children import run_plan
    from planner.reserve.daemon import Daemon, Rhythm, only_one, stopped_by_signals

    rhythm = Rhythm(
        parsed("--every", parse_duration_s, every),
        parsed("--reservations-every", parse_duration_s, reservations_every),
    )

    def work() -> int:
        done = run_plan(["scheduler", "tick"], timeout_s=_TICK_S)
        for line in (done.stdout + done.stderr).splitlines():
            _say(line)
        return done.returncode

    ledger = Places(app.directories.state).ledger
    with only_one(ledger):
        stop = stopped_by_signals()
        _say(f"scheduler for {ledger}, every {every}")
        Daemon(ledger, work, rhythm, _say).run(stop)
    _say("ended")


@command.command("tick", epilog="\b\nExample:\n  */5 * * * * plan scheduler tick")
@output_option("table", "json")
@pass_app
def tick(app: App, output: str) -> None:
    """Do all that is due now, once; exit 1 if something could not be done and is tried again."""
    done = _tick(app)
    if output == "json":
        emit_json("scheduler_tick", _tick_document(done), now=app.now())
    else:
        for line in _tick_lines(done):
            click.echo(line)
    if done.errors:
        raise TuneplanError(f"not done yet: {'; '.join(done.errors)}", hint="the next tick tries again")


@command.command("status", epilog="\b\nExample:\n  plan scheduler status -o json")
@output_option("table", "json")
@pass_app
def status(app: App, output: str) -> None:
    """Say whether a scheduler lives and what waits for it; exit 9 if something waits and none lives."""
    document = _status(app)
    if output == "json":
        emit_json("scheduler_status", document, now=app.now())
    else:
        click.echo(_status_text(document))
    if document["needs_person"]:
        raise CleanupPendingError("a reservation needs a person", hint="`plan reserve list` says which")
    if document["waiting"] and not document["alive"]:
        raise PolicyError("something waits for a scheduler and none is alive", hint="`plan scheduler run`")


@command.command(
    "unit", epilog="\b\nExample:\n  plan scheduler unit > ~/.config/systemd/user/tuneplan.service"
)
def unit() -> None:
    """Print a systemd user unit."""
    plan = shutil.which("plan") or str(Path(sys.executable).with_name("plan"))
    click.echo(_UNIT.format(plan=plan))


@command.command(
    "containerfile",
    epilog="\b\nExample:\n  plan scheduler containerfile | podman build -t tuneplan-scheduler -f - .",
)
def containerfile() -> None:
    """Print a container file; mount a local disk at /state, never a network disk."""
    from planner import __version__

    click.echo(_CONTAINERFILE.format(version=__version__))


_UNIT = """\
[Unit]
Description=tuneplan scheduler
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={plan} scheduler run
Restart=always
RestartSec=10
# runs on this machine go on when the scheduler is stopped
KillMode=process
# credentials: EnvironmentFile=%h/.config/tuneplan/environment

[Install]
WantedBy=default.target
"""

_CONTAINERFILE = """\
FROM python:3.12-slim
RUN pip install --no-cache-dir 'tuneplan[launch,s3,schedule]=={version}' && useradd --create-home plan
USER plan
ENV PLAN_HOME=/state
VOLUME /state
ENTRYPOINT ["plan", "scheduler", "run"]
"""


def _say(line: str) -> None:
    echo_err(line)


def _tick(app: App) -> Done:
    from planner.cli.reserve_desk import surroundings
    from planner.reserve.agenda import Office, do_all, start_in
    from planner.reserve.apis import open_api
    from planner.reserve.book import ReservationBook
    from planner.reserve.children import PlanStarter
    from planner.reserve.firing import Firer
    from planner.reserve.purchase import Buyer
    from planner.reserve.schedule_book import ScheduleBook

    ledger, around = Places(app.directories.state).ledger, surroundings(app)
    with ReservationBook(ledger) as reservations, ScheduleBook(ledger) as schedules:
        buyer = Buyer(reservations, lambda name: open_api(name, around), app.now)
        firer = Firer(schedules, PlanStarter(ledger), app.now)
        hook = app.directories.config / "notify"
        start, machine = partial(start_in, ledger), partial(_machine, app)
        return do_all(Office(ledger, buyer, firer, hook, start, machine))


def _machine(app: App, row: Reservation) -> Offer | None:
    """What the backend gave the run of a reservation; this machine is what it is."""
    from planner.cli.desk import open_desk_of

    if row.run_id is None or row.launch is None or row.launch.infra == "local":
        return None
    with open_desk_of(app, row.run_id) as (desk, run):
        return desk.launcher.status(run.run_id).offer


def _tick_document(done: Done) -> dict[str, Any]:
    from planner.cli.schedule import firing_document
    from planner.reserve.documents import reservation_document

    return {
        "firings": [firing_document(row) for row in done.firings],
        "reservations": [reservation_document(row, ()) for row in done.reservations],
        "notices": [{"at": row.at, "subject": row.subject, "text": row.text} for row in done.told],
        "errors": list(done.errors),
    }


def _tick_lines(done: Done) -> list[str]:
    return [
        *(f"schedule {row.schedule_id}: {row.state}: {row.reason} ({row.run_id})" for row in done.firings),
        *(f"reservation {row.reservation_id}: {row.state}: {row.state_reason}" for row in done.reservations),
        *(f"notice {row.at} {row.subject}: {row.text}" for row in done.told),
    ]


def _status(app: App) -> dict[str, Any]:
    from planner.reserve.book import ReservationBook
    from planner.reserve.schedule_book import ScheduleBook

    ledger, now = Places(app.directories.state).ledger, app.now()
    with ReservationBook(ledger) as reservations, ScheduleBook(ledger) as schedules:
        beats = schedules.heartbeats()
        active = [row for row in schedules.all() if row.state == "active"]
        firings, rows, untold = schedules.open_firings(), reservations.open(), reservations.untold()
    newest = next(iter(beats), None)
    age_s = None if newest is None else (now - datetime.fromisoformat(newest.beat_at)).total_seconds()
    alive = (
        newest is not None
        and newest.ended_at is None
        and age_s is not None
        and age_s < max(_DEAD_AFTER * newest.every_s, _LEAST_DEAD_S)
    )
    overdue = [row for row in active if row.next_at is not None and row.next_at < utc_text(now)]
    return {
        "alive": alive,
        "heartbeat_age_s": age_s,
        "scheduler": None if newest is None else asdict(newest),
        "schedules_active": len(active),
        "schedules_overdue": len(overdue),
        "next_at": min((row.next_at for row in active if row.next_at), default=None),
        "firings_open": len(firings),
        "reservations_open": len(rows),
        "needs_person": sum(row.needs_person for row in rows),
        "notices_untold": len(untold),
        "waiting": bool(active or firings or rows),
    }


def _status_text(document: dict[str, Any]) -> str:
    beat, age_s = document["scheduler"], document["heartbeat_age_s"]
    life = "no scheduler was ever run here"
    if beat is not None:
        word = "alive" if document["alive"] else "ended" if beat["ended_at"] else "dead"
        life = f"{word}: pid {beat['pid']} on {beat['host']}, heartbeat {age_s:.0f} s ago"
    return (
        f"scheduler     {life}\n"
        f"schedules     {document['schedules_active']} active, {document['schedules_overdue']} overdue,"
        f" {document['firings_open']} being started; next at {document['next_at'] or '-'}\n"
        f"reservations  {document['reservations_open']} open, {document['needs_person']} need a person\n"
        f"notices       {document['notices_untold']} not passed on yet"
    )
