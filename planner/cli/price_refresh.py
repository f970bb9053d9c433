"""`plan prices refresh`: asks the sellers themselves, each on its own, so that one that fails stops no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.pricebook import cached_prices, changing_prices, open_pricebook
from providers.catalog import EMBEDDED
from providers.errors import CorruptDataError, StorageError, TuneplanError, UsageError
from providers.price_table import PriceTable, read_table, write_table

if TYPE_CHECKING:
    from providers.availability import AvailabilitySource
    from providers.live_prices import LiveSource
    from providers.offers import Offer

_ADVISOR = "aws-advisor"
_NAMES = ("aws-spot", _ADVISOR, "azure", "oci", "vast", "aws", "aws-zones")
_EXAMPLE = """\b
Sources:
  aws-spot     spot price of each AWS region
  aws-advisor  how many spot machines AWS took back last month; no price
  azure        on-demand and spot of each Azure region
  oci          OCI's list prices
  vast         machines on Vast.ai that can be rented now
  aws          AWS on-demand; hundreds of megabytes a region, so name regions
  aws-zones    spot price of each AWS zone, with your credentials
\b
Examples:
  plan prices refresh
  plan prices refresh aws --region us-east-1 --region us-west-2
"""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one source; of signals, `fresh` counts machines that it tells something of."""

    source: LiveSource | AvailabilitySource
    fresh: int = 0
    error: TuneplanError | None = None

    def document(self) -> dict[str, Any]:
        return {
            "source": self.source.name,
            "cloud": self.source.cloud,
            "status": "ok" if self.error is None else "failed",
            "message": None if self.error is None else self.error.message,
            "fresh": self.fresh,
        }


@click.command("refresh", epilog=_EXAMPLE)
@click.argument("names", metavar="[SOURCE]...", type=click.Choice(_NAMES), nargs=-1)
@click.option("--region", "regions", multiple=True, help="Only this region; may be repeated.")
@click.option("--url", metavar="URL", help="Another address of the one source named.")
@output_option("table", "json")
@pass_app
def command(
    app: App, /, names: tuple[str, ...], regions: tuple[str, ...], url: str | None, output: str
) -> None:
    """Ask sellers for today's prices of the machines that are known.

    Without a SOURCE, all that are quick and need no credentials. What a source does not name keeps its price and
    date. A source that fails changes nothing, is named, and makes the exit code that of its error.
    """
    if url is not None and len(names) != 1:
        raise UsageError(
            "--url is the address of one source", hint="name it: plan prices refresh azure --url URL"
        )
    path = cached_prices(app.directories.cache)
    outcomes = []
    with changing_prices(app.directories.cache):
        before = table = table_in_use(app.directories.cache)
        for source in _sources(names):
            table, outcome = _asked(app, table, source, frozenset(regions) or None, url)
            outcomes.append(outcome)
        if table is not before:
            write_table(path, table)
        if not names or _ADVISOR in names:
            outcomes.append(_advised(app, frozenset(regions) or None, url))
    _answer(app, path, outcomes, output)
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    if failed:
        raise failed[0]


def table_in_use(cache: Path) -> PriceTable:
    """What clouds that are not fetched keep; a damaged file is replaced, so it must not stop the update."""
    try:
        return read_table(open_pricebook(cache).path)[1]
    except (CorruptDataError, UsageError) as error:
        echo_err(f"warning: {error}: clouds that were not fetched get the embedded prices")
        return read_table(EMBEDDED)[1]


def _sources(names: tuple[str, ...]) -> list[LiveSource]:
    from providers.live_sources import SOURCES

    return [source for source in SOURCES if (source.name in names if names else source.usual)]


def _asked(
    app: App, table: PriceTable, source: LiveSource, regions: frozenset[str] | None, url: str | None
) -> tuple[PriceTable, _Outcome]:
    from providers.live_prices import Asked
    from providers.live_sources import refreshed

    staging = app.directories.cache / "downloads"
    asked = Asked((), url or "", staging, app.now(), regions, told=echo_err)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        fresh, reading = refreshed(table, source, asked)
    except TuneplanError as error:
        return table, _Outcome(source, error=error)
    except OSError as error:
        reason = StorageError(f"cannot write {staging}: {error.strerror}", path=str(staging))
        return table, _Outcome(source, error=reason)
    return fresh, _Outcome(source, reading.fresh)


def _advised(app: App, regions: frozenset[str] | None, url: str | None) -> _Outcome:
    """Ask how many spot machines AWS took back, and keep it for estimates."""
    import os

    from planner.signal_book import keep_signals, said_of
    from providers.availability import Inquiry, Wanted
    from providers.availability_sources import SOURCES, ask_all

    source = next(one for one in SOURCES if one.name == _ADVISOR)
    offers: dict[tuple[str, str | None], Offer] = {}
    for offer in open_pricebook(app.directories.cache).snapshot.offers:
        named = regions is None or offer.region in regions
        if offer.cloud == source.cloud and offer.market == "spot" and named:
            offers[offer.region, offer.instance_type] = offer
    wanted = tuple(Wanted(offer, 1) for offer in offers.values())
    if not wanted:
        return _Outcome(source)
    inquiry = Inquiry(wanted, os.environ, Path.home(), app.now())
    (answered,) = ask_all(inquiry, {_ADVISOR: url or ""}, frozenset({_ADVISOR}))
    if answered.problem is not None:
        return _Outcome(source, error=StorageError(answered.problem, hint=answered.hint))
    try:
        return _Outcome(source, keep_signals(app.directories.cache, said_of([answered]), app.now()))
    except UsageError as error:
        return _Outcome(source, error=error)


def _answer(app: App, path: Path, outcomes: list[_Outcome], output: str) -> None:
    snapshot_id, table = read_table(open_pricebook(app.directories.cache).path)
    asked = {
        outcome.source.cloud
        for outcome in outcomes
        if outcome.error is None and outcome.source.name != _ADVISOR
    }
    fresh = sum(outcome.fresh for outcome in outcomes if outcome.source.name != _ADVISOR)
    today = app.now().date().isoformat()
    if output == "json":
        payload = {"snapshot_id": snapshot_id, "path": str(path), "machines": len(table.rows), "fresh": fresh}
        kept = sum(row.cloud in asked and row.as_of != today for row in table.rows)
        sources = [outcome.document() for outcome in outcomes]
        emit_json("prices_refresh", {**payload, "kept": kept, "sources": sources}, now=app.now())
        return
    for outcome in outcomes:
        what = "machines told of" if outcome.source.name == _ADVISOR else "prices of today"
        said = f"{outcome.fresh:,} {what}" if outcome.error is None else f"failed: {outcome.error.message}"
        click.echo(f"{outcome.source.name:<13}{said}")
    click.echo(f"snapshot {snapshot_id}")
