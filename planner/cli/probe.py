"""`plan probe`: run some real steps, measure, and estimate again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_desk
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.cli.waiting import raise_for, wait_for_end
from planner.units import parse_usd
from providers.errors import UsageError

if TYPE_CHECKING:
    from planner.answer import Answer
    from planner.places import Places
    from planner.plan import Plan
    from planner.proposal import Choices, Order
    from planner.runs import Run
    from planner.spec import FineTuneSpec
    from planner.specfile import LoadedSpec

_EXAMPLE = """\b
Examples:
  plan probe spec.yaml
  plan probe spec.yaml --steps 50 --yes -o json
"""
_ROWS = (
    ("step_time_s", "seconds a step"),
    ("tokens_per_s_total", "tokens a second"),
    ("wall_clock_h", "hours"),
    ("cost_usd", "total $"),
)


@click.command("probe", epilog=_EXAMPLE)
@click.argument("spec_file", metavar="SPEC", type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(8, 500), default=30, show_default=True, help="Steps to run.")
@click.option(
    "--infra", type=click.Choice(["local"]), default="local", show_default=True, help="Where to run them."
)
@click.option("--cap", metavar="USD", help="Total for the probe, where this machine has a price.")
@click.option("--no-cap", is_flag=True, help="Go without a cap.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    /,
    spec_file: Path,
    steps: int,
    infra: str,
    cap: str | None,
    no_cap: bool,
    yes: bool,
    output: str,
) -> None:
    """Run some real steps of SPEC, measure them, and estimate the whole job again.

    Nothing is kept but the measurement: checkpoints and weights are removed. Every later estimate of the same
    job on the same kind of machine uses it, other jobs by how alike they are.
    """
    from planner.probe import probe_document, probe_spec
    from planner.specfile import load_spec

    loaded = load_spec(spec_file)
    loaded = replace(loaded, spec=app.data_cache().localised(loaded.spec, loaded.base_dir))
    before = _estimate(app, loaded, loaded.spec, infra)
    run = _run(app, loaded, probe_spec(loaded.spec, steps), infra, _choices(cap, no_cap), yes=yes)
    document = probe_document(run, steps, before, _estimate(app, loaded, loaded.spec, infra))
    if output == "json":
        emit_json("probe", document, now=app.now())
    else:
        click.echo(render_probe(document))


def _estimate(app: App, loaded: LoadedSpec, spec: FineTuneSpec, infra: str) -> Answer:
    from planner.answer import estimate_spec
    from planner.placing import placed_in

    with placed_in(loaded):
        return estimate_spec(
            spec,
            loaded.base_dir,
            app.snapshot(infra),
            app.now(),
            calibration=app.calibration(),
            price_limit=app.price_limit(),
            models=app.models(),
        )


def _run(app: App, loaded: LoadedSpec, spec: FineTuneSpec, infra: str, choices: Choices, *, yes: bool) -> Run:
    """The finished probe; what it wrote besides its log is gone."""
    from planner.cli.launch_text import render_order
    from planner.launch import launch
    from planner.proposal import blockers, run_terms

    plan = _estimate(app, loaded, spec, infra).plan()
    with open_desk(app) as desk:
        order = _order(plan, choices)
        echo_err(render_order(order, desk.places))
        loaded.refuse(blockers(order, desk.places, app.surroundings()))
        confirm(f"Run {spec.train.steps} steps of {loaded.spec.name} on this machine?", yes=yes)
        echo_err(f"probe {order.run_id}: {spec.train.steps} steps")
        launch(desk, order.run_id, run_terms(order, desk.places), order.micro_usd_per_hour)
        places = desk.places
    try:
        run = wait_for_end(app, order.run_id)
        raise_for(run)
    finally:
        _clean(places, order.run_id)
    return run


def _choices(cap: str | None, no_cap: bool) -> Choices:
    from planner.proposal import Choices

    try:
        return Choices(None if cap is None else parse_usd(cap), no_cap)
    except ValueError as error:
        raise UsageError(f"--cap: {error}") from None


def _order(plan: Plan, choices: Choices) -> Order:
    from planner.errors import NothingFitsError
    from planner.proposal import Order
    from planner.runs import new_run_id

    if plan.recommended is None:
        why = "`plan estimate SPEC --infra local` shows why"
        raise NothingFitsError("the job does not fit on this machine", hint=why)
    candidate = plan.candidate(plan.recommended)
    if not candidate.offer.price_usd_per_hour and choices.cap_usd is None:
        choices = replace(choices, no_cap=True)
    return Order(plan, candidate, choices, new_run_id(plan.spec.name))


def _clean(places: Places, run_id: str) -> None:
    """Remove what the probe wrote, but for its log and what the ledger says of it."""
    for path in (
        places.state / "checkpoints" / run_id,
        places.state / "bundles" / run_id,
        *places.local.glob(f"{run_id}/*/work"),
    ):
        shutil.rmtree(path, ignore_errors=True)


def render_probe(document: dict[str, Any]) -> str:
    """The answer as text."""
    times = document["measured"]["step_time_s"]
    measured = "unknown" if times is None else f"{times['p50']:.4g} s ({times['p10']:.3g}-{times['p90']:.3g})"
    lines = [f"{document['run_id']}: {document['steps']} steps, {measured} each", ""]
    lines.append(f"{'':<16}  {'before p50 (p10-p90)':<28}  after")
    for key, words in _ROWS:
        both = [_span(document[moment], key) for moment in ("before", "after")]
        lines.append(f"{words:<16}  {both[0]:<28}  {both[1]}")
    return "\n".join(lines)


def _span(promise: dict[str, Any] | None, key: str) -> str:
    if promise is None:
        return "does not fit"
    low, middle, high = (float(promise[key][name]) for name in ("p10", "p50", "p90"))
    return f"{middle:.4g} ({low:.3g}-{high:.3g})"
