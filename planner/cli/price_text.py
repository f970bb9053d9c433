"""Tables and ages of prices as text: what `plan offers` and `plan prices` share."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from planner.price_age import PriceAge, age_text
from planner.pricebook import Pricebook
from providers.offers import Coverage

#: A column that folds is not made narrower than this.
_LEAST_FOLDED = 12


def table_text(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[str],
    folds: Sequence[str] = (),
) -> str:
    """A table without lines, so that it can be copied.

    Args:
        columns: Their names.
        rows: Cells of each row.
        numbers: Columns that are set flush right.
        folds: Columns whose text goes on below itself where a terminal is too narrow; in a file nothing folds.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in numbers else "left"
        table.add_column(name, justify=justify, no_wrap=name not in folds, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    widths = {name: max(len(str(row[i])) for row in [columns, *rows]) + 2 for i, name in enumerate(columns)}
    if sys.stdout.isatty():
        # Never narrower than what cannot fold: a terminal wraps a long line, a cut price is lost.
        least = {name: min(size, _LEAST_FOLDED) if name in folds else size for name, size in widths.items()}
        width = max(sum(least.values()), shutil.get_terminal_size().columns)
    else:
        width = sum(widths.values())
    buffer = io.StringIO()
    Console(file=buffer, width=width, force_terminal=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def usd(value: float | None) -> str:
    """An amount as a person reads it; an unknown one is said to be."""
    return "unknown" if value is None else f"{value:,.2f}" if value >= 10 else f"{value:,.4f}"


def age_span(age: PriceAge, now: datetime) -> str:
    """Dates and ages of a set of prices."""
    undated = f", {age.undated:,} undated" if age.undated else ""
    if age.oldest_as_of_at is None or age.newest_as_of_at is None:
        return "prices are undated"
    oldest, newest = age.oldest_as_of_at[:10], age.newest_as_of_at[:10]
    if oldest == newest:
        return f"prices of {oldest} ({age_text(oldest, now)} old){undated}"
    days = age_text(newest, now).removesuffix(" d")
    return f"prices of {oldest} to {newest} ({days} to {age_text(oldest, now)} old){undated}"


def partial_clouds(coverage: Sequence[Coverage], clouds: set[str]) -> list[str]:
    """Those of the clouds whose prices are known to be incomplete."""
    return [entry.cloud for entry in coverage if entry.cloud in clouds and not entry.complete]


def prices_document(book: Pricebook, age: PriceAge) -> dict[str, Any]:
    """Where the prices of an answer come from, as in the estimate."""
    snapshot = book.snapshot
    return {
        "snapshot_id": snapshot.snapshot_id,
        "origin": book.origin,
        "live": snapshot.live,
        "oldest_as_of_at": age.oldest_as_of_at,
        "newest_as_of_at": age.newest_as_of_at,
        "coverage": [
            {
                "cloud": entry.cloud,
                "rows": entry.rows,
                "complete": entry.complete,
                "as_of_at": entry.as_of_at,
                "note": entry.note,
            }
            for entry in snapshot.coverage
        ],
    }
