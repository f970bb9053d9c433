"""`plan reserve buy`, `schedule`, `cancel`, `settle`: what spends, and what undoes it where it can be undone."""

from __future__ import annotations

import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import open_ledger
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.cli.reserve_desk import (
    asked,
    job_of,
    open_book,
    parsed,
    reservation_ids,
    surroundings,
    window_options,
)
from planner.errors import NothingFitsError, OverBudgetError, PolicyError
from planner.places import Places
from planner.units import parse_deadline, parse_usd
from providers.errors import CredentialsError, LaunchError, TuneplanError, UsageError

if TYPE_CHECKING:
    from planner.cli.reserve_desk import Job
    from planner.reserve.book import ReservationBook
    from planner.reserve.purchase import Buyer
    from planner.reserve.reservations import LaunchPlan, Reservation
    from planner.reserve.search import Found
    from providers.reservations import CapacityOffer, ProviderName

#: How often a purchase whose answer was lost is looked for before a person is told.
_LOOKS = 6
_WAIT_S = 30.0

_launch_option = click.option("--no-launch", is_flag=True, help="Only buy; start no run in the capacity.")
_infra_option = click.option(
    "--infra",
    type=click.Choice(["skypilot", "local"]),
    default="skypilot",
    show_default=True,
    help="As of launch.",
)


@click.command(
    "buy", epilog="\b\nExample:\n  plan reserve buy spec.yaml --offer o-498d34024f3e --confirm-usd 755.14"
)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--offer", "offer_id", required=True, metavar="ID", help="From `plan reserve offers`.")
@window_options
@click.option(
    "--name", help="Name of the reservation; the same name is never bought twice. Default: made up."
)
@click.option("--confirm-usd", metavar="USD", help="Agree to exactly this amount beforehand.")
@_launch_option
@_infra_option
@output_option("table", "json")
@pass_app
def buy(
    app: App,
    /,
    spec: Path,
    offer_id: str,
    name: str | None,
    confirm_usd: str | None,
    no_launch: bool,
    infra: str,
    output: str,
    **window: Any,
) -> None:
    """Buy an offer for the job of SPEC, once, for exactly the amount that you type.

    A run is started in the capacity when it begins, by `plan scheduler`. A purchase that was interrupted goes on
    when the same command is given again.
    """
    from planner.reserve.lock import buying
    from planner.reserve.plan_purchase import agree

    job = job_of(app, spec, window)
    row = _chosen(app, job, offer_id, window)
    _check_launch(row.offer.provider, no_launch)
    _check_reach(row.offer, infra, no_launch)
    with open_book(app) as book:
        known = _known(book, row.offer, name)
        reservation_id = _name(job, name) if known is None else known.reservation_id
        agreed_usd = _agree(row, job, confirm_usd) if known is None else Decimal(0)
        with buying(Places(app.directories.state).ledger, wait_s=_WAIT_S):
            # again: another command may have bought it while a person was asked
            reservation = known or _known(book, row.offer, name)
            if reservation is not None:
                was = f"{reservation.state} already as {reservation.reservation_id}"
                echo_err(f"this offer is {was}, nothing else is bought")
            else:
                launch = None if no_launch else _launch(spec, reservation_id, infra)
                wish = (row.offer, row.sized.needed_h, agreed_usd)
                reservation = agree(book, reservation_id, *wish, app.now(), launch)
            reservation = _bring_forward(app, book, reservation)
        _answer(app, book, reservation, output)
    _raise_for(reservation)


@click.command(
    "schedule",
    epilog="\b\nExample:\n  plan reserve schedule spec.yaml --cap 900usd --by 2027-01-15 --decide-by 2027-01-05",
)
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--cap", required=True, metavar="USD", help="Most that may be paid up front.")
@click.option("--decide-by", metavar="TIME", help="Stop looking then; default: when it would be too late.")
@window_options
@click.option("--name", help="Name of the reservation. Default: made up.")
@click.option("--confirm-usd", metavar="USD", help="Agree to spend up to exactly the cap beforehand.")
@_launch_option
@_infra_option
@output_option("table", "json")
@pass_app
def schedule(
    app: App,
    /,
    spec: Path,
    cap: str,
    decide_by: str | None,
    name: str | None,
    confirm_usd: str | None,
    no_launch: bool,
    infra: str,
    output: str,
    **window: Any,
) -> None:
    """Buy what suits the job of SPEC as soon as it is offered below a price; `plan scheduler` does it.

    What was not bought by the time to decide is `missed`, and told.
    """
    from planner.reserve.plan_purchase import stand

    job = job_of(app, spec, window)
    cap_usd = parsed("--cap", parse_usd, cap)
    wish = _wish(app, job, cap_usd, decide_by)
    _check_launch(wish.provider, no_launch)
    reservation_id = _name(job, name)
    kinds = ", ".join(machine.instance_type for machine in wish.want.machines)
    echo_err(
        f"{reservation_id}: buy {wish.want.nodes} x {kinds} for {wish.want.hours:,.1f} h between"
        f" {wish.want.start_from:%Y-%m-%d %H:%M} and {wish.want.end_by:%Y-%m-%d %H:%M} UTC from {wish.provider},"
        f" for at most ${cap_usd:,.2f} up front, not refunded; decided by {wish.decide_by:%Y-%m-%d %H:%M} UTC"
    )
    _confirm_amount(Decimal(str(cap_usd)), confirm_usd)
    with open_book(app) as book:
        launch = None if no_launch else _launch(spec, reservation_id, infra)
        reservation = stand(book, reservation_id, wish, app.now(), launch)
        _answer(app, book, reservation, output)
    echo_err("`plan scheduler run` (or `tick` from cron) looks for it")


@click.command("cancel", epilog="\b\nExample:\n  plan reserve cancel llama-may-k4x2p")
@click.argument("reservation", shell_complete=reservation_ids)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--under-its-runs", is_flag=True, help="Agree beforehand that runs in its capacity lose their machines."
)
@output_option("table", "json")
@pass_app
def cancel(app: App, reservation: str, yes: bool, under_its_runs: bool, output: str) -> None:
    """Cancel a reservation: one that is not bought yet, or one that the provider takes back.

    Where runs are in its capacity, they are named and asked for once more: `--yes` alone does not agree to that.
    """
    from planner.reserve.lock import buying
    from planner.reserve.undo import cancel as undo

    with open_book(app) as book:
        row = book.get(reservation)
        confirm(f"Cancel {row.reservation_id}, which is {row.state}?", yes=yes)
        _agree_to_end(app, row, yes=under_its_runs)
        with buying(Places(app.directories.state).ledger, wait_s=_WAIT_S):
            done = undo(_buyer(app, book), row.reservation_id)
        _answer(app, book, done, output)


def _agree_to_end(app: App, row: Reservation, *, yes: bool) -> None:
    """Ask once more where runs that are not over are in the capacity."""
    from planner.reserve.rest import runs_in

    with open_ledger(app) as store:
        runs = runs_in(row, store.active_runs())
    if not runs:
        return
    named = ", ".join(f"{run.run_id} ({run.state})" for run in runs)
    echo_err(f"in its capacity: {named}; without it they lose their machines and are not started again")
    confirm(f"Take the capacity from {named}?", yes=yes, flag="--under-its-runs")


@click.command("settle", epilog="\b\nExample:\n  plan reserve settle llama-may-k4x2p --not-bought")
@click.argument("reservation", shell_complete=reservation_ids)
@click.option("--not-bought", is_flag=True, help="The provider's console shows that nothing was bought.")
@click.option("--bought", metavar="REF", help="The provider's id of what was bought.")
@output_option("table", "json")
@pass_app
def settle(app: App, reservation: str, not_bought: bool, bought: str | None, output: str) -> None:
    """Say what became of a reservation that is `unknown`, after a look into the provider's console."""
    from planner.reserve.lock import buying
    from planner.reserve.undo import settle as decide

    if not_bought == (bought is not None):
        raise UsageError("say one of --bought REF and --not-bought")
    ledger = Places(app.directories.state).ledger
    with open_book(app) as book, buying(ledger, wait_s=_WAIT_S):
        row = decide(_buyer(app, book), reservation, bought)
        _answer(app, book, row, output)


def _chosen(app: App, job: Job, offer_id: str, window: dict[str, Any]) -> Found:
    found, _ = asked(app, job, window)
    for row in found:
        if row.offer.offer_id == offer_id:
            return row
    raise NothingFitsError(
        f"the offer {offer_id} is not for sale any more, or not for this job",
        hint="`plan reserve offers` with the same options lists what is",
    )


def _check_launch(provider: ProviderName, no_launch: bool) -> None:
    """Capacity that no run of ours can use is bought on purpose only.

    Raises:
        UsageError: A run was to be started in it.
    """
    from planner.reserve.sold import no_runs

    if not no_launch and (why := no_runs(provider)) is not None:
        raise UsageError(f"{provider}: {why}", hint="pass --no-launch to buy it all the same")


def _check_reach(offer: CapacityOffer, infra: str, no_launch: bool) -> None:
    """SkyPilot reaches own machines through their cluster.

    Raises:
        UsageError: They have none.
    """
    alone = offer.provider == "inhouse" and offer.zone is None
    if alone and infra == "skypilot" and not no_launch:
        raise UsageError(
            f"pool {offer.region} names no Slurm cluster, so that SkyPilot could start no run there",
            hint="--infra local on the machine itself, or --no-launch",
        )


def _name(job: Job, name: str | None) -> str:
    from planner.runs import check_run_id, new_run_id

    return new_run_id(job.loaded.spec.name) if name is None else check_run_id(name)


def _launch(spec: Path, reservation_id: str, infra: str) -> LaunchPlan:
    from planner.reserve.reservations import LaunchPlan

    return LaunchPlan(str(spec.absolute()), infra, reservation_id)


def _agree(row: Found, job: Job, confirm_usd: str | None) -> Decimal:
    """Show what will be bought, and let the person type the amount, which is given back."""
    from planner.cli.reserve_text import render_purchase
    from planner.reserve.plan_purchase import amount_due

    echo_err(render_purchase(row, job))
    return _confirm_amount(amount_due(row.offer), confirm_usd, row.offer.upfront_usd)


def _confirm_amount(due: Decimal, confirm_usd: str | None, exact: Decimal | None = None) -> Decimal:
    """Go on only if exactly this amount was typed, to the cent or to the last digit of the price.

    Raises:
        UsageError: Another amount, or nobody can be asked.
    """
    if confirm_usd is None and not sys.stdin.isatty():
        raise UsageError(
            f"Buying costs ${due:,.2f}, which is not refunded. Nobody can be asked here",
            hint=f"pass `--confirm-usd {due}` to agree to exactly that; --yes is not enough",
        )
    text = confirm_usd or click.prompt(f"Type the amount in US dollars to agree ({due})", err=True)
    try:
        typed = Decimal(text.strip().removeprefix("$").removesuffix("usd").replace(",", ""))
    except InvalidOperation:
        raise UsageError(f"{text!r} is not an amount of US dollars; nothing was bought") from None
    if typed not in (due, exact):
        raise OverBudgetError(
            f"the amount is ${due:,.2f}, not {text}; nothing was bought",
            hint="prices move: look at `plan reserve offers` again",
        )
    return typed


def _wish(app: App, job: Job, cap_usd: float, decide_by: str | None) -> Any:
    """The standing order of a job: one provider, its best kinds of machine."""
    from datetime import timedelta

    from planner.reserve.plan_purchase import Standing
    from planner.reserve.reservations import Want

    sellers = [(name, sized) for name, sized in job.sized.items() if sized]
    if not sellers:
        raise NothingFitsError("the job fits on no machine that can be reserved")
    provider, sized = sellers[0]
    same = [one for one in sized if one.nodes == sized[0].nodes]
    hours = max(one.needed_h for one in same)
    latest = job.window.end_by - timedelta(hours=hours)
    until = latest if decide_by is None else parsed("--decide-by", parse_deadline, decide_by)
    if until <= app.now():
        raise PolicyError(f"it would have to be decided by {until:%Y-%m-%d %H:%M} UTC, which is over")
    regions = job.window.regions or tuple(sorted({region for one in same for region in one.regions}))
    want = Want(
        *(same[0].nodes, hours, job.window.start_from, job.window.end_by, regions),
        tuple(one.machine for one in same),
    )
    return Standing(provider, want, cap_usd, app.now(), min(until, latest))


def _buyer(app: App, book: ReservationBook) -> Buyer:
    from planner.reserve.apis import open_api
    from planner.reserve.purchase import Buyer

    around = surroundings(app)
    return Buyer(book, lambda name: open_api(name, around), app.now, echo_err, _LOOKS)


def _known(book: ReservationBook, offer: CapacityOffer, name: str | None) -> Reservation | None:
    """The reservation that this offer was agreed to for before, unless another one is asked for by its name."""
    from planner.reserve.plan_purchase import bought_before

    known = bought_before(book, offer)
    return known if known is not None and name in (None, known.reservation_id) else None


def _bring_forward(app: App, book: ReservationBook, reservation: Reservation) -> Reservation:
    """Buy it now; what could not be asked for is taken back, so that nobody buys it later unasked."""
    from planner.reserve.purchase import advance
    from planner.reserve.undo import cancel as undo

    buyer = _buyer(app, book)
    try:
        done = advance(buyer, reservation.reservation_id)
    except TuneplanError:
        left = book.get(reservation.reservation_id)
        if left.state == "planned" or (left.state == "intent" and left.sent_at is None):
            undo(buyer, left.reservation_id)
            echo_err(f"{left.reservation_id}: nothing was bought, and later will not be either")
        raise
    if done.state != "planned":
        return done
    undo(buyer, done.reservation_id)
    raise CredentialsError(
        f"{done.reservation_id}: {done.state_reason}; nothing was bought", hint=done.warning
    )


def _answer(app: App, book: ReservationBook, row: Reservation, output: str) -> None:
    from planner.cli.reserve_text import render_reservation
    from planner.reserve.documents import reservation_document

    history = book.events(row.reservation_id)
    if output == "json":
        emit_json("reserve_list", {"reservations": [reservation_document(row, history)]}, now=app.now())
    else:
        click.echo(render_reservation(row, history))


def _raise_for(row: Reservation) -> None:
    """The exit code of a purchase."""
    if row.state == "unknown":
        from providers.reservations import PurchaseUnclearError

        raise PurchaseUnclearError(
            f"{row.reservation_id}: {row.state_reason}",
            hint=f"it is looked for again; `plan reserve settle {row.reservation_id}` once you know",
        )
    if row.state == "missed":
        raise PolicyError(f"{row.reservation_id}: {row.state_reason}")
    if row.state == "failed":
        kind = OverBudgetError if "price" in row.state_reason else LaunchError
        raise kind(f"{row.reservation_id}: {row.state_reason}; nothing was bought")
