"""The prices in use: a snapshot file, or the one that ships with tuneplan."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from providers.offers import PriceSnapshot
from providers.price_table import read_table, to_snapshot

EMBEDDED = Path(__file__).parent / "data" / "prices.csv"


class PriceCatalog(Protocol):
    """Anything that can say what machines cost."""

    def snapshot(self) -> PriceSnapshot:
        """All offers it knows, with their dates and doubts."""
        ...


def load_snapshot(path: Path | None = None) -> PriceSnapshot:
    """A snapshot from a file written by `plan prices import`, without one the embedded snapshot.

    Raises:
        UsageError: There is no such file, or it is not a snapshot file.
        CorruptDataError: Its rows do not match its snapshot id.
    """
    snapshot_id, table = read_table(path or EMBEDDED)
    return to_snapshot(snapshot_id, table)


def load_default_snapshot() -> PriceSnapshot:
    """The embedded snapshot: dated facts, partial for some clouds (see its coverage), never live."""
    return load_snapshot(None)
