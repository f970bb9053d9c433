"""`plan reserve`: what capacity is for sale for a job, and the reservations that were made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.reserve_buy import buy, cancel, schedule, settle
from planner.cli.reserve_desk import asked, job_of, open_book, reservation_ids, window_options
from planner.errors import NothingFitsError

if TYPE_CHECKING:
    from planner.reserve.reservations import Reservation

_EXAMPLE = """\b
Examples:
  plan reserve offers spec.yaml --by 2027-01-15 --calendar
  plan reserve advise spec.yaml --by 2027-01-15
  plan reserve buy spec.yaml --offer o-498d34024f3e
  plan reserve list -o json
"""


@click.group("reserve", epilog=_EXAMPLE, short_help="Find, buy and watch capacity for a time to come")
def command() -> None:
    """Find, buy and watch capacity for a time to come. Money that is spent here does not come back."""


@command.command("offers", epilog="\b\nExample:\n  plan reserve offers spec.yaml --by 2027-01-15 --calendar")
@click.argument("spec", type=click.Path(path_type=Path))
@window_options
@click.option("--calendar", is_flag=True, help="A table of start dates and regions instead of a list.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the calendar into an .svg or .png.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Lines, 0 for all.")
@output_option("table", "json")
@pass_app
def offers(
    app: App, /, spec: Path, calendar: bool, plot: Path | None, limit: int, output: str, **window: Any
) -> None:
    """List capacity that is for sale for the job of SPEC: price, hours, and what the job costs without it."""
    from planner.cli.reserve_text import render_calendar, render_offers
    from planner.reserve.documents import offers_document

    job = job_of(app, spec, window)
    found, sources = asked(app, job, window)
    if plot is not None:
        from planner.cli.reserve_plot import plot_calendar

        plot_calendar(found, plot)
        echo_err(f"calendar drawn into {plot}")
    if output == "json":
        sized = [one for sizes in job.sized.values() for one in sizes]
        document = offers_document(sized, found, sources, job.others, job.deadline)
        emit_json("reserve_offers", document, now=app.now())
    elif calendar:
        click.echo(render_calendar(found))
    else:
        click.echo(render_offers(found, sources, job, limit, app.now()))
    if not found:
        said = "; ".join(dict.fromkeys(f"{row.provider}: {row.message or 'nothing'}" for row in sources))
        raise NothingFitsError(f"nothing that suits is for sale ({said})")


@command.command(
    "advise", epilog="\b\nExample:\n  plan reserve advise spec.yaml --by 2027-01-15 --late-cost 5000usd"
)
@click.argument("spec", type=click.Path(path_type=Path))
@window_options
@click.option("--late-cost", metavar="USD", help="What it costs you not to be done in time.")
@click.option(
    "--shortage",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="Chance that no machine can be had on demand then; nobody publishes it.",
)
@output_option("table", "json")
@pass_app
def advise(
    app: App, /, spec: Path, late_cost: str | None, shortage: float, output: str, **window: Any
) -> None:
    """Say whether to buy now, to wait or not to reserve, and what it costs to be wrong."""
    from planner.cli.reserve_advice import answer

    answer(app, spec, late_cost, shortage, output, window)


@command.command("list", epilog="\b\nExample:\n  plan reserve list -o json")
@click.option("--all", "every", is_flag=True, help="Also those that are over.")
@output_option("table", "json")
@pass_app
def list_command(app: App, every: bool, output: str) -> None:
    """List reservations; JSON always holds all of them."""
    from planner.cli.reserve_text import render_reservations

    with open_book(app) as book:
        rows, histories = book.all(), book.histories()
    if output == "json":
        _emit(app, rows, histories)
        return
    click.echo(render_reservations([row for row in rows if every or not row.final or row.needs_person]))


@command.command("show", epilog="\b\nExample:\n  plan reserve show llama-may-k4x2p")
@click.argument("reservation", shell_complete=reservation_ids)
@output_option("table", "json")
@pass_app
def show(app: App, reservation: str, output: str) -> None:
    """Show one reservation with its history."""
    from planner.cli.reserve_text import render_reservation

    with open_book(app) as book:
        row = book.get(reservation)
        history = book.events(row.reservation_id)
    if output == "json":
        _emit(app, [row], {row.reservation_id: history})
    else:
        click.echo(render_reservation(row, history))


def _emit(app: App, rows: list[Reservation], histories: dict[str, Any]) -> None:
    from planner.reserve.documents import reservation_document

    documents = [reservation_document(row, histories.get(row.reservation_id, [])) for row in rows]
    emit_json("reserve_list", {"reservations": documents}, now=app.now())


for _subcommand in (buy, schedule, cancel, settle):
    command.add_command(_subcommand)
