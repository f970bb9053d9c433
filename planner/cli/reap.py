"""`plan reap`: finds what no run needs any more, and ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import clock, open_ledger, open_register, store_option
from planner.cli.output import confirm, echo_err, emit_json, output_option
from planner.places import Places
from planner.run_document import micro_text
from planner.units import parse_duration_s
from providers.errors import CleanupPendingError, TuneplanError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from planner.ledger_identity import LedgerIdentity
    from planner.reap import Ended, HourPrice, Judge, Stray, Swept
    from planner.runs import Run
    from planner.store import Store
    from planner.try_book import Try
    from providers.object_store import ObjectStore
    from providers.offers import Offer
    from providers.strays import Sweeper, Thing

_SOURCES = ("local", "skypilot", "aws")
_EXAMPLE = """\b
Examples:
  plan reap --dry-run
  plan reap --source aws --yes
  plan reap --unknown --older-than 1h -o json --yes
"""


@click.command("reap", epilog=_EXAMPLE)
@click.option(
    "--source",
    "sources",
    multiple=True,
    type=click.Choice(_SOURCES),
    help="Where to look; repeatable. Default: everywhere.",
)
@click.option("--region", "regions", multiple=True, help="Only this region of AWS; repeatable.")
@click.option(
    "--older-than",
    default="5m",
    show_default=True,
    metavar="DURATION",
    help="Only what has been needless for so long: a machine takes a while to go.",
)
@click.option("--unknown", is_flag=True, help="Also end things of runs that this ledger does not know.")
@store_option
@click.option("--dry-run", is_flag=True, help="Show them, end nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    sources: tuple[str, ...],
    regions: tuple[str, ...],
    older_than: str,
    unknown: bool,
    store_uri: str | None,
    dry_run: bool,
    yes: bool,
    output: str,
) -> None:
    """Find machines, jobs, roles, uploads and secrets that no run needs any more, and end them.

    Looks at this machine, at SkyPilot and at AWS itself, by name and tag, so that also what the ledger has lost is
    found. Things of runs that this ledger does not know may be a colleague's, or a lost run's (`plan runs adopt`):
    they are shown, and ended only with --unknown. What ended is looked for again; exit 7 if anything is left.
    Where SkyPilot has run before, asking it starts its server, which stays (`sky api stop` ends it).
    """
    from planner.reap import end_all, sweep

    with open_ledger(app) as store:
        sweepers = list(_sweepers(app, store.all_runs(), sources or _SOURCES, regions))
        judge = _judge(app, store, older_than, open_register(app, store_uri)[0])
        found = sweep(sweepers, judge)
        chosen = [stray for stray in found.strays if stray.is_ours or (unknown and stray.owner is None)]
        if output == "table" or not (dry_run or yes):
            _show(found, judge.now)
        ended: list[Ended] = []
        if chosen and not dry_run:
            confirm(f"End {len(chosen)} of them?", yes=yes)
            ended = end_all(sweepers, chosen, store, clock(app))
    _answer(app, found, ended, judge.now, dry_run=dry_run, output=output)
    left = [row for row in ended if row.error is not None]
    if left:
        names = ", ".join(row.stray.thing.name for row in left)
        raise CleanupPendingError(
            f"{len(left)} of {len(ended)} could not be ended, money may be running: {names}",
            hint="run `plan reap` again, or end them in the cloud's console",
        )


def _sweepers(
    app: App, runs: list[Run], sources: Iterable[str], regions: tuple[str, ...]
) -> Iterable[Sweeper]:
    places = Places(app.directories.state)
    if "local" in sources:
        from providers.local import LocalLauncher
        from providers.strays_local import LocalSweeper, SecretSweeper

        yield LocalSweeper(LocalLauncher(places.local))
        yield SecretSweeper(places.state / "bundles")
    if "skypilot" in sources:
        from providers.skypilot_strays import SkyPilotSweeper

        yield SkyPilotSweeper()
    if "aws" in sources:
        from providers.strays_aws import InstanceSweeper, RoleSweeper, UploadSweeper

        yield InstanceSweeper(regions)
        yield RoleSweeper()
        over = {run.run_id: run.terms.checkpoint_uri for run in runs if run.final}
        buckets = {run_id: uri for run_id, uri in over.items() if uri.startswith("s3://")}
        if buckets:
            yield UploadSweeper(buckets)


def _judge(app: App, store: Store, older_than: str, register: ObjectStore) -> Judge:
    from planner.ledger_identity import identity_of
    from planner.reap import Judge

    try:
        settle_s = parse_duration_s(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from None
    ledger = identity_of(store.path)
    return Judge(
        store.all_runs(),
        _prices(app),
        _owner_of(register, ledger),
        _adopter_of(ledger),
        clock(app)(),
        settle_s,
        _tries(store),
    )


def _prices(app: App) -> Callable[[Thing], HourPrice]:
    """What things cost by the price book, which is read once; one that cannot be read keeps nothing running."""
    from planner.reap import price_in

    known: dict[str, Sequence[Offer]] = {}

    def price_of(thing: Thing) -> HourPrice:
        infra = "local" if thing.cloud == "local" else "skypilot"
        if infra not in known:
            try:
                known[infra] = app.snapshot(infra).offers
            except TuneplanError as error:
                echo_err(f"what things cost is unknown here: {error.message}")
                known[infra] = ()
        return price_in(known[infra], thing)

    return price_of


def _tries(store: Store) -> list[Try]:
    from planner.try_book import TryBook

    with TryBook(store.path) as book:
        return book.all_tries()


def _owner_of(register: ObjectStore, ledger: LedgerIdentity) -> Callable[[str], str | None]:
    from planner.register import other_owner

    return lambda run_id: other_owner(register, run_id, ledger)


def _adopter_of(ledger: LedgerIdentity) -> Callable[[Run], str | None]:
    from planner.record import adopter
    from providers.stores import open_store

    known: dict[str, str | None] = {}

    def of(run: Run) -> str | None:
        if run.run_id not in known:
            known[run.run_id] = adopter(open_store(run.terms.checkpoint_uri), ledger)
        return known[run.run_id]

    return of


def _show(found: Swept, now: str) -> None:
    for stray in found.strays:
        thing = stray.thing
        price = _price_text(stray, now)
        since = "" if thing.since_at is None else f" since {thing.since_at[:19].replace('T', ' ')} UTC"
        echo_err(f"{thing.kind:<9}{thing.name}  {thing.place}{since}  {price}\n         {stray.why}")
    for name, reason in found.not_examined.items():
        echo_err(f"not examined: {name}: {reason}")
    if any(not stray.is_ours and stray.owner is None for stray in found.strays):
        echo_err("--unknown ends also those whose run this ledger does not know")


def _price_text(stray: Stray, now: str) -> str:
    per_hour = micro_text(stray.price.micro_usd_per_hour)
    if per_hour is None:
        return "price unknown"
    if per_hour == "0":
        return "free"
    cost = micro_text(stray.cost_micro_usd(now))
    return f"${per_hour}/h, ${cost or '?'} so far ({stray.price.source})"


def _answer(app: App, found: Swept, ended: list[Ended], now: str, *, dry_run: bool, output: str) -> None:
    errors = {row.stray.thing: row.error for row in ended}
    if output == "json":
        rows = [_document(stray, now, errors) for stray in found.strays]
        unseen = [{"source": name, "reason": reason} for name, reason in found.not_examined.items()]
        emit_json("reap", {"dry_run": dry_run, "strays": rows, "not_examined": unseen}, now=app.now())
        return
    gone = sum(error is None for error in errors.values())
    if not found.strays:
        click.echo("no strays" if not found.not_examined else "no strays where could be looked")
    else:
        click.echo(f"{gone} of {len(found.strays)} strays ended")


def _document(stray: Stray, now: str, errors: dict[Thing, str | None]) -> dict[str, Any]:
    thing = stray.thing
    return {
        "kind": thing.kind,
        "name": thing.name,
        "run_id": thing.run if stray.run is None else stray.run.run_id,
        "attempt": thing.attempt,
        "place": thing.place,
        "since_at": thing.since_at,
        "usd_per_h": micro_text(stray.price.micro_usd_per_hour),
        "price_source": stray.price.source,
        "cost_usd": micro_text(stray.cost_micro_usd(now)),
        "bytes": thing.bytes,
        "why": stray.why,
        "known": stray.is_ours,
        "owner": stray.owner,
        "ended": errors[thing] is None if thing in errors else False,
        "error": errors.get(thing),
    }
