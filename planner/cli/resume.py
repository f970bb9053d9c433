"""`plan resume`: go on from the last committed checkpoint."""

from __future__ import annotations

import json
from contextlib import suppress

import click

from planner.cli.completing import complete_run
from planner.cli.context import App, pass_app
from planner.cli.desk import open_desk_of
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.cli.run_text import state_text
from planner.cli.waiting import raise_for, wait_for_end
from planner.money import micro_usd
from planner.monitor import observe
from planner.run_document import progress_of, run_document
from planner.runs import RESUMABLE, Run
from planner.units import parse_duration_s, parse_share, parse_usd
from providers.errors import StorageError, UsageError
from providers.offers import Offer


@click.command("resume", epilog="\b\nExample:\n  plan resume goat-1 --yes")
@click.argument("run", shell_complete=complete_run)
@click.option("--cap", metavar="USD", help="A new cap for the whole run.")
@click.option("--max-duration", metavar="DURATION", help="A new limit for each attempt, as in 90m.")
@click.option(
    "--price-tolerance",
    default="5%",
    show_default=True,
    help="How much dearer than before the machine may be now.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", is_flag=True, help="Wait until the run is over.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    run: str,
    cap: str | None,
    max_duration: str | None,
    price_tolerance: str,
    yes: bool,
    wait: bool,
    output: str,
) -> None:
    """Start RUN again from its last committed checkpoint, after a preemption, failure, cap or cancel."""
    from planner.entry_book import entry_of, hold_again, holding_again
    from planner.launch import resume

    try:
        cap_micro = None if cap is None else micro_usd(parse_usd(cap))
        limit_s = None if max_duration is None else parse_duration_s(max_duration)
        tolerance = parse_share(price_tolerance)
    except ValueError as error:
        raise UsageError(str(error)) from None
    with open_desk_of(app, run) as (desk, found):
        found = observe(desk.store, desk.launcher, found, desk.now())
        offer, candidate_json = _at_todays_price(app, found, tolerance)
        confirm(f"Resume {found.run_id} {_where(found)} {_from(found)}?", yes=yes)
        is_lower = _is_lower(found, cap_micro)
        with holding_again(desk.store.path, entry_of(found, desk.now())):
            if found.state in RESUMABLE:
                hold_again(found, None if is_lower else cap_micro, offer)
            found = resume(
                desk,
                found,
                offer=offer,
                candidate_json=candidate_json,
                cap_micro_usd=cap_micro,
                max_duration_s=limit_s,
            )
        if is_lower:
            with suppress(StorageError):  # else it holds more than it needs until it is over
                hold_again(found, None, offer)
    if wait:
        found = wait_for_end(app, found.run_id)
    if output == "json":
        emit_json("status", {"run": run_document(found, now=app.now())}, now=app.now())
    else:
        click.echo(f"{found.run_id}: {state_text(found.state)}, attempt {found.current.attempt}")
        echo_err(f"`plan status {found.run_id}` and `plan logs -f {found.run_id}` show how it goes")
    if wait:
        raise_for(found)


def _at_todays_price(app: App, run: Run, tolerance: float) -> tuple[Offer | None, str | None]:
    """The machine that is asked for first at its price of now, which is told, and the candidate with all of them.

    A machine that the price list has no more keeps its last price: else what was trained could not be gone on with.

    Raises:
        OverBudgetError: The price has risen by more than the tolerance.
    """
    from planner.errors import OverBudgetError
    from planner.repricing import is_reserved, machines_asked_for

    if run.state not in RESUMABLE or is_reserved(run):
        return None, None
    before = machines_asked_for(run)[0]
    try:
        offer, candidate = _repriced(app, run, tolerance)
    except OverBudgetError as error:
        if error.code == "price_moved":
            raise
        echo_err(
            f"note: {error.message}; cap and ledger go by the last price known, {_price(before, _nodes(run))}"
        )
        return None, None
    if offer.price_usd_per_hour != 0:
        echo_err(_price_text(before, offer, _nodes(run)))
    return offer, candidate


def _repriced(app: App, run: Run, tolerance: float) -> tuple[Offer, str | None]:
    from planner.repricing import machines_asked_for, machines_of, repriced, repriced_record, todays_prices

    planned = machines_asked_for(run)
    today = todays_prices(app.snapshot(run.terms.infra).offers, planned)
    hint = "launch it anew from a new plan"
    if run.terms.moving_json is not None:  # the policy chooses its machines, at today's prices
        return repriced(planned[0], today, tolerance, hint=hint), None
    document = repriced_record(json.loads(run.terms.candidate_json), today, tolerance, hint=hint)
    return machines_of(document)[0], json.dumps(document)


def _nodes(run: Run) -> int:
    return int(json.loads(run.terms.candidate_json)["nodes"])


def _price_text(before: Offer, now: Offer, nodes: int) -> str:
    """What it goes on at, in words."""
    price, old = _price(now, nodes), _price(before, nodes)
    moved = "" if old == price else f", before it was {old}"
    have = "its machine" if nodes == 1 else f"{nodes} machines"
    cost = "costs" if nodes == 1 else "cost"
    machine = f"({now.gpus_per_node} x {now.gpu} in {now.cloud}/{now.region})"
    return f"{have} {machine} {cost} {price}{moved}"


def _price(offer: Offer, nodes: int) -> str:
    """Of all machines: what cap and ledger count."""
    return "unknown" if offer.price_usd_per_hour is None else f"${offer.price_usd_per_hour * nodes:g}/h"


def _is_lower(run: Run, cap_micro: int | None) -> bool:
    """Whether a run that its monitor may start meanwhile, with the cap on record, is to get a lower one."""
    on_record = run.terms.cap_micro_usd
    waits = run.state in RESUMABLE and not run.final
    return waits and cap_micro is not None and on_record is not None and cap_micro < on_record


def _where(run: Run) -> str:
    return "on this machine" if run.terms.infra == "local" else "on rented machines"


def _from(run: Run) -> str:
    progress = progress_of(run)
    last = None if progress is None else progress.last_checkpoint
    return "from the beginning" if last is None else f"from step {last.step}"
