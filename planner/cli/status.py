"""`plan status`: how one run is, or all that are not over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.asking import late_places
from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import clock, open_ledger, refresh
from planner.cli.notify_text import delivery_document, delivery_text
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.run_text import render_active, render_status
from planner.places import Places
from planner.run_document import run_document, warning_document, warnings_of

if TYPE_CHECKING:
    from planner.outbox import Delivery


@click.command("status", epilog="\b\nExample:\n  plan status goat-1 -o json\n  plan status")
@click.argument("run", required=False, shell_complete=complete_run)
@click.option("--refresh", "ask", is_flag=True, help="Ask its backend now, unless a monitor is at work.")
@output_option("table", "json")
@pass_app
def command(app: App, run: str | None, ask: bool, output: str) -> None:
    """Show how RUN is; the beginning of its id is enough. Without RUN: all that are not over, from the ledger.

    Of a run that was given to a monitor, and of any while a monitor is at work, the ledger alone is read; `observed_at`
    says how old that is. Others are watched by the commands that ask for them, as this one.
    """
    if run is None:
        _all(app, output)
        return
    with open_ledger(app) as store:
        known, beat = store.find(run), store.monitor()
        found, pids = refresh(app, store, known, ask=ask or known.terms.monitor == "local")
        avoided = late_places(store, found, clock(app)())
        warned = warnings_of(found, store.events(found.run_id))
    untold = _undelivered(app, found.run_id)
    if output == "json":
        document = run_document(found, now=app.now(), pids=pids, avoided=avoided)
        document["warnings"] = [warning_document(event) for event in warned]
        document["undelivered"] = [delivery_document(row) for row in untold]
        emit_json("status", {"run": document}, now=app.now())
        return
    click.echo(render_status(found, pids, app.now(), avoided, warned))
    if found.terms.monitor != "local" and not found.final and (beat is None or not beat.lives(clock(app)())):
        from planner.cli.monitor import monitor_text

        echo_err(f"{monitor_text(beat, clock(app)())}; `plan status {found.run_id} --refresh` asks now")
    for row in untold:
        echo_err(delivery_text(row))


def _undelivered(app: App, run_id: str | None = None) -> list[Delivery]:
    from planner.outbox import Outbox

    with Outbox(Places(app.directories.state).ledger) as outbox:
        return outbox.undelivered(run_id)


def _all(app: App, output: str) -> None:
    from planner.adopt import cut_off
    from planner.cli.monitor import monitor_text
    from planner.cli.monitor_machine import tell_hired

    with open_ledger(app) as store:
        runs, beat = store.active_runs(), store.monitor()
        unfinished = cut_off(store, clock(app)())
    if output == "json":
        emit_json(
            "runs",
            {"runs": [run_document(run, now=app.now(), attempts=False) for run in runs]},
            now=app.now(),
        )
        return
    click.echo(render_active(runs, app.now()))
    untold = _undelivered(app)
    if untold:
        echo_err(f"{len(untold)} messages were not delivered: `plan notify list --undelivered` shows why")
    for uri in unfinished:
        echo_err(
            f"an adoption was cut off, nobody watches its run: `plan runs adopt '{uri}'` goes on with it"
        )
    click.echo(monitor_text(beat, clock(app)()), err=True)
    tell_hired(app)
