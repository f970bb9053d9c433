"""`plan costs`: what runs have cost."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option
from planner.costs import CostKey, CostRow, sum_costs, total
from planner.run_document import micro_text


@click.command("costs", epilog="\b\nExample:\n  plan costs --by month")
@click.option(
    "--by",
    type=click.Choice(["run", "project", "owner", "month"]),
    default="run",
    show_default=True,
    help="What to sum by.",
)
@output_option("table", "json")
@pass_app
def command(app: App, by: CostKey, output: str) -> None:
    """Sum what runs have cost: price at launch x time, in US dollars before tax."""
    with open_ledger(app) as store:
        runs = [refresh(app, store, run)[0] for run in store.all_runs()]
    rows = sum_costs(runs, by)
    if output == "json":
        whole = total(rows)
        payload = {
            "by": by,
            "rows": [_document(row) for row in rows],
            "total_usd": micro_text(whole.cost_micro_usd),
        }
        emit_json("costs", payload, now=app.now())
    else:
        click.echo(_table(by, [*rows, total(rows)]))


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
