"""The prices in use: the newest of the embedded snapshot and the one fetched or imported last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from planner.price_overrides import PriceOverride, with_overrides
from providers.catalog import EMBEDDED, load_snapshot
from providers.offers import Offer, PriceSnapshot
from providers.price_table import read_header

SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Pricebook:
    """A snapshot and the place it was read from.

    Attributes:
        snapshot: The offers.
        origin: embedded, cache (fetched or imported by `plan prices`) or file (named on the command line).
        path: The snapshot file.
    """

    snapshot: PriceSnapshot
    origin: str
    path: Path


def cached_prices(cache: Path) -> Path:
    """Where `plan prices update` and `plan prices import` keep the snapshot in use."""
    return cache / "prices.csv"


def open_pricebook(
    cache: Path,
    file: Path | None = None,
    *,
    overrides: Sequence[PriceOverride] = (),
    now: datetime | None = None,
) -> Pricebook:
    """The snapshot of a file if one is named, else the newer one of cache and embedded.

    Args:
        cache: Directory of the snapshot that was fetched or imported last.
        file: A snapshot file to use instead.
        overrides: Your own prices, laid over it.
        now: UTC, the date of your own prices; needed only with overrides.

    Raises:
        UsageError: The file is not a snapshot.
        CorruptDataError: Its rows do not match its snapshot id.
    """
    origin, path = ("file", file) if file is not None else _in_use(cached_prices(cache))
    snapshot = load_snapshot(path)
    if now is not None:
        snapshot = with_overrides(snapshot, overrides, now)
    return Pricebook(snapshot, origin, path)


def _in_use(cached: Path) -> tuple[str, Path]:
    if cached.exists() and _newest(cached) >= _newest(EMBEDDED):
        return "cache", cached
    return "embedded", EMBEDDED


def _newest(path: Path) -> str:
    return read_header(path).newest_as_of_at or ""


def age_s(as_of_at: str | None, now: datetime) -> float | None:
    """Seconds since a price was true, None if it is undated.

    Args:
        as_of_at: RFC 3339 date or time in UTC.
        now: UTC.

    >>> age_s("2026-01-01T00:00:00Z", datetime(2026, 1, 3, tzinfo=UTC))
    172800.0
    """
    if as_of_at is None:
        return None
    moment = datetime.fromisoformat(as_of_at.replace("Z", "+00:00"))
    return max((now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class PriceAge:
    """How old a set of offers is.

    Attributes:
        oldest_as_of_at: Of the dated ones, None if none is dated.
        newest_as_of_at: Likewise.
        undated: Offers that do not say when they were true.
        stale: Offers older than the limit, undated ones included.
    """

    oldest_as_of_at: str | None
    newest_as_of_at: str | None
    undated: int
    stale: int


def price_age(offers: Iterable[Offer], now: datetime, max_age_s: float) -> PriceAge:
    """Ages of offers; an undated price counts as stale because nobody knows better."""
    counts: dict[str | None, int] = {}
    for offer in offers:
        counts[offer.as_of_at] = counts.get(offer.as_of_at, 0) + 1
    dates = [date for date in counts if date is not None]
    return PriceAge(
        oldest_as_of_at=min(dates, default=None),
        newest_as_of_at=max(dates, default=None),
        undated=counts.get(None, 0),
        stale=sum(number for date, number in counts.items() if is_stale(date, now, max_age_s)),
    )


def is_stale(as_of_at: str | None, now: datetime, max_age_s: float) -> bool:
    """Whether a price is too old, or undated."""
    age = age_s(as_of_at, now)
    return age is None or age > max_age_s
