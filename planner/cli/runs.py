"""`plan runs`: every run."""

from __future__ import annotations

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option
from planner.cli.run_text import render_runs
from planner.run_document import run_document
from planner.runs import STATES, Run


@click.command("runs", epilog="\b\nExample:\n  plan runs --project support -o json")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; repeatable.")
@click.option("--active", is_flag=True, help="Only runs that are not over.")
@click.option("--project", help="Only this project.")
@click.option("--owner", help="Only this owner.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    states: tuple[str, ...],
    active: bool,
    project: str | None,
    owner: str | None,
    limit: int,
    output: str,
) -> None:
    """List runs, newest first."""

    def wanted(run: Run) -> bool:
        return (
            (not states or run.state in states)
            and not (active and run.final)
            and (project is None or run.terms.project == project)
            and (owner is None or run.terms.owner == owner)
        )

    with open_ledger(app) as store:
        fresh = [refresh(app, store, run) for run in store.all_runs()]
    found = [(run, pids) for run, pids in fresh if wanted(run)][:limit]
    if output == "json":
        documents = [run_document(run, pids=pids, attempts=False) for run, pids in found]
        emit_json("runs", {"runs": documents}, now=app.now())
    else:
        click.echo(render_runs([run for run, _ in found]))
