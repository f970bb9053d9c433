"""`plan offers`: what machines cost, where, and how far each price can be trusted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from planner.cli.completing import complete_gpu
from planner.cli.context import App, pass_app
from planner.cli.output import echo_err, emit_json, output_option, usd_text
from planner.cli.price_text import age_span, partial_clouds, prices_document, table_text, usd
from planner.errors import NothingFitsError
from planner.offer_document import offer_document
from planner.offer_list import (
    GROUPS,
    SORTS,
    OfferGroup,
    OfferList,
    OfferQuery,
    group_offers,
    list_offers,
    other_boards,
)
from planner.place_names import likeness
from planner.price_age import SECONDS_PER_DAY, PriceAge, age_s, age_text, is_stale, price_age
from planner.pricebook import Pricebook, open_pricebook
from planner.units import GpuFilter, parse_gpu_filter
from providers.errors import UsageError
from providers.offers import FLAGS, Offer, PriceSnapshot

_EXAMPLE = """\b
Examples:
  plan offers --gpu A100-80GB:8 --spot --group-by cloud
  plan offers --gpu H100:1..8 --gpu H200 --cloud gcp --on-demand
  plan offers --gpu L4 --region us-central1 -o json
Exit code 3 if no offer matches; with --strict an old or undated price is no offer.
"""


@click.command("offers", epilog=_EXAMPLE)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="GPU[:N]",
    shell_complete=complete_gpu,
    help="Only this GPU, as in H100:8 or L4:1..4.",
)
@click.option("--cloud", "clouds", multiple=True, help="Only this cloud; may be repeated.")
@click.option("--region", "regions", multiple=True, help="Only this region or zone; may be repeated.")
@click.option("--spot", "markets", flag_value="spot", multiple=True, help="Only spot prices.")
@click.option("--on-demand", "markets", flag_value="on_demand", multiple=True, help="Only on-demand prices.")
@click.option("--group-by", type=click.Choice(GROUPS), help="One line a cloud, GPU, region or market.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="gpu-price", show_default=True, help="Order of offers."
)
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="Lines to show, 0 for all."
)
@click.option("--max-age-days", type=click.FloatRange(0), help="Age from which a price is called old.")
@click.option("--strict", is_flag=True, help="Leave old and undated prices out.")
@click.option(
    "--prices", type=click.Path(path_type=Path), help="A snapshot file instead of the prices in use."
)
@output_option("table", "json", "csv")
@pass_app
def command(
    app: App, /, output: str, prices: Path | None, limit: int, group_by: str | None, **asked: Any
) -> None:
    """List machines with GPUs and their prices, US dollars before tax."""
    book = open_pricebook(app.directories.cache, prices, overrides=app.config.prices.overrides, now=app.now())
    answer = _answer(app, book, group_by, limit, asked)
    if output == "json":
        emit_json("offers", _document(answer), now=answer.now)
    elif output == "csv":
        click.echo(_csv_text(answer), nl=False)
    else:
        click.echo("\n".join((_table(answer), "", *_footer(answer))))
    if output != "json":
        for _, message in _warnings(answer):
            echo_err(f"warning: {message}")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was found, and what is needed to show it."""

    book: Pricebook
    found: OfferList
    groups: list[OfferGroup] | None
    shown: int
    age: PriceAge
    max_age_s: float
    boards: dict[str, int]
    now: datetime

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The offers to show, the others only counted."""
        return self.found.offers[: self.shown or None]


def _answer(app: App, book: Pricebook, group_by: str | None, limit: int, asked: dict[str, Any]) -> _Answer:
    now = app.now()
    days = asked["max_age_days"]
    max_age_s = app.config.prices.max_age_s if days is None else days * SECONDS_PER_DAY
    gpus = tuple(_gpu_filter(text) for text in asked["gpus"])
    query = OfferQuery(
        gpus=gpus,
        clouds=_known(book.snapshot, "cloud", asked["clouds"]),
        regions=_known(book.snapshot, "region", asked["regions"]),
        markets=frozenset(asked["markets"]),
        too_old=(lambda as_of_at: is_stale(as_of_at, now, max_age_s)) if asked["strict"] else None,
    )
    found = list_offers(book.snapshot, query, asked["sort"])
    if not found.offers:
        raise NothingFitsError("no offer matches", hint=_nothing_hint(found, book.snapshot, gpus))
    return _Answer(
        book=book,
        found=found,
        groups=group_offers(found.offers, group_by) if group_by else None,
        shown=limit,
        age=price_age(found.offers, now, max_age_s),
        max_age_s=max_age_s,
        boards=other_boards(book.snapshot, gpus),
        now=now,
    )


def _gpu_filter(text: str) -> GpuFilter:
    try:
        return parse_gpu_filter(text)
    except ValueError as error:
        raise UsageError(f"--gpu {text}: {error}") from None


def _known(snapshot: PriceSnapshot, kind: str, names: tuple[str, ...]) -> frozenset[str]:
    """The names, if the snapshot has them: a misspelt cloud must not look like one without offers."""
    if not names:
        return frozenset()
    there = {offer.cloud for offer in snapshot.offers}
    if kind == "region":
        there = {place for offer in snapshot.offers for place in (offer.region, offer.zone) if place}
    else:
        names = tuple(name.lower() for name in names)
    for name in names:
        if name not in there:
            raise UsageError(f"the prices in use know no {kind} `{name}`", hint=likeness(name, there))
    return frozenset(names)


def _nothing_hint(found: OfferList, snapshot: PriceSnapshot, gpus: tuple[GpuFilter, ...]) -> str:
    parts = [f"{count:,} offers left out: {reason}" for reason, count in found.left_out.items()]
    parts += [f"{count:,} offers have {board}" for board, count in other_boards(snapshot, gpus).items()]
    return "; ".join(parts)


def _table(answer: _Answer) -> str:
    if answer.groups is not None:
        return _group_table(answer.groups[: answer.shown or None], answer.now)
    columns = (
        "cloud",
        "region or zone",
        "machine",
        "GPUs",
        "GiB",
        "market",
        "$/h",
        "$/GPU-h",
        "age",
        "doubts",
    )
    rows = [tuple(_cells(offer, answer.now)) for offer in answer.offers]
    return table_text(
        columns, rows, ("GiB", "$/h", "$/GPU-h", "age"), ("region or zone", "machine", "doubts")
    )


def _cells(offer: Offer, now: datetime) -> Iterator[str]:
    yield offer.cloud
    yield offer.zone or offer.region
    yield offer.instance_type or "-"
    yield f"{offer.gpu}:{offer.gpus_per_node}"
    yield "?" if offer.gpu_mem_gib is None else f"{offer.gpu_mem_gib:g}"
    yield offer.market.replace("_", "-")
    yield usd(offer.price_usd_per_hour)
    yield usd(offer.price_usd_per_gpu_hour)
    yield age_text(offer.as_of_at, now)
    posted = "" if offer.posted_usd_per_hour is None else f" (posted {usd(offer.posted_usd_per_hour)})"
    yield ", ".join(offer.flags) + posted


def _group_table(groups: list[OfferGroup], now: datetime) -> str:
    columns = (
        "group",
        "offers",
        "priced",
        "median $/GPU-h",
        "lowest $/GPU-h",
        "$/h",
        "age",
        "lowest is",
        "doubts",
    )
    rows = [tuple(_group_cells(group, now)) for group in groups]
    return table_text(columns, rows, columns[1:7], ("lowest is", "doubts"))


def _group_cells(group: OfferGroup, now: datetime) -> Iterator[str]:
    low = group.lowest
    yield from (group.name, f"{group.offers:,}", f"{group.priced:,}", usd(group.median_usd_per_gpu_hour))
    if low is None:
        yield from ("unknown", "unknown", "-", "-", "-")
        return
    yield usd(low.price_usd_per_gpu_hour)
    yield usd(low.price_usd_per_hour)
    yield age_text(low.as_of_at, now)
    yield f"{low.cloud} {low.zone or low.region} {low.instance_type} {low.market.replace('_', '-')}"
    yield ", ".join(low.flags)


def _shown_offers(answer: _Answer) -> Iterable[Offer]:
    """Those in the table."""
    if answer.groups is None:
        return answer.offers
    return (group.lowest for group in answer.groups[: answer.shown or None] if group.lowest is not None)


def _footer(answer: _Answer) -> Iterator[str]:
    found = answer.found
    if answer.groups is not None:
        shown = min(answer.shown or len(answer.groups), len(answer.groups))
        yield f"shown {shown} of {len(answer.groups)} groups of {len(found.offers):,} matching offers"
    flags = sorted({flag for offer in _shown_offers(answer) for flag in offer.flags})
    for flag in flags:
        yield f"{flag}: {FLAGS.get(flag, 'see the source')}"
    for board, count in answer.boards.items():
        yield f"not shown: {count:,} offers of {board}, another board of that chip"
    yield f"US dollars before tax, whole machines; {age_span(answer.age, answer.now)}"
    partial = partial_clouds(answer.book.snapshot.coverage, {offer.cloud for offer in found.offers})
    if partial:
        yield f"known only in part: {', '.join(partial)}; lower prices may exist there"
    left_out = "; ".join(f"{count:,} left out: {reason}" for reason, count in found.left_out.items())
    if answer.groups is None:
        yield (
            f"shown {len(answer.offers):,} of {len(found.offers):,} matching offers, "
            f"of {found.total:,} in the snapshot" + (f" ({left_out})" if left_out else "")
        )


def _warnings(answer: _Answer) -> list[tuple[str, str]]:
    if not answer.age.stale:
        return []
    share = f"{answer.age.stale:,} of {len(answer.found.offers):,}"
    limit = f"{answer.max_age_s / SECONDS_PER_DAY:g} days"
    return [("stale_prices", f"{share} prices are older than {limit} or undated")]


def _document(answer: _Answer) -> dict[str, Any]:
    found = answer.found
    groups = answer.groups
    return {
        "prices": prices_document(answer.book, answer.age),
        "offers": [_offer_json(offer, answer.now) for offer in answer.offers],
        "groups": None if groups is None else [_group_json(group, answer.now) for group in groups],
        "matched": len(found.offers),
        "total": found.total,
        "left_out": [{"reason": reason, "count": count} for reason, count in found.left_out.items()],
        "other_boards": [{"gpu": gpu, "count": count} for gpu, count in answer.boards.items()],
        "warnings": [{"code": code, "message": message} for code, message in _warnings(answer)],
    }


def _offer_json(offer: Offer, now: datetime) -> dict[str, Any]:
    age = age_s(offer.as_of_at, now)
    return {
        **offer_document(offer),
        "posted_usd_per_h": usd_text(offer.posted_usd_per_hour),
        "age_s": None if age is None else round(age),
    }


def _group_json(group: OfferGroup, now: datetime) -> dict[str, Any]:
    lowest = group.lowest
    return {
        "name": group.name,
        "offers": group.offers,
        "priced": group.priced,
        "lowest_usd_per_gpu_h": None if lowest is None else usd_text(lowest.price_usd_per_gpu_hour),
        "median_usd_per_gpu_h": usd_text(group.median_usd_per_gpu_hour),
        "lowest_offer": None if lowest is None else _offer_json(lowest, now),
    }


def _csv_text(answer: _Answer) -> str:
    """Same columns as OFFER of the JSON, an unknown value is an empty cell, flags are separated by `|`."""
    rows: Iterable[dict[str, Any]] = [_offer_json(offer, answer.now) for offer in answer.offers]
    if answer.groups is not None:
        rows = [_group_json(group, answer.now) for group in answer.groups[: answer.shown or None]]
        for row in rows:
            del row["lowest_offer"]
    rows = list(rows)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {key: "|".join(cell) if isinstance(cell, list) else cell for key, cell in row.items()}
        )
    return buffer.getvalue()
