"""`plan launch`: show what will be done, ask, record it, start it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from planner.cli.context import App, pass_app
from planner.cli.desk import offline_option, open_desk, store_option
from planner.cli.launch_answers import answer, answer_dry_run
from planner.cli.launch_entry import launch_order, over_budget, zone_names_of
from planner.cli.launch_known import Given, agree_again, refuse_other_terms
from planner.cli.launch_moving import moving_of, tell_moving
from planner.cli.launch_watch import check_monitor, need_elsewhere
from planner.cli.output import confirm, echo_err, output_option
from planner.cli.waiting import raise_for, wait_for_end
from planner.errors import OverBudgetError
from planner.units import parse_duration_s, parse_share, parse_usd
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from planner.cli.reserve_launch import Reserved
    from planner.errors import Finding
    from planner.launch import Desk
    from planner.moving.order import MovingOrder
    from planner.plan import Plan
    from planner.proposal import Choices, Order
    from planner.runs import MonitorHome, Run
    from planner.spec import FineTuneSpec

    Refuse = Callable[[Iterable[Finding]], None]

#: Candidates of a plan that is made here; one that moves may go to all of them.
_CANDIDATES = 100
_EXAMPLE = """\b
Examples:
  plan launch spec.yaml --infra local
  plan launch plan.json --infra local --run-id goat-1 --yes --wait
  plan launch spec.yaml --infra local --dry-run -o json
  plan launch plan.json --infra skypilot --cap 50 --dry-run
  plan launch spec.yaml --move --monitor service --cap 50
"""


@click.command("launch", epilog=_EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--infra",
    type=click.Choice(["local", "skypilot", "cluster"]),
    default="skypilot",
    show_default=True,
    help="Where: this machine, or rented ones as a managed job of SkyPilot, or as a cluster of the run's own "
    "(no jobs controller to pay for; only `--monitor service` starts it again).",
)
@click.option("--candidate", metavar="ID", help="Another candidate of the plan than the recommended one.")
@click.option("--run-id", help="Name of the run; the same name is never launched twice. Default: made up.")
@click.option("--cap", metavar="USD", help="Total for the run; default: goal.budget of the spec.")
@click.option("--no-cap", is_flag=True, help="Go without a cap.")
@click.option("--max-duration", metavar="DURATION", help="End each attempt after this long, as in 90m.")
@click.option(
    "--monitor",
    type=click.Choice(["local", "service", "remote"]),
    default="local",
    show_default=True,
    help="service: a `plan monitor run` watches it and starts it again; local: only commands that ask; "
    "remote: the monitor's machine launches and watches it (`plan monitor machine up`).",
)
@click.option(
    "--move",
    is_flag=True,
    help="Let the monitor move it between spot and on-demand: in time at the least cost (`plan why RUN`).",
)
@click.option(
    "--price-tolerance",
    default="5%",
    show_default=True,
    help="How much dearer than in its plan the machine may be now.",
)
@click.option("--reservation", metavar="ID", help="Run in this reserved capacity, and end before it does.")
@store_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until the run is over.")
@click.option("--dry-run", is_flag=True, help="Check everything and show it, start nothing.")
@click.option(
    "--optimizer",
    is_flag=True,
    help="With --dry-run: ask SkyPilot's optimizer too, told our hours; takes seconds.",
)
@offline_option
@output_option("table", "json")
@pass_app
def command(
    app: App,
    file: Path,
    infra: str,
    candidate: str | None,
    run_id: str | None,
    cap: str | None,
    no_cap: bool,
    max_duration: str | None,
    monitor: MonitorHome,
    move: bool,
    price_tolerance: str,
    reservation: str | None,
    store_uri: str | None,
    yes: bool,
    wait: bool,
    dry_run: bool,
    optimizer: bool,
    output: str,
) -> None:
    """Launch FILE, a plan or a spec."""
    if optimizer and not dry_run:
        raise UsageError("--optimizer only asks, it launches nothing", hint="add --dry-run")
    if monitor == "remote":
        need_elsewhere(infra, reservation, wait)
    tolerance = _parsed(parse_share, price_tolerance)
    choices = replace(
        _choices(cap, no_cap, max_duration), monitor=monitor, move=move, own_cluster=infra == "cluster"
    )
    capacity = _capacity(app, reservation)
    if capacity is not None:
        limit_s = min(capacity.left_s, choices.max_duration_s or capacity.left_s)
        choices = replace(choices, max_duration_s=limit_s, reservation_ref=capacity.reference)
    plan, refuse = _plan(app, file, infra, capacity, limit=None if move else _CANDIDATES)
    with open_desk(app, infra) as desk:
        name, known = _run_id(desk, plan, run_id)
        order = _order(plan, candidate, choices, name, infra)
        if known is not None:
            refuse_other_terms(known, order, _given(candidate))
        elif capacity is None:
            order = _at_todays_price(app, order, file, tolerance)
        order, moving = _moving(app, desk, order, refuse) if known is None else (order, None)
        found = _check(app, desk, order, store_uri, is_new=known is None, write=not dry_run)
        if dry_run:
            answer_dry_run(app, desk, order, found, output, refuse, optimizer=optimizer)
            return
        if [row.code for row in found] == ["project_budget"]:
            raise OverBudgetError(found[0].message, hint=found[0].hint, code="project_budget")
        refuse(found)
        if known is None:
            _agreed(desk, order, moving, yes=yes)
        else:
            agree_again(app, desk, known, tolerance, yes=yes)
        if monitor == "remote":
            from planner.cli.launch_there import launch_there

            as_planned = replace(order, plan=plan)  # prices are looked at there too
            sys.exit(launch_there(app, as_planned, price_tolerance, store_uri, output))
        run, created = launch_order(app, desk, order, store_uri, moving)
    _answered(app, run, created, output, wait=wait)


def _moving(app: App, desk: Desk, order: Order, refuse: Refuse) -> tuple[Order, MovingOrder | None]:
    if not order.choices.move:
        return order, None
    return moving_of(app, order, refuse, zone_names_of(order), desk.store)


def _given(candidate: str | None) -> Given:
    """Which of its terms the command line named."""
    context = click.get_current_context()
    commanded = ("cap", "no_cap", "max_duration", "monitor", "move")
    named = {name for name in commanded if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    return Given(candidate, frozenset(named))


def _agreed(desk: Desk, order: Order, moving: MovingOrder | None, *, yes: bool) -> None:
    where = "on this machine" if order.infra == "local" else "on rented machines"
    alone = check_monitor(desk, order)
    tell_moving(moving)
    confirm(f"{alone}Launch {order.run_id} {where}?", yes=yes)


def _answered(app: App, run: Run, created: bool, output: str, *, wait: bool) -> None:
    if wait:
        run = wait_for_end(app, run.run_id)
    answer(app, run, created, output)
    if wait or run.final:
        raise_for(run)


def _capacity(app: App, reservation: str | None) -> Reserved | None:
    from planner.cli.reserve_launch import reserved

    return None if reservation is None else reserved(app, reservation)


def _plan(
    app: App, file: Path, infra: str, capacity: Reserved | None, *, limit: int | None
) -> tuple[Plan, Refuse]:
    """The plan for this machine or for rented ones, and how to raise what is wrong with it.

    A plan that was made for the other is made anew from its spec.
    """
    from planner.plan import load_plan
    from planner.specfile import load_spec

    if file.suffix != ".json":
        loaded = load_spec(file)
        cache = app.data_cache()
        spec, pins = cache.localised(loaded.spec, loaded.base_dir), cache.pins(loaded.spec, loaded.base_dir)
        made = _estimated(app, spec, loaded.base_dir, loaded.refuse, infra, capacity, limit=limit)
        return made._replace(data=pins), loaded.refuse
    plan = load_plan(file)
    elsewhere = any((row.offer.market == "local") != (infra == "local") for row in plan.candidates)
    if elsewhere or capacity is not None:
        made = _estimated(app, plan.spec, plan.base_dir, _refuse, infra, capacity, limit=limit)
        plan = made._replace(data=plan.data)
    return plan, _refuse


def _estimated(
    app: App,
    spec: FineTuneSpec,
    base_dir: Path,
    refuse: Refuse,
    infra: str,
    capacity: Reserved | None,
    *,
    limit: int | None,
) -> Plan:
    from planner.proposal import spec_blockers

    rented_there = capacity if infra != "local" else None  # this machine is what it is, whoever reserved it
    try:
        return app.estimate(
            spec,
            base_dir,
            app.snapshot(infra) if rented_there is None else rented_there.snapshot(),
            overrides=None if rented_there is None else rented_there.overrides(),
            limit=limit,
        ).plan()
    except UsageError:
        refuse(spec_blockers(spec, base_dir, os.environ, infra=infra))  # a missing file is rarely alone
        raise


def _order(plan: Plan, candidate_id: str | None, choices: Choices, run_id: str, infra: str) -> Order:
    from planner.errors import NothingFitsError
    from planner.proposal import Order

    chosen = candidate_id or plan.recommended
    if chosen is None:
        where = "this machine" if infra == "local" else "any machine that may be rented"
        why = f"`plan estimate SPEC{' --infra local' if infra == 'local' else ''}` shows why"
        raise NothingFitsError(f"the job does not fit on {where}", hint=why)
    return Order(plan, plan.candidate(chosen), choices, run_id)


def _at_todays_price(app: App, order: Order, file: Path, tolerance: float) -> Order:
    """The order at the prices of today; a plan that was made from the spec just now has them already.

    Raises:
        OverBudgetError: The price has risen by more than the tolerance.
    """
    from planner.repricing import Today, price_note, repriced_plan

    if file.suffix != ".json":
        return order
    plan, candidate = repriced_plan(
        order.plan, order.candidate, Today(app.snapshot(order.infra).offers), tolerance
    )
    note = price_note(order.candidate.offer, candidate.offer)
    if note is not None:
        echo_err(note)
    gone = len(order.plan.candidates) - len(plan.candidates)
    if gone:
        why = f"not offered any more, or dearer by more than {tolerance:.0%}"
        echo_err(f"{gone} of the plan's {len(order.plan.candidates)} candidates are left out: {why}")
    return replace(order, plan=plan, candidate=candidate)


def _parsed(parse: Callable[[str], float], text: str) -> float:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _choices(cap: str | None, no_cap: bool, max_duration: str | None) -> Choices:
    from planner.proposal import Choices

    if cap is not None and no_cap:
        raise UsageError("--cap and --no-cap exclude each other")
    return Choices(
        None if cap is None else _parsed(parse_usd, cap),
        no_cap,
        None if max_duration is None else _parsed(parse_duration_s, max_duration),
    )


def _run_id(desk: Desk, plan: Plan, wanted: str | None) -> tuple[str, Run | None]:
    """The run's id, and the run if it is on record already."""
    from planner.runs import check_run_id, new_run_id

    if wanted is not None:
        found = desk.store.get(check_run_id(wanted))
        return wanted, None if found is None or found.came_to_nothing else found
    interrupted = desk.store.pending(plan.plan_hash)
    if interrupted is not None:
        echo_err(f"an interrupted launch of this plan is on record, it goes on: {interrupted.run_id}")
        return interrupted.run_id, interrupted
    return new_run_id(plan.spec.name), None


def _check(
    app: App, desk: Desk, order: Order, store_uri: str | None, *, is_new: bool, write: bool
) -> list[Finding]:
    """What stands against it; the person sees the order first."""
    from planner.cli.launch_text import render_order
    from planner.data_cache import changed_sources
    from planner.proposal import blockers, licence, past_deadline

    if is_new:
        echo_err(render_order(order, desk.places, app.surroundings()))
        if (told := licence(order, app.surroundings())) is not None:
            echo_err(f"licence {told}")
    found = blockers(order, desk.places, app.surroundings(), write=write)
    if not is_new:
        return found
    found += [*changed_sources(order.plan.data, echo_err), *past_deadline(order, app.now())]
    return found + over_budget(app, desk, order, store_uri)


def _refuse(found: Iterable[Finding]) -> None:
    """Raise what is wrong with a plan, which has no lines to point at."""
    from planner.errors import SpecError

    findings = list(found)
    if findings:
        raise SpecError(findings)
