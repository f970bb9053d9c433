"""`plan compare`: several specs or plans side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.context import App, pass_app
from planner.cli.output import emit_json, output_option
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.comparison import Side

_EXAMPLE = """\b
Examples:
  plan compare lora.yaml qlora.yaml full.yaml
  plan compare spec.yaml plan.json -o json
"""


@click.command("compare", epilog=_EXAMPLE)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("table", "json")
@pass_app
def command(app: App, files: tuple[Path, ...], output: str) -> None:
    """Show several specs or plan files side by side: best machine, time, cost and memory of each, and what differs.

    A spec is estimated on the prices in use, a plan file (`plan estimate --out`) says what it said when it was made.
    """
    from planner.cli.compare_text import render_comparison
    from planner.comparison import compare_document

    if len(files) < 2:
        raise UsageError("there is nothing to compare with", hint="name two specs or plans, or more")
    sides = sides_of(app, files)
    if output == "json":
        emit_json("compare", compare_document(sides), now=app.now())
    else:
        click.echo(render_comparison(sides))


def sides_of(app: App, files: Sequence[Path]) -> list[Side]:
    """Each file with its plan.

    Raises:
        SpecError, UsageError, CorruptDataError: As `planner.cli.plan_of.plan_of`.
    """
    from planner.cli.plan_of import plan_of
    from planner.comparison import Side

    return [Side(str(file), plan_of(app, file, limit=1)) for file in files]
