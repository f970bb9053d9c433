"""`plan estimate`: will it fit, on what, how long, how much, how sure."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_gpu
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.answer import Answer
    from planner.intake import Overrides
    from planner.specfile import LoadedSpec
    from planner.whatif import WhatIf

_EXAMPLE = """\b
Examples:
  plan estimate spec.yaml
  plan estimate spec.yaml --gpu A100-80GB --count 1
  plan estimate spec.yaml --market spot --out plan.json
  plan estimate spec.yaml --fail-over 50usd --fail-after 24h
  plan estimate spec.yaml --explain        every term behind the best candidate
  plan estimate spec.yaml --explain 3      and behind the third
  plan estimate spec.yaml --why --plot -   what was dropped, what a change would save
"""
#: Columns where nobody looks at a terminal: nothing needs to be cut.
_FILE_WIDTH = 250
#: `--plot -` draws in the terminal.
_HERE = Path("-")
_CANDIDATE = re.compile(r"best|\d+|c-[0-9a-f]+")
#: JSON and plan files hold this many times the rows of the table.
_MORE = 10


class _EstimateCommand(click.Command):
    """`--explain` takes a candidate if one follows, and leaves a spec alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, after `--explain` without a candidate has become `--explain=best`."""
        following = [*args, ""][1:]
        words = [
            "--explain=best" if word == "--explain" and not _CANDIDATE.fullmatch(next_word) else word
            for word, next_word in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, words)


@click.command("estimate", cls=_EstimateCommand, epilog=_EXAMPLE)
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option("--gpu", shell_complete=complete_gpu, help="Only this GPU, as in A100-80GB.")
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
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw cost against time: .svg, .png or - for here."
)
@click.option(
    "--explain", metavar="[CANDIDATE]", help="Every term of the best candidate, or of a rank or id."
)
@click.option("--why", is_flag=True, help="Why offers were dropped, and what single changes would save.")
@click.option(
    "--calibration/--no-calibration",
    default=True,
    help="Learn from your finished runs, or the formulas alone.",
)
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
    explain: str | None,
    why: bool,
    calibration: bool,
    fail_over: str | None,
    fail_after: str | None,
    output: str,
    **fixed: Any,
) -> None:
    """Estimate memory, time and cost of SPEC on every offer, and rank the offers."""
    from planner.answer import Limits, check, estimate_spec
    from planner.calibration import NOT_CALIBRATED
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
            calibration=app.calibration() if calibration else NOT_CALIBRATED,
        )
    if out is not None:
        save_plan(answer.plan, out)
        echo_err(f"plan written to {out}")
    if plot is not None and plot != _HERE:
        _draw(answer, plot)
    views = _Views(
        explain, _what_if(app, infra, loaded, answer, Overrides(**fixed)) if why else None, plot == _HERE
    )
    if output == "json":
        emit_json(
            "estimate", answer.document() | views.document(answer), now=answer.estimate.question.goal.now
        )
    else:
        _show(answer, limit, views)
    check(answer, limits)


@dataclass(frozen=True, slots=True)
class _Views:
    """What was asked for beside the answer.

    Attributes:
        explain: Candidate to explain, None for none.
        changes: What single changes and other GPUs would do, None if not asked.
        plot: Draw in the terminal.
    """

    explain: str | None
    changes: tuple[tuple[WhatIf, ...], tuple[WhatIf, ...]] | None
    plot: bool

    def document(self, answer: Answer) -> dict[str, Any]:
        """Further keys of the JSON answer."""
        found: dict[str, Any] = {}
        if self.explain is not None and answer.estimate.candidates:
            from planner.explain import explain, explanation_document

            found["explanation"] = explanation_document(explain(answer.estimate, self.explain))
        if self.changes is not None:
            from planner.cli.why_text import what_if_document

            names = ("relaxations", "other_gpus")
            found |= {
                name: [what_if_document(row) for row in rows]
                for name, rows in zip(names, self.changes, strict=True)
            }
        return found

    def texts(self, answer: Answer, width: int) -> Iterator[str]:
        """Further parts of the text answer."""
        if self.plot:
            from planner.cli.terminal_plot import plot_in_terminal

            yield plot_in_terminal(answer.estimate, width)
        if self.changes is not None:
            from planner.cli.why_text import render_changes, render_rejected

            yield render_rejected(answer.estimate.rejected)
            if answer.estimate.candidates:
                changes, gpus = self.changes
                yield render_changes("what one change would do to the best candidate", changes)
                yield render_changes("and another GPU", gpus)


def _what_if(
    app: App, infra: str, loaded: LoadedSpec, answer: Answer, fixed: Overrides
) -> tuple[tuple[WhatIf, ...], tuple[WhatIf, ...]]:
    from planner.whatif import other_gpus, what_if

    estimate = answer.estimate
    if not estimate.candidates:
        return (), ()
    changes = what_if(loaded.spec, loaded.base_dir, app.snapshot(infra), estimate, overrides=fixed)
    return changes, other_gpus(estimate)


def _draw(answer: Answer, path: Path) -> None:
    from planner.cli.estimate_plot import plot_estimate

    plot_estimate(answer.estimate, f"{answer.spec.name} on {answer.estimate.question.arch.id}", path)
    echo_err(f"plot written to {path}")


def _show(answer: Answer, limit: int, views: _Views) -> None:
    from planner.cli.estimate_table import render_estimate, render_job, render_nearest

    estimate = answer.estimate
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _FILE_WIDTH
    if views.explain is not None and estimate.candidates:
        from planner.cli.explain_text import render_explanation
        from planner.explain import explain

        parts = [
            render_job(estimate, answer.spec),
            render_explanation(explain(estimate, views.explain), width),
        ]
    else:
        rows = limit or len(estimate.candidates)
        parts = [render_estimate(estimate, answer.spec, rows=rows, width=width)]
    if not estimate.candidates:
        parts.append(render_nearest(answer.nearest))
    click.echo("\n\n".join([*parts, *views.texts(answer, width)]))
