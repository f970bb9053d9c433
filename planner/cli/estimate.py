"""`plan estimate`: will it fit, on what, how long, how much, how sure."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option

if TYPE_CHECKING:
    from planner.answer import Answer

_EXAMPLE = """\b
Examples:
  plan estimate spec.yaml
  plan estimate spec.yaml --gpu A100-80GB --count 1
  plan estimate spec.yaml --market spot --out plan.json
  plan estimate spec.yaml --fail-over 50usd --fail-after 24h
"""
#: Columns where nobody looks at a terminal: nothing needs to be cut.
_FILE_WIDTH = 250
#: JSON and plan files hold this many times the rows of the table.
_MORE = 10


@click.command("estimate", epilog=_EXAMPLE)
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option("--gpu", help="Only this GPU, as in A100-80GB.")
@click.option("--count", type=click.IntRange(1, 1024), help="Only machines with this many GPUs.")
@click.option("--nodes", type=click.IntRange(1, 1024), help="Exactly this many machines.")
@click.option("--micro-batch", type=click.IntRange(1), help="Examples a GPU holds at once.")
@click.option("--market", type=click.Choice(["spot", "on_demand"]), help="Only this market.")
@click.option(
    "--infra",
    type=click.Choice(["clouds", "local"]),
    default="clouds",
    show_default=True,
    help="Rented machines, or this one.",
)
@click.option(
    "--limit",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Rows of the table; JSON and plan files hold ten times as many, 0 holds all.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Save the plan for `plan launch`.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw cost against time, .svg or .png.")
@click.option("--fail-over", metavar="USD", help="Exit 5 if the best candidate costs more.")
@click.option("--fail-after", metavar="DURATION", help="Exit 9 if the best candidate takes longer.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    /,
    spec_file: Path,
    infra: str,
    limit: int,
    out: Path | None,
    plot: Path | None,
    fail_over: str | None,
    fail_after: str | None,
    output: str,
    **fixed: Any,
) -> None:
    """Estimate memory, time and cost of SPEC on every offer, and rank the offers."""
    from planner.answer import Limits, check, estimate_spec
    from planner.intake import Overrides
    from planner.placing import placed_in
    from planner.plan import save_plan
    from planner.specfile import load_spec
    from planner.support import unsupported

    limits = Limits.parse(fail_over, fail_after)
    loaded = load_spec(spec_file)
    loaded.refuse(unsupported(loaded.spec))
    with placed_in(loaded):
        answer = estimate_spec(
            loaded.spec,
            loaded.base_dir,
            app.snapshot(infra),
            app.now(),
            overrides=Overrides(**fixed),
            limit=limit * _MORE or None,
        )
    if out is not None:
        save_plan(answer.plan, out)
        echo_err(f"plan written to {out}")
    if plot is not None:
        from planner.cli.estimate_plot import plot_estimate

        plot_estimate(answer.estimate, f"{loaded.spec.name} on {answer.estimate.question.arch.id}", plot)
        echo_err(f"plot written to {plot}")
    if output == "json":
        emit_json("estimate", answer.document(), now=answer.estimate.question.goal.now)
    else:
        _show(answer, limit)
    check(answer, limits)


def _show(answer: Answer, limit: int) -> None:
    from planner.cli.estimate_table import render_estimate, render_nearest

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _FILE_WIDTH
    rows = limit or len(answer.estimate.candidates)
    click.echo(render_estimate(answer.estimate, answer.spec, rows=rows, width=width))
    if not answer.estimate.candidates:
        click.echo("\n" + render_nearest(answer.nearest))
