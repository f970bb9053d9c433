"""`plan logs`: what the worker wrote."""

from __future__ import annotations

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import launcher, open_ledger, refresh


@click.command("logs", epilog="\b\nExample:\n  plan logs goat-1 --follow")
@click.argument("run", shell_complete=complete_run)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--stored", is_flag=True, help="From the object store, even where its machine has it.")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines.")
@pass_app
def command(app: App, run: str, follow: bool, stored: bool, tail: int | None) -> None:
    """Print the output of RUN's worker, all attempts, oldest first.

    It comes from its machine or, once that is gone, from the object store, where the worker keeps it with the values of
    secrets masked.
    """
    from collections import deque

    from planner.run_logs import lines_of

    with open_ledger(app) as store:
        found = store.find(run)

    def is_over() -> bool:
        with open_ledger(app) as store:
            now, _ = refresh(app, store, store.find(found.run_id), ask=True)
        return now.final or now.stuck

    backend = launcher(app, found.terms.infra)
    lines = lines_of(found, backend, is_over, follow=follow, stored=stored)
    for line in deque(lines, maxlen=tail) if tail is not None and not follow else lines:
        click.echo(line)
