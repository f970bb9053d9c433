"""`plan probe`: run some real steps, measure, and estimate again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_desk, store_option
from planner.cli.interrupting import sigterm_interrupts
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.cli.waiting import raise_for, wait_for_end
from planner.units import parse_usd
from providers.errors import TuneplanError, UsageError

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
  plan probe spec.yaml --infra skypilot --cap 2
"""
#: Keys below a run's prefix that hold weights.
_WEIGHTS = ("HEAD", "manifests/", "blobs/")
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
    "--infra",
    type=click.Choice(["local", "skypilot"]),
    default="local",
    show_default=True,
    help="On this machine, or on the rented one that the whole job would take.",
)
@click.option("--cap", metavar="USD", help="Total for the probe (default: the spec's budget).")
@click.option("--no-cap", is_flag=True, help="Go without a cap.")
@click.option(
    "--max-duration",
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="A rented probe ends after this time, done or not.",
)
@store_option
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
    max_duration: str,
    store_uri: str | None,
    yes: bool,
    output: str,
) -> None:
    """Run some real steps of SPEC, measure them, and estimate the whole job again.

    Nothing is kept but the measurement: checkpoints and weights are removed, a rented machine is given back. Every
    later estimate of the same job on the same kind of machine uses it, other jobs by how alike they are.
    """
    from planner.probe import probe_document, probe_order, probe_spec
    from planner.specfile import load_spec

    loaded = load_spec(spec_file)
    loaded = loaded._replace(spec=app.data_cache().localised(loaded.spec, loaded.base_dir))
    choices = _choices(cap, no_cap, max_duration, rented=infra != "local")
    before = _estimate(app, loaded, loaded.spec, infra)
    probe = _estimate(app, loaded, probe_spec(loaded.spec, steps, rented=infra != "local"), infra)
    order = _order(probe_order(before.plan(), probe.plan()), choices)
    run = _run(app, loaded, order, store_uri, yes=yes)
    document = probe_document(run, steps, before, _estimate(app, loaded, loaded.spec, infra))
    if output == "json":
        emit_json("probe", document, now=app.now())
    else:
        click.echo(render_probe(document))


def _choices(cap: str | None, no_cap: bool, max_duration: str, *, rented: bool) -> Choices:
    from planner.proposal import Choices
    from planner.units import parse_duration_s

    if cap is not None and no_cap:
        raise UsageError("--cap and --no-cap exclude each other")
    try:
        limit_s = parse_duration_s(max_duration) if rented else None
        return Choices(None if cap is None else parse_usd(cap), no_cap, max_duration_s=limit_s)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _estimate(app: App, loaded: LoadedSpec, spec: FineTuneSpec, infra: str) -> Answer:
    from planner.placing import placed_in

    with placed_in(loaded):
        return app.estimate(spec, loaded.base_dir, app.snapshot(infra))


def _order(plan: Plan, choices: Choices) -> Order:
    from planner.proposal import Order
    from planner.runs import new_run_id

    candidate = plan.candidate(plan.recommended or "")
    if (
        candidate.offer.market == "local"
        and not candidate.offer.price_usd_per_hour
        and choices.cap_usd is None
    ):
        choices = replace(choices, no_cap=True)
    return Order(plan, candidate, choices, new_run_id(plan.spec.name))


def _run(app: App, loaded: LoadedSpec, order: Order, store_uri: str | None, *, yes: bool) -> Run:
    """The finished probe; what it wrote besides its log is gone, and its machine as well."""
    from planner.cli.launch_entry import launch_order
    from planner.cli.launch_text import render_order
    from planner.proposal import blockers

    steps, rented = order.plan.spec.train.steps, order.infra != "local"
    with open_desk(app, order.infra) as desk:
        places = desk.places
        echo_err(render_order(order, places, app.surroundings()))
        loaded.refuse(blockers(order, places, app.surroundings(), write=rented))
        where = "a rented" if rented else "this"
        confirm(f"Run {steps} steps of {loaded.spec.name} on {where} machine?", yes=yes)
    echo_err(f"probe {order.run_id}: {steps} steps")
    with sigterm_interrupts():
        try:
            with open_desk(app, order.infra) as desk:
                launch_order(app, desk, order, store_uri)
            run = wait_for_end(app, order.run_id)
            raise_for(run)
        finally:
            _end(app, order)
            _clean(places, order)
    return run


def _end(app: App, order: Order) -> None:
    """Nothing goes on once nobody waits: an interrupted or preempted probe is cancelled, its machine given back."""
    from planner.launch import cancel

    with open_desk(app, order.infra) as desk:
        run = desk.store.get(order.run_id)
        if run is not None and not run.final:
            echo_err(f"ending {run.run_id}")
            cancel(desk, run, grace_s=0.0)


def _clean(places: Places, order: Order) -> None:
    """Remove what the probe wrote, but for its log and what the ledger says of it."""
    from providers.stores import open_store

    run_id = order.run_id
    for path in (
        places.state / "checkpoints" / run_id,
        places.state / "bundles" / run_id,
        *places.local.glob(f"{run_id}/*/work"),
    ):
        shutil.rmtree(path, ignore_errors=True)
    if order.infra == "local":
        return
    uri = order.checkpoint_uri(places)
    try:
        store = open_store(uri)
        for prefix in _WEIGHTS:
            for found in list(store.list(prefix)):
                store.delete(found.key)
    except TuneplanError as error:
        echo_err(f"warning: the probe's checkpoints could not be removed from {uri}: {error.message}")


def render_probe(document: dict[str, Any]) -> str:
    """The answer as text."""
    times = document["measured"]["step_time_s"]
    measured = "unknown" if times is None else f"{times['p50']:.4g} s ({times['p10']:.3g}-{times['p90']:.3g})"
    spent = "" if not float(document["cost_usd"] or 0) else f", ${float(document['cost_usd']):,.2f} so far"
    lines = [f"{document['run_id']}: {document['steps']} steps, {measured} each{spent}", ""]
    lines.append(f"{'':<16}  {'before p50 (p10-p90)':<28}  after")
    for key, words in _ROWS:
        both = [_span(document[moment], key) for moment in ("before", "after")]
        lines.append(f"{words:<16}  {both[0]:<28}  {both[1]}")
    return "\n".join(lines)


def _span(promise: dict[str, Any] | None, key: str) -> str:
    if promise is None:
        return "does not fit"
    low, middle, high = (float(promise[key][name]) for name in ("p10", "p50", "p90"))
    return f"{_number(middle)} ({_number(low)}-{_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
