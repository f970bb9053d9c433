"""`plan diff`: what a change of a spec does, for a person or for a comment on a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.compare import sides_of
from planner.cli.context import App, pass_app
from planner.cli.output import emit_json, output_option
from planner.errors import NothingFitsError, OverBudgetError, PolicyError
from planner.units import parse_share

if TYPE_CHECKING:
    from planner.comparison import Side

_EXAMPLE = """\b
Examples:
  plan diff main.yaml changed.yaml
  plan diff main.yaml changed.yaml -o md --quiet-under 5% > comment.md
  plan diff before.json after.yaml --fail-over 20% --fail-after 50%
"""


def _share(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else parse_share(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("diff", epilog=_EXAMPLE)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--fail-over", metavar="SHARE", callback=_share, help="Exit 5 if it costs more by this share, as in 20%."
)
@click.option(
    "--fail-after", metavar="SHARE", callback=_share, help="Exit 9 if it takes longer by this share."
)
@click.option(
    "--quiet-under",
    metavar="SHARE",
    callback=_share,
    help="Print no table or Markdown if cost and time change by less.",
)
@output_option("table", "json")
@pass_app
def command(
    app: App,
    before: Path,
    after: Path,
    fail_over: float | None,
    fail_after: float | None,
    quiet_under: float | None,
    output: str,
) -> None:
    """Show what AFTER changes against BEFORE: cost, time, memory and keys of the spec.

    Each is a spec, estimated on the prices in use, or a plan file (`plan estimate --out`). Exit 3 if AFTER fits
    nowhere.
    """
    from planner.cli.compare_text import render_diff
    from planner.cli.output import format_asked
    from planner.comparison import diff_document

    one, other = sides_of(app, (before, after))
    quiet = quiet_under is not None and _alike(one, other, quiet_under)
    if output == "json" and not (quiet and format_asked() == "md"):
        emit_json("diff", diff_document(one, other), now=app.now())
    elif not quiet:
        click.echo(render_diff(one, other))
    _check(one, other, fail_over, fail_after)


def _changes(before: Side, after: Side) -> dict[str, float | None]:
    from planner.comparison import figures

    return {row.quantity: row.change for row in figures(before, after)}


def _alike(before: Side, after: Side, share: float) -> bool:
    """Whether cost and time hardly change; what is not known is no small change."""
    found = _changes(before, after)
    told = (found["cost_usd"], found["wall_clock_h"])
    return all(change is not None and abs(change) < share for change in told)


def _check(before: Side, after: Side, fail_over: float | None, fail_after: float | None) -> None:
    if after.best is None:
        raise NothingFitsError(f"{after.name} fits on no offer", hint=f"plan estimate {after.name} --why")
    found = _changes(before, after)
    cost, time = found["cost_usd"], found["wall_clock_h"]
    if fail_over is not None and cost is not None and cost > fail_over:
        raise OverBudgetError(f"{after.name} costs {cost:+.0%} against {before.name}, over {fail_over:+.0%}")
    if fail_after is not None and time is not None and time > fail_after:
        raise PolicyError(f"{after.name} takes {time:+.0%} against {before.name}, over {fail_after:+.0%}")
