"""`plan wait`: until a run is over."""

from __future__ import annotations

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger
from planner.cli.output import emit_json, output_option
from planner.cli.waiting import raise_for, wait_for_end
from planner.run_document import run_document


@click.command("wait", epilog="\b\nExample:\n  plan wait goat-1 && plan report goat-1")
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Give up after this long (exit 1)."
)
@output_option("table", "json")
@pass_app
def command(app: App, run: str, timeout: float | None, output: str) -> None:
    """Wait until RUN is over: exit 0 succeeded, 8 capped, 10 failed or preempted, 11 cancelled, 12 worse
    on the general hold-out than evaluate.guard allows."""
    with open_ledger(app) as store:
        run_id = store.find(run).run_id
    ended = wait_for_end(app, run_id, timeout)
    if output == "json":
        emit_json("status", {"run": run_document(ended, now=app.now())}, now=app.now())
    raise_for(ended)
