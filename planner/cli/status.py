"""`plan status`: how one run is, or all that are not over."""

from __future__ import annotations

import click

from planner.asking import late_places
from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import clock, open_ledger, refresh
from planner.cli.output import emit_json, output_option
from planner.cli.run_text import render_active, render_status
from planner.run_document import run_document


@click.command("status", epilog="\b\nExample:\n  plan status goat-1 -o json\n  plan status")
@click.argument("run", required=False, shell_complete=complete_run)
@output_option("table", "json")
@pass_app
def command(app: App, run: str | None, output: str) -> None:
    """Show how RUN is; the beginning of its id is enough. Without RUN: all that are not over, from the ledger.

    While a monitor is at work the ledger alone is read; `observed_at` says how old that is.
    """
    if run is None:
        _all(app, output)
        return
    with open_ledger(app) as store:
        found, pids = refresh(app, store, store.find(run), ask=True)
        avoided = late_places(store, found, clock(app)())
    if output == "json":
        emit_json("status", {"run": run_document(found, pids=pids, avoided=avoided)}, now=app.now())
    else:
        click.echo(render_status(found, pids, app.now(), avoided))


def _all(app: App, output: str) -> None:
    from planner.cli.monitor import monitor_text

    with open_ledger(app) as store:
        runs, beat = store.active_runs(), store.monitor()
    if output == "json":
        emit_json("runs", {"runs": [run_document(run, attempts=False) for run in runs]}, now=app.now())
        return
    click.echo(render_active(runs, app.now()))
    click.echo(monitor_text(beat, clock(app)()), err=True)
