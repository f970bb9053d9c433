"""`plan find`: which machines of a plan can be had now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.desk import store_option
from planner.cli.find_try import end_cut_off, try_them
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.plan_of import plan_of
from providers.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from planner.avoidance import Sighting
    from planner.candidates import Candidate
    from planner.finding import Login
    from planner.plan import Plan
    from planner.try_book import Try
    from providers.availability import Answered

_EXAMPLE = """\b
Examples:
  plan find spec.yaml
  plan find plan.json --limit 5 -o json
  plan find spec.yaml --offline
  plan find spec.yaml --try --cap 2
"""
_OFFLINE = "not asked (--offline)"
_NO_LOGIN: tuple[tuple[str, ...], str] = ((), "")


@click.command("find", epilog=_EXAMPLE)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--limit", type=click.IntRange(1, 100), default=10, show_default=True, help="Candidates to ask about."
)
@click.option("--cloud", "clouds", multiple=True, help="Only this cloud's machines; may be repeated.")
@click.option("--offline", is_flag=True, help="Ask nobody: only what was seen here before.")
@click.option(
    "--url", "urls", multiple=True, metavar="SOURCE=URL", help="Another address of a source; may be repeated."
)
@click.option(
    "--try",
    "trying",
    is_flag=True,
    help="Rent them in this order, until one is had; each is given back at once.",
)
@click.option("--cap", metavar="USD", help="With --try: what all tries together may cost at most.")
@click.option(
    "--wait", default="10m", show_default=True, metavar="DURATION", help="With --try: for each machine."
)
@click.option("--all", "every", is_flag=True, help="With --try: go on after a machine was had.")
@click.option(
    "--end-tries", is_flag=True, help="End what tries that were cut off have left, and nothing else."
)
@store_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask before a try.")
@output_option("table", "json")
@pass_app
def command(
    app: App,
    /,
    file: Path | None,
    limit: int,
    clouds: tuple[str, ...],
    offline: bool,
    urls: tuple[str, ...],
    trying: bool,
    output: str,
    end_tries: bool,
    **rules: Any,
) -> None:
    """Find which machines of FILE, a spec or a plan, can be had now.

    In the order in which a launch would try them: quotas, spot prices, placement scores and stock as each seller gives
    them, each with its source and age, and what was seen here before: machines had, refused and taken away. What nobody
    tells is unknown; a score is no promise. Nothing is rented, unless by --try: what was had then, and after how long,
    is kept, and queue times come from it.
    """
    from planner.finding import find_document, found_machines, render_found

    now, addresses = app.now(), _addresses(urls)
    if end_tries:
        end_cut_off(app, rules["store_uri"])
        return
    if file is None:
        raise UsageError("name a spec or a plan", hint="plan find spec.yaml")
    plan = plan_of(app, file)
    chosen = _named(_chosen(plan, clouds, limit), offline and not trying)
    done = try_them(app, plan.spec, chosen, **rules) if trying else []
    now = app.now() if trying else now
    answered = [] if offline else _asked(now, chosen, addresses)
    _keep(app, plan, chosen, answered)
    unasked = _not_asked(chosen, offline)
    logins = _logins(chosen)
    sightings, tries = _memory(app)
    found = found_machines(chosen, answered, sightings, tries, now)
    open_tries = [one for one in tries if one.is_open]
    if output == "json":
        emit_json("find", find_document(found, answered, open_tries, unasked, logins, done), now=now)
    else:
        click.echo(render_found(found, answered, unasked, logins, now))
    for one in open_tries:
        echo_err(f"warning: something of {one.try_id} may cost money: `plan find --end-tries` ends it")
    if done and not any(one.state == "released" for one in done):
        raise LaunchError(f"none of the {len(done)} machines tried could be had", hint="see why above")


def _chosen(plan: Plan, clouds: tuple[str, ...], limit: int) -> tuple[Candidate, ...]:
    """The candidates to ask about, in the plan's order.

    Raises:
        NothingFitsError: There is none.
    """
    from planner.errors import NothingFitsError

    rented = [row for row in plan.candidates if row.offer.market != "local"]
    chosen = tuple(row for row in rented if not clouds or row.offer.cloud in clouds)[:limit]
    if not chosen:
        where = f" of {' or '.join(clouds)}" if clouds else " that may be rented"
        raise NothingFitsError(f"the job fits on no machine{where}", hint="`plan estimate SPEC` shows why")
    return chosen


def _asked(now: datetime, candidates: Sequence[Candidate], urls: dict[str, str]) -> list[Answered]:
    from planner.finding import wanted_of
    from providers.availability import Inquiry
    from providers.availability_sources import ask_all

    wanted = tuple(dict.fromkeys(map(wanted_of, candidates)))
    echo_err(
        f"asking about {len(wanted)} machines of {', '.join(sorted({row.offer.cloud for row in wanted}))}"
    )
    return ask_all(Inquiry(wanted, os.environ, Path.home(), now), urls)


def _keep(app: App, plan: Plan, named: Sequence[Candidate], answered: Sequence[Answered]) -> None:
    """Keep for estimates what says something of losses, under the names that zones have in the prices."""
    from planner.finding import wanted_of
    from planner.signal_book import keep_signals, said_of

    priced = {row.candidate_id: row.offer for row in plan.candidates}
    offers = {wanted_of(row): priced[row.candidate_id] for row in named}
    try:
        keep_signals(app.directories.cache, said_of(answered, offers), app.now())
    except UsageError as error:
        echo_err(f"warning: estimates will not know of these signals: {error}")


def _named(candidates: Sequence[Candidate], offline: bool) -> list[Candidate]:
    """With the account's names of zones, as the ledger has them; without a login nobody is asked for them."""
    from providers.aws_zones import zone_names

    known = not offline and _logins(candidates).get("aws", _NO_LOGIN)[0]
    names = zone_names(row.offer for row in candidates) if known else {}
    return [
        row._replace(offer=row.offer._replace(zone=names.get(row.offer.zone or "", row.offer.zone)))
        for row in candidates
    ]


def _memory(app: App) -> tuple[list[Sighting], list[Try]]:
    """What the ledger has seen; nothing where there is none."""
    from planner.places import Places
    from planner.sightings import sightings_of
    from planner.store import Store
    from planner.try_book import TryBook

    path = Places(app.directories.state).ledger
    if not path.exists():
        return [], []
    with Store(path) as store, TryBook(path) as book:
        tries = book.all_tries()
        return sightings_of(store.all_runs(), tries, store.askings()), tries


def _addresses(urls: tuple[str, ...]) -> dict[str, str]:
    """Addresses by source.

    Raises:
        UsageError: There is no such source.
    """
    from providers.availability_sources import SOURCES

    names = {source.name for source in SOURCES}
    found = {}
    for text in urls:
        name, sign, url = text.partition("=")
        if name not in names or not sign:
            hint = f"SOURCE=URL, where the sources are {', '.join(sorted(names))}"
            raise UsageError(f"--url {text}: there is no source {name!r}", hint=hint)
        found[name] = url.rstrip("/")
    return found


def _not_asked(candidates: Sequence[Candidate], offline: bool) -> dict[str, str]:
    """Why nobody was asked, by cloud."""
    from providers.availability_sources import clouds_without_source

    clouds = sorted({row.offer.cloud for row in candidates})
    if offline:
        return dict.fromkeys(clouds, _OFFLINE)
    return dict.fromkeys(clouds_without_source(clouds), "it offers nothing that could be asked")


def _logins(candidates: Sequence[Candidate]) -> dict[str, Login]:
    from planner.credentials import CLOUDS, found_credentials
    from planner.finding import Login

    clouds = {row.offer.cloud for row in candidates}
    return {
        cloud.name: Login(found_credentials(cloud, os.environ, Path.home()), cloud.login)
        for cloud in CLOUDS
        if cloud.name in clouds
    }
