"""`plan logs`: what the worker wrote."""

from __future__ import annotations

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import launcher, open_ledger


@click.command("logs", epilog="\b\nExample:\n  plan logs goat-1 --follow")
@click.argument("run", shell_complete=complete_run)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines.")
@pass_app
def command(app: App, run: str, follow: bool, tail: int | None) -> None:
    """Print the output of RUN's worker, all attempts, oldest first."""
    from collections import deque

    with open_ledger(app) as store:
        found = store.find(run)
    run_id, backend = found.run_id, launcher(app, found.terms.infra)
    if tail is not None and not follow:
        for line in deque(backend.logs(run_id), maxlen=tail):
            click.echo(line)
        return
    for line in backend.logs(run_id, follow=follow):
        click.echo(line)
