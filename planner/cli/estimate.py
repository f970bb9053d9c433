"""`plan estimate`: will it fit, on what, how long, how much, how sure."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.completing import complete_gpu
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, format_asked, output_option
from providers.errors import TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.answer import Answer
    from planner.calibration import Calibration
    from planner.data_cache import DataPin
    from planner.queue_times import QueueTime
    from planner.tracing import Traced

_EXAMPLE = """\b
Examples:
  plan estimate spec.yaml
  plan estimate spec.yaml --gpu A100-80GB --count 1
  plan estimate spec.yaml --market spot --out plan.json
  plan estimate spec.yaml --fail-over 50usd --fail-after 24h
  plan estimate spec.yaml --explain        every term behind the best candidate
  plan estimate spec.yaml --explain 3      and behind the third
  plan estimate spec.yaml --trace          the exact peak of one step beside the formula's
  plan estimate spec.yaml --why --plot -   what was dropped, what a change would save
"""
#: Columns where nobody looks at a terminal: nothing needs to be cut.
_FILE_WIDTH = 250
#: `--plot -` draws in the terminal.
_HERE = Path("-")
_CANDIDATE = re.compile(r"best|\d+|c-[0-9a-f]+")
#: JSON, plan files and plots hold this many times the rows of the table.
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
@click.option(
    "--count",
    type=click.IntRange(1, 1024),
    help="Only machines with this many GPUs each; where.nodes says how many machines.",
)
@click.option(
    "--nodes", type=click.IntRange(1, 1024), help="Exactly this many machines, whatever where.nodes says."
)
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
@click.option(
    "--trace", is_flag=True, help="Trace one step of the best candidate exactly (extra `trace`, seconds)."
)
@click.option("--why", is_flag=True, help="Why offers were dropped, and what single changes would save.")
@click.option(
    "--calibration/--no-calibration",
    default=True,
    help="Learn from your finished runs, or the formulas alone.",
)
@click.option("--strict", is_flag=True, help="An old or undated price is no offer (prices.max_age).")
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
    trace: bool,
    why: bool,
    calibration: bool,
    strict: bool,
    fail_over: str | None,
    fail_after: str | None,
    output: str,
    **fixed: Any,
) -> None:
    """Estimate memory, time and cost of SPEC on every offer, and rank the offers."""
    from planner.answer import Limits, check, estimate_spec
    from planner.cli.estimate_views import Views, what_if_changes
    from planner.intake import Overrides
    from planner.placing import placed_in
    from planner.specfile import load_spec
    from planner.support import unsupported

    _refuse_drawing(output, plot)
    kept = limit * _MORE if _in_full(output) or out or plot or explain else limit
    limits = Limits.parse(fail_over, fail_after)
    loaded = load_spec(spec_file)
    cache = app.data_cache()
    pins = cache.pins(loaded.spec, loaded.base_dir)
    loaded = loaded._replace(spec=cache.localised(loaded.spec, loaded.base_dir))
    loaded.refuse(unsupported(loaded.spec))
    with placed_in(loaded):
        answer = estimate_spec(
            loaded.spec,
            loaded.base_dir,
            app.snapshot(infra),
            app.now(),
            overrides=Overrides(**fixed),
            limit=kept or None,
            calibration=_calibration(app, calibration),
            spot_signals=app.spot_signals(),
            price_limit=app.price_limit(strict=strict),
            models=app.models(),
        )
    _write(answer, pins, out, plot)
    changes = what_if_changes(loaded, app.snapshot(infra), answer, Overrides(**fixed)) if why else None
    views = Views(answer, explain, changes, plot == _HERE, _traced(answer) if trace else None)
    queue = _queue(app, answer)
    if output == "json":
        document = {**views.document(), "queue": None if queue is None else queue._asdict()}
        emit_json("estimate", document, now=answer.estimate.question.goal.now)
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _FILE_WIDTH
        click.echo(views.text(limit, width))
        if queue is not None:
            click.echo(f"queue time of the best, from your own tries: {queue.text()}")
    check(answer, limits)


def _calibration(app: App, wanted: bool) -> Calibration:
    from planner.calibration import NOT_CALIBRATED

    return app.calibration() if wanted else NOT_CALIBRATED


def _queue(app: App, answer: Answer) -> QueueTime | None:
    """How long the best candidate's machine takes to get, None if it was never tried."""
    from planner.places import Places

    best, path = answer.estimate.recommended, Places(app.directories.state).ledger
    if best is None or best.offer.market == "local" or not path.exists():
        return None
    from planner.queue_times import queue_time
    from planner.try_book import TryBook

    try:
        with TryBook(path) as book:
            return queue_time(best.offer, book.all_tries())
    except TuneplanError:  # a ledger that cannot be read is told of where it is needed
        return None


def _traced(answer: Answer) -> Traced | None:
    """The exact peak, with a line of progress a second for whoever waits."""
    import time

    from planner.tracing import trace_answer

    told = time.monotonic()

    def progress(operations: int, phase: str) -> None:
        nonlocal told
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            echo_err(f"tracing: {operations:,} operations, {phase.replace('_', ' ')}")

    return trace_answer(answer, progress)


def _refuse_drawing(output: str, plot: Path | None) -> None:
    if output == "json" and plot == _HERE:
        hint = "name a file: `--plot cost.svg`"
        raise UsageError(f"`--plot -` draws text, which has no place in `-o {format_asked()}`", hint=hint)


def _in_full(output: str) -> bool:
    """Whether a machine reads the answer: tables, Markdown's too, are for a person."""
    return output == "json" and format_asked() != "md"


def _write(answer: Answer, pins: tuple[DataPin, ...], out: Path | None, plot: Path | None) -> None:
    """The files that were asked for."""
    from planner.plan import save_plan

    if out is not None:
        save_plan(answer.plan()._replace(data=pins), out)
        echo_err(f"plan written to {out}")
    if plot is not None and plot != _HERE:
        from planner.cli.estimate_plot import plot_estimate

        plot_estimate(answer.estimate, f"{answer.spec.name} on {answer.spec.model.id}", plot)
        echo_err(f"plot written to {plot}")
