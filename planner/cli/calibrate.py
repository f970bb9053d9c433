"""`plan calibrate`: what finished runs taught, and what it does to the next estimate."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger, refresh
from planner.cli.output import emit_json, output_option

_EXAMPLE = """\b
Examples:
  plan calibrate
  plan calibrate -o json
"""


@click.command("calibrate", epilog=_EXAMPLE)
@output_option("table", "json")
@pass_app
def command(app: App, output: str) -> None:
    """Show what your finished runs change about estimates, by GPU, stack, method and size.

    Every estimate reads the ledger, so nothing needs to be started here: a run counts once its end is on record. A new
    job is moved by a part of what others of its class showed, the same job by nearly all of it.
    """
    from planner.calibration_document import calibration_document

    with open_ledger(app) as store:
        for run in store.all_runs():
            refresh(app, store, run)  # a run may have ended while nobody looked
    document = calibration_document(app.calibration())
    if output == "json":
        emit_json("calibrate", document, now=app.now())
    else:
        click.echo(render_calibration(document))


def render_calibration(document: dict[str, Any]) -> str:
    """The answer as text."""
    if not document["rows"]:
        return "nothing learned yet: no finished run is on record"
    header = f"{'where and what':<44}  {'quantity':<10}  {'runs':>4}  {'jobs':>4}  {'actual/formula':>14}"
    lines = [f"{header}  {'another job':>11}  {'same job':>8}", *(_line(row) for row in document["rows"])]
    lines += ["", "another job, same job: the next estimate of such a job is multiplied by this"]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['group'].replace('|', ' '):<44}  {row['quantity'].replace('_', ' '):<10}  {row['runs']:>4}"
        f"  {row['jobs']:>4}  {row['ratio']:>14.3g}  {row['factor_other_job']:>10.3g}x  {row['factor_same_job']:>7.3g}x"
    )
