"""`plan report`: estimate against actual, base against tuned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.report_text import render_report
from providers.errors import StorageError

if TYPE_CHECKING:
    from jobs.history import History
    from planner.runs import Run


@click.command(
    "report",
    epilog="\b\nExamples:\n  plan report goat-1\n  plan report goat-1 --plot goat.svg\n"
    "  plan report goat-1 --html goat.html",
)
@click.argument("run", shell_complete=complete_run)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw loss and metric against steps: .svg or .png.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write it as one page that opens offline, curves included.",
)
@output_option("table", "json")
@pass_app
def command(app: App, run: str, plot: Path | None, html: Path | None, output: str) -> None:
    """Compare RUN with its estimate, and the tuned model with its base."""
    from planner.report import report_document

    with open_ledger(app) as store:
        found, _ = refresh(app, store, store.find(run))
    offers = () if found.terms.infra == "local" else app.snapshot(found.terms.infra).offers
    document = report_document(found, _history(found), offers=offers, paid_ahead_usd=_paid_ahead(app, found))
    if plot is not None:
        from planner.cli.report_plot import plot_report

        plot_report(document, plot)
    if html is not None:
        from planner.cli.report_page import write_page

        write_page(document, found, html, now=app.now())
    if output == "json":
        emit_json("report", document, now=app.now())
    else:
        click.echo(render_report(document))


def _history(run: Run) -> History | None:
    from planner.report import read_history

    try:
        return read_history(run)
    except StorageError as error:
        echo_err(f"losses and evaluations are left out: {error.message}")
        return None


def _paid_ahead(app: App, run: Run) -> str | None:
    """What the capacity cost that was reserved for the run, None if none was."""
    from planner.cli.reserve_desk import open_book
    from planner.money import usd_text_of_micro

    with open_book(app) as book:
        paid = [row.paid_micro_usd for row in book.all() if row.run_id == run.run_id]
    return usd_text_of_micro(paid[0]) if paid and paid[0] is not None else None
