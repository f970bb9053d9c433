"""`plan status`: how one run is."""

from __future__ import annotations

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option
from planner.cli.run_text import render_status
from planner.run_document import run_document


@click.command("status", epilog="\b\nExample:\n  plan status goat-1 -o json")
@click.argument("run", shell_complete=complete_run)
@output_option("table", "json")
@pass_app
def command(app: App, run: str, output: str) -> None:
    """Show how RUN is; the beginning of its id is enough."""
    with open_ledger(app) as store:
        found, pids = refresh(app, store, store.find(run), ask=True)
    if output == "json":
        emit_json("status", {"run": run_document(found, pids=pids)}, now=app.now())
    else:
        click.echo(render_status(found, pids, app.now()))
