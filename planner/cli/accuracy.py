"""`plan accuracy`: error and coverage of the estimates on the user's own runs."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option

_WORDS = {
    "step_time_s": "step time",
    "wall_clock_h": "wall clock",
    "memory_reserved_gib": "memory",
    "cost_usd": "cost",
}
_EXAMPLE = """\b
Examples:
  plan accuracy
  plan accuracy -o json
"""


@click.command("accuracy", epilog=_EXAMPLE)
@output_option("table", "json")
@pass_app
def command(app: App, output: str) -> None:
    """Show how far estimates were off on your own finished runs, by GPU and method.

    The interval of an estimate should hold 80 % of the actual values. Runs of `plan probe` are left out.
    """
    from planner.accuracy import accuracy_document

    with open_ledger(app) as store:
        document = accuracy_document([refresh(app, store, run)[0] for run in store.all_runs()])
    if output == "json":
        emit_json("accuracy", document, now=app.now())
    else:
        click.echo(render_accuracy(document))


def render_accuracy(document: dict[str, Any]) -> str:
    """The answer as text."""
    if not document["rows"]:
        return "no finished run to compare with yet; `plan launch` makes one"
    header = (
        f"{'GPU':<12}  {'method':<12}  {'quantity':<10}  {'runs':>4}  {'median error':>12}"
        f"  {'of size':>8}  {'formula':>8}  {'in interval':>11}"
    )
    lines = [header, *(_line(row) for row in document["rows"])]
    lines += [
        "",
        "error: estimate / actual - 1; formula: size of the error before your runs were learned from;",
    ]
    lines.append(f"in interval: share between p10 and p90, {document['expected_coverage']:.0%} is right")
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    formula = row["formula_median_abs_error"]
    return (
        f"{row['gpu'] or 'all':<12}  {row['method'] or 'all':<12}  {_WORDS[row['quantity']]:<10}"
        f"  {row['runs']:>4}  {row['median_error']:>+12.0%}  {row['median_abs_error']:>8.0%}"
        f"  {'' if formula is None else f'{formula:.0%}':>8}  {row['inside_interval']:>11.0%}"
    )
