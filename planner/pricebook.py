"""The prices in use: the newest of the embedded snapshot and the one fetched or imported last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from planner.price_overrides import PriceOverride, with_overrides
from providers.catalog import EMBEDDED, load_snapshot
from providers.errors import UsageError
from providers.offers import PriceSnapshot
from providers.price_table import read_header


class Pricebook(NamedTuple):
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


@contextmanager
def changing_prices(cache: Path) -> Iterator[None]:
    """One process at a time changes the prices in use: what it does not fetch it takes over from them.

    Raises:
        UsageError: Another one is at it.
        StorageError: The cache cannot be written.
    """
    from providers.process_lock import held

    busy = UsageError(
        "another process is changing the prices in use", hint="wait until it has ended", code="busy"
    )
    with held(cache / "prices.lock", busy):
        yield


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
