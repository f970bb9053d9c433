"""`plan costs`: what runs have cost, and whether a cloud's bill agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock, open_ledger, refresh
from planner.cli.output import emit_json, output_option
from planner.costs import CostKey, CostNow, CostRow, cost_now, sum_costs, total
from planner.run_document import micro_text
from planner.runs import Run
from planner.try_book import TryBook
from providers.errors import TuneplanError, UsageError

_EXAMPLE = """\b
Examples:
  plan costs --by month
  plan costs --format focus > costs.csv
  plan costs reconcile BILL.csv
"""


@click.group("costs", epilog=_EXAMPLE, invoke_without_command=True)
@click.option(
    "--by",
    type=click.Choice(["run", "project", "owner", "month"]),
    default="run",
    show_default=True,
    help="What to sum by.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["focus"]),
    help="focus: every attempt and try as a row of FOCUS 1.0, the CSV that cost tools read.",
)
@output_option("table", "json")
@pass_app
@click.pass_context
def command(ctx: click.Context, app: App, by: CostKey, form: str | None, output: str) -> None:
    """Sum what runs and tries have cost: price at launch x time, in US dollars before tax."""
    if ctx.invoked_subcommand is not None:
        return
    with open_ledger(app) as store:
        runs = [refresh(app, store, run)[0] for run in store.all_runs()]
        with TryBook(store.path) as book:
            tries = book.all_tries()
    if form == "focus":
        from planner.focus import focus_csv

        click.echo(focus_csv(runs, tries), nl=False)
        return
    rows = sum_costs(runs, by, tries)
    if output == "json":
        whole = total(rows)
        payload = {
            "by": by,
            "rows": [_document(row) for row in rows],
            "total_usd": micro_text(whole.cost_micro_usd),
            "not_current": [_silent_document(run, cost) for run, cost in _silent(app, runs)],
        }
        emit_json("costs", payload, now=app.now())
    else:
        click.echo(_table(by, [*rows, total(rows)]))
        for run, cost in _silent(app, runs):
            click.echo(_silent_text(run, cost))


@command.command("reconcile", epilog="\b\nExample:\n  plan costs reconcile focus-2026-11.csv --tolerance 10%")
@click.argument("bills", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--tolerance", default="5%", show_default=True, help="Differences below this share are not listed."
)
@output_option("table", "json")
@pass_app
def reconcile_command(app: App, bills: tuple[Path, ...], tolerance: str, output: str) -> None:
    """Compare BILLS (CSV: FOCUS, or an AWS cost and usage report) with the ledger, run by run.

    Lists what is unexplained: runs that were billed otherwise than the ledger says, and rows whose tag names no
    run. Exit 1 if there is any.
    """
    from planner.bills import BillRow, read_bill, reconcile
    from planner.cli.bill_text import bill_document, render_bill
    from planner.units import parse_share

    try:
        share = parse_share(tolerance)
    except ValueError as error:
        raise UsageError(str(error)) from None
    rows: list[BillRow] = []
    for path in bills:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows += read_bill(file, str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
    with open_ledger(app) as store, TryBook(store.path) as book:
        found = reconcile(store.all_runs(), rows, tolerance=share, tries=book.all_tries())
    if output == "json":
        emit_json("costs_reconcile", bill_document(found), now=app.now())
    else:
        click.echo(render_bill(found))
    number = len(found.unexplained) + len(found.strangers)
    if number:
        raise TuneplanError(f"{number} entries are unexplained", code="bill_unexplained")


def _silent(app: App, runs: list[Run]) -> list[tuple[Run, CostNow]]:
    """Runs whose machines may have cost more by now than anybody has counted."""
    counted = ((run, cost_now(run, clock(app)())) for run in runs)
    return [(run, cost) for run, cost in counted if cost is not None and not cost.is_current]


def _silent_document(run: Run, cost: CostNow) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "at_least_usd": micro_text(run.cost_micro_usd),
        "as_of_at": cost.as_of_at,
        "at_most_usd": micro_text(cost.at_most_micro_usd),
    }


def _silent_text(run: Run, cost: CostNow) -> str:
    least, most = micro_text(run.cost_micro_usd) or "unknown", micro_text(cost.at_most_micro_usd) or "unknown"
    as_of = cost.as_of_at[:19].replace("T", " ")
    return f"{run.run_id}: at least ${least} as of {as_of} UTC, ${most} by now if its machines still run"


def _document(row: CostRow) -> dict[str, Any]:
    return {
        "key": row.key,
        "attempts": row.attempts,
        "hours": row.hours,
        "cost_usd": micro_text(row.cost_micro_usd),
    }


def _table(by: str, rows: list[CostRow]) -> str:
    width = max(len(row.key or "nobody") for row in rows)
    lines = [f"{by:<{max(width, len(by))}}  attempts     hours  total $"]
    for row in rows:
        cost = micro_text(row.cost_micro_usd) or "unknown"
        lines.append(
            f"{row.key or 'nobody':<{max(width, len(by))}}  {row.attempts:>8}  {row.hours:>8.2f}  {cost:>7}"
        )
    return "\n".join(lines)
