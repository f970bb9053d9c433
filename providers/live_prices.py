"""Prices asked for at the seller, now: which sources there are, and how their answers go into the price table.

A source knows prices, not machines: GPU, memory and CPUs come from the rows that are there. What a source does not
name keeps its old price and date. On-demand and spot are asked for at different times, so the two prices of a machine
become two rows with their own source and date.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from providers.price_checks import price_flags
from providers.price_table import SPOT_ONLY, PriceRow, is_spot_only

#: Doubts about a machine, which a new price does not end.
_LASTING = ("unknown_gpu", "memory_mismatch", "not_availability")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a source is given.

    Attributes:
        rows: Of the source's cloud, each with one price (`halves`).
        url: Where to ask.
        staging: Folder for downloads.
        now: UTC.
        regions: Only these, None for all that the rows know.
        told: Called with a sentence on what takes long.
        sleep: Waits between attempts.
    """

    rows: tuple[PriceRow, ...]
    url: str
    staging: Path
    now: datetime
    regions: frozenset[str] | None = None
    told: Callable[[str], None] = lambda _: None
    sleep: Callable[[float], None] = time.sleep

    @property
    def today(self) -> str:
        """ISO date."""
        return self.now.date().isoformat()

    def machine_types(self) -> frozenset[str]:
        """Instance types whose GPUs are known."""
        return frozenset(row.instance_type for row in self.rows if row.instance_type)

    def allowed_regions(self) -> tuple[str, ...]:
        """The regions to ask about, sorted."""
        known = {row.region for row in self.rows}
        return tuple(sorted(known if self.regions is None else self.regions))


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source answered.

    Attributes:
        rows: All rows of its cloud from now on.
        fresh: How many of them have today's price of this source.
    """

    rows: tuple[PriceRow, ...]
    fresh: int


class Place(NamedTuple):
    """Where a machine type has a price; no zone is the whole region."""

    region: str
    zone: str | None
    instance_type: str


@dataclass(frozen=True, slots=True)
class LiveSource:
    """A seller's prices.

    Attributes:
        name: For the command line.
        cloud: Lower-case name.
        about: What it gives, and what it costs to ask.
        url: Its address.
        read: Asks it; raises StorageError, CredentialsError or MissingExtraError.
        usual: Asked when no source is named: quick, and without credentials.
    """

    name: str
    cloud: str
    about: str
    url: str
    read: Callable[[Asked], Reading] = field(repr=False)
    usual: bool = True


def halves(rows: Iterable[PriceRow]) -> Iterator[PriceRow]:
    """Each row as one with its on-demand price and, if it has one, another with its spot price."""
    for row in rows:
        if is_spot_only(row) or row.spot_usd_per_hour is None:
            yield row
        else:
            yield row._replace(spot_usd_per_hour=None, spot_flags="")
            yield row._replace(on_demand_usd_per_hour=None, on_demand_flags=SPOT_ONLY)


def joined(rows: Sequence[PriceRow]) -> Iterator[PriceRow]:
    """The reverse of `halves` where both prices of a machine are of one source and date."""
    spots = {_where(row): row for row in rows if is_spot_only(row)}
    for row in rows:
        if is_spot_only(row):
            continue
        spot = spots.pop(_where(row), None) if row.spot_usd_per_hour is None else None
        yield (
            row
            if spot is None
            else row._replace(spot_usd_per_hour=spot.spot_usd_per_hour, spot_flags=spot.spot_flags)
        )
    yield from spots.values()


def _where(row: PriceRow) -> tuple[str | None, ...]:
    return row.cloud, row.region, row.zone, row.instance_type, row.source, row.as_of


def priced(
    asked: Asked,
    prices: Mapping[Place, float],
    market: Literal["on_demand", "spot"],
    source: str,
    *extra: str,
) -> Reading:
    """The rows with a source's prices.

    An on-demand price of a region counts for all its zones. A spot price of a place replaces what was known of that
    place; one of a whole region replaces older ones of its zones too, because zones move apart within hours.

    Args:
        asked: With the rows as they were.
        prices: USD per hour of whole machines.
        market: What they are.
        source: Where they come from, in a few words.
        extra: Doubts that all of them have.
    """
    templates = {row.instance_type: row for row in asked.rows if row.instance_type}
    on_demand = {
        (row.region, row.instance_type): row.on_demand_usd_per_hour
        for row in asked.rows
        if not is_spot_only(row)
    }
    kept = tuple(row for row in asked.rows if not _replaced(row, prices, market, asked.today))
    fresh = []
    for place in sorted(prices, key=lambda place: (place.region, place.zone or "", place.instance_type)):
        template = templates.get(place.instance_type)
        if template is None:
            continue
        for zone in _zones(asked.rows, place, market):
            bare = template._replace(region=place.region, zone=zone, source=source, as_of=asked.today)
            beside = on_demand.get((place.region, place.instance_type))
            fresh.append(_with_price(bare, prices[place], beside, market, extra))
    return Reading((*kept, *fresh), len(fresh))


def _zones(rows: Iterable[PriceRow], place: Place, market: str) -> list[str | None]:
    """The zones that get the price of a place."""
    if market == "spot" or place.zone is not None:
        return [place.zone]
    known = {
        row.zone
        for row in rows
        if not is_spot_only(row) and (row.region, row.instance_type) == (place.region, place.instance_type)
    }
    return sorted(known, key=lambda zone: zone or "") or [None]


def _replaced(row: PriceRow, prices: Mapping[Place, float], market: str, today: str) -> bool:
    if is_spot_only(row) != (market == "spot") or row.instance_type is None:
        return False
    region = Place(row.region, None, row.instance_type) in prices
    if market == "spot" and row.zone is not None and region:
        return row.as_of != today
    return region or Place(row.region, row.zone, row.instance_type) in prices


def _with_price(
    row: PriceRow, price: float, on_demand: float | None, market: str, extra: tuple[str, ...]
) -> PriceRow:
    lasting = [flag for flag in f"{row.on_demand_flags}|{row.spot_flags}".split("|") if flag in _LASTING]
    common = [*lasting, *extra]
    if market == "on_demand":
        flags, _ = price_flags(row.cloud, price, None, common, gpus=row.gpus)
        return row._replace(
            on_demand_usd_per_hour=price, spot_usd_per_hour=None, on_demand_flags=flags, spot_flags=""
        )
    _, flags = price_flags(row.cloud, on_demand, price, common, gpus=row.gpus)
    return row._replace(
        on_demand_usd_per_hour=None, spot_usd_per_hour=price, on_demand_flags=SPOT_ONLY, spot_flags=flags
    )
