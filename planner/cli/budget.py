"""`plan budget`: what a project may spend, over everybody's runs."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock, open_ledger, open_register, settle_here, store_option
from planner.cli.output import emit_json, output_option
from planner.money import micro_usd
from planner.register import Per, ProjectBook, read_book, run_of, set_budget
from planner.run_document import micro_text
from planner.units import parse_usd
from providers.errors import UsageError


@click.group("budget", epilog="\b\nExample:\n  plan budget set support 500usd --per month")
def command() -> None:
    """Budgets of projects: a launch that would pass one is refused (exit 5)."""


@command.command("set", epilog="\b\nExample:\n  plan budget set support 500usd --store s3://team/plan")
@click.argument("project")
@click.argument("amount")
@click.option("--per", type=click.Choice(["month", "total"]), default="month", show_default=True)
@store_option
@output_option("table", "json")
@pass_app
def set_command(app: App, project: str, amount: str, per: Per, store_uri: str | None, output: str) -> None:
    """Give PROJECT a budget of AMOUNT, as in 500usd, or none."""
    try:
        limit = None if amount == "none" else micro_usd(parse_usd(amount))
    except ValueError as error:
        raise UsageError(str(error)) from None
    _answer(app, set_budget(open_register(app, store_uri)[0], project, limit, per), output)


@command.command("show", epilog="\b\nExample:\n  plan budget show support -o json")
@click.argument("project", default="default")
@store_option
@output_option("table", "json")
@pass_app
def show_command(app: App, project: str, store_uri: str | None, output: str) -> None:
    """Show PROJECT's budget, and what of it is spent or held by runs under way."""
    register, uri = open_register(app, store_uri)
    with open_ledger(app) as ledger:
        settle_here(app, ledger, register, uri, project)
    _answer(app, read_book(register, project), output)


def _answer(app: App, book: ProjectBook, output: str) -> None:
    month = clock(app)()[:7]
    if output == "json":
        emit_json("budget", _document(book, month), now=app.now())
    else:
        click.echo(_text(book, month))


def _document(book: ProjectBook, month: str) -> dict[str, Any]:
    return {
        "project": book.project,
        "limit_usd": micro_text(book.limit_micro_usd),
        "per": book.per,
        "taken_usd": micro_text(book.taken_micro_usd(month)),
        "runs": [
            {
                "run_id": run_of(name),
                "owner": share.owner,
                "month": share.month,
                "taken_usd": micro_text(share.micro_usd),
                "over": share.over,
            }
            for name, share in sorted(book.counted(month).items())
        ],
    }


def _text(book: ProjectBook, month: str) -> str:
    taken = micro_text(book.taken_micro_usd(month)) or "an unknown amount"
    if book.limit_micro_usd is None:
        return f"{book.project}: no budget, ${taken} spent or held"
    per = f"in {month}" if book.per == "month" else "in all"
    return f"{book.project}: ${taken} of ${micro_text(book.limit_micro_usd)} {per} spent or held by runs"
