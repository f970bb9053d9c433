"""`plan prices`: which prices are in use, and getting others."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option
from planner.cli.price_refresh import command as refresh_command
from planner.cli.price_refresh import table_in_use
from planner.cli.price_text import age_span, prices_document, table_text
from planner.price_age import age_text, price_age
from planner.pricebook import Pricebook, cached_prices, changing_prices, open_pricebook
from providers.errors import UsageError
from providers.price_table import write_table
from providers.skypilot_catalog import ImportReport, import_catalogs

if TYPE_CHECKING:
    from providers.hosted_catalogs import FetchedCloud

_MOST_PROBLEMS_SHOWN = 20


@click.group("prices", epilog="\b\nExample:\n  plan prices show\n  plan prices update")
def command() -> None:
    """Show the prices in use, fetch newer ones or import your own copies."""


@command.command("show", epilog="\b\nExample:\n  plan prices show -o json")
@click.option(
    "--prices", type=click.Path(path_type=Path), help="A snapshot file instead of the prices in use."
)
@output_option("table", "json")
@pass_app
def show(app: App, prices: Path | None, output: str) -> None:
    """Say which price snapshot is in use, what it covers and how old it is."""
    book = open_pricebook(app.directories.cache, prices, overrides=app.config.prices.overrides, now=app.now())
    if output == "json":
        emit_json("prices", _document(book, app), now=app.now())
    else:
        click.echo(_table(book, app))


@command.command("import", epilog="\b\nExample:\n  plan prices import ~/.sky/catalogs/v8")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: the prices in use.")
@click.option("--as-of", metavar="DATE", help="Date of catalogs whose date nothing says, as in 2026-05-20.")
@output_option("table", "json")
@pass_app
def import_(app: App, directory: Path, out: Path | None, as_of: str | None, output: str) -> None:
    """Import SkyPilot catalogs: DIRECTORY holds <cloud>/vms.csv, as ~/.sky/catalogs/v8 does.

    A sources.json in DIRECTORY may say of each file where it comes from, of what date it is and whether it
    is complete; a cloud that nobody calls complete counts as known in part.
    """
    report = ImportReport()
    table = import_catalogs(directory, as_of=_date(as_of), report=report)
    path = out or cached_prices(app.directories.cache)
    with nullcontext() if out else changing_prices(app.directories.cache):
        snapshot_id = write_table(path, table)
    _show_problems(report)
    if output == "json":
        payload = {"snapshot_id": snapshot_id, "path": str(path), "machines": len(table.rows)}
        counts = dict(sorted(report.counts.items()))
        emit_json("prices_import", {**payload, "counts": counts, "problems": report.problems}, now=app.now())
    else:
        click.echo(_import_text(path, snapshot_id, len(table.rows), report.counts))


command.add_command(refresh_command)


@command.command(
    "update", epilog="\b\nExamples:\n  plan prices update\n  plan prices update --cloud aws --cloud gcp"
)
@click.option("--url", metavar="URL", help="Holds <cloud>/vms.csv; default: prices.url of the configuration.")
@click.option(
    "--cloud", "clouds", multiple=True, help="Only this cloud, which must be there; may be repeated."
)
@output_option("table", "json")
@pass_app
def update(app: App, /, url: str | None, clouds: tuple[str, ...], output: str) -> None:
    """Fetch SkyPilot's hosted catalogs and use them from now on.

    All files or none: if one cannot be fetched whole, the prices in use stay and the same command goes on
    where it stopped. Clouds that are not published there keep the prices that are in use.
    """
    from providers.hosted_catalogs import CatalogServer, merged

    cache = app.directories.cache
    report = ImportReport()
    server = CatalogServer(url or app.config.prices.url, cache / "downloads")
    with changing_prices(cache):
        table, fetched = server.fetch(tuple(cloud.lower() for cloud in clouds), app.now(), report)
        table = merged(table, table_in_use(cache))
        snapshot_id = write_table(cached_prices(cache), table)
    _show_problems(report)
    files = [_fetched_json(cloud) for cloud in fetched]
    if output == "json":
        payload = {"snapshot_id": snapshot_id, "path": str(cached_prices(cache)), "machines": len(table.rows)}
        emit_json("prices_update", {**payload, "files": files, "problems": report.problems}, now=app.now())
    else:
        click.echo("\n".join(_fetched_text(file) for file in files))
        click.echo(_import_text(cached_prices(cache), snapshot_id, len(table.rows), report.counts))


def _fetched_json(fetched: FetchedCloud) -> dict[str, Any]:
    file = fetched.file
    return {
        "cloud": fetched.cloud,
        "url": fetched.url,
        "status": "absent" if file is None else "unchanged" if file.checksum == "unchanged" else "fetched",
        "bytes": None if file is None else file.bytes,
        "resumed_bytes": None if file is None else file.resumed_bytes,
        "checked_by": None if file is None else file.checksum,
        "modified_at": None if file is None or file.modified is None else f"{file.modified}T00:00:00Z",
    }


def _fetched_text(file: dict[str, Any]) -> str:
    if file["status"] == "absent":
        return f"{file['cloud']:<14}not published there: its prices stay as they are"
    if file["status"] == "unchanged":
        return f"{file['cloud']:<14}unchanged"
    resumed = f", {file['resumed_bytes']:,} of them from before" if file["resumed_bytes"] else ""
    return f"{file['cloud']:<14}{file['bytes']:,} bytes{resumed}, checked by {file['checked_by']}"


def _show_problems(report: ImportReport) -> None:
    for problem in report.problems[:_MOST_PROBLEMS_SHOWN]:
        echo_err(f"warning: {problem}: row left out")
    hidden = len(report.problems) - _MOST_PROBLEMS_SHOWN
    if hidden > 0:
        echo_err(f"warning: {hidden:,} more malformed rows left out; `-o json` lists all")


def _date(text: str | None) -> str | None:
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"--as-of {text}: not a date, write it as in 2026-05-20") from None


def _import_text(path: Path, snapshot_id: str, machines: int, counts: Counter[str]) -> str:
    lines = [
        f"{machines:,} machines with GPUs written to {path}",
        f"snapshot {snapshot_id}",
        f"read {counts['read']:,} rows; left out: {counts['cpu']:,} without a GPU, "
        f"{counts['gpu_slice']:,} with a slice of one, {counts['malformed']:,} malformed, "
        f"{counts['duplicate']:,} listed twice, {counts['replaced_by_newer']:,} replaced by newer ones",
    ]
    if counts["gcp_joined"] or counts["gcp_without_host"]:
        lines.append(
            f"gcp: {counts['gcp_joined']:,} machines joined from host and GPU prices "
            f"({counts['gcp_joined_from_region']:,} with the region's host price), "
            f"{counts['gcp_without_host']:,} without a host price"
        )
    return "\n".join(lines)


def _table(book: Pricebook, app: App) -> str:
    now = app.now()
    snapshot = book.snapshot
    rows = [
        (
            entry.cloud,
            f"{entry.rows:,}",
            "yes" if entry.complete else "no",
            age_text(entry.as_of_at, now),
            entry.note,
        )
        for entry in snapshot.coverage
    ]
    age = price_age(snapshot.offers, now, app.config.prices.max_age_s)
    head = [
        f"prices    {book.origin}: {book.path}",
        f"snapshot  {snapshot.snapshot_id}",
        f"offers    {len(snapshot.offers):,}, {age_span(age, now)}",
        "",
        table_text(("cloud", "offers", "complete", "oldest", "note"), rows, ("offers", "oldest"), ("note",)),
        "",
        "a cloud that is not complete may have lower prices than those known",
    ]
    return "\n".join(head)


def _document(book: Pricebook, app: App) -> dict[str, Any]:
    now = app.now()
    offers = book.snapshot.offers
    age = price_age(offers, now, app.config.prices.max_age_s)
    flags = Counter(flag for offer in offers for flag in offer.flags)
    return {
        "prices": prices_document(book, age),
        "path": str(book.path),
        "offers": len(offers),
        "undated": age.undated,
        "stale": age.stale,
        "flags": dict(sorted(flags.items())),
    }
