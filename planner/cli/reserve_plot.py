"""The calendar of offers as a picture: start dates by regions, coloured by dollars per useful GPU-hour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.whole_file import whole_file
from providers.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from planner.reserve.search import Found

_FORMATS = (".svg", ".png")
_MOST_DAYS = 40


def plot_calendar(found: Sequence[Found], path: Path) -> None:
    """Draw the cheapest offer of each start date and region.

    Raises:
        UsageError: Another format than .svg or .png, or nothing to draw.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in _FORMATS:
        raise UsageError(f"{path} is neither .svg nor .png")
    cells = _cells(found)
    if not cells:
        raise UsageError("there are no offers with a price to draw")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("report", "drawing a calendar") from error
    mpl.rcParams["svg.hashsalt"] = "tuneplan"
    days = sorted({day for day, _ in cells})[:_MOST_DAYS]
    regions = sorted({region for _, region in cells})
    figure = Figure(
        figsize=(2.6 + 1.5 * len(regions), max(1.4 + 0.42 * len(days), 2.6)), layout="constrained"
    )
    _draw(figure.subplots(), cells, days, regions)
    with whole_file(path) as beside:
        figure.savefig(beside, metadata={"Date": None} if path.suffix == ".svg" else None)


def _cells(found: Sequence[Found]) -> dict[tuple[str, str], Found]:
    cells: dict[tuple[str, str], Found] = {}
    for row in found:
        key = (f"{row.offer.start_at:%Y-%m-%d %a}", row.offer.region)
        if row.cost_usd is not None and (key not in cells or row.cost_usd < (cells[key].cost_usd or 0.0)):
            cells[key] = row
    return cells


def _draw(axes: Any, cells: dict[tuple[str, str], Found], days: list[str], regions: list[str]) -> None:
    values = [[_per_gpu_h(cells.get((day, region))) for region in regions] for day in days]
    image = axes.imshow(values, aspect="auto", cmap="cividis_r")
    axes.set_xticks(range(len(regions)), regions)
    axes.set_yticks(range(len(days)), days)
    axes.set_ylabel("start (UTC)")
    axes.xaxis.tick_top()
    known = [value for row in values for value in row if value == value]
    middle = (min(known) + max(known)) / 2
    for y, day in enumerate(days):
        for x, region in enumerate(regions):
            row = cells.get((day, region))
            if row is not None and row.cost_usd is not None:
                colour = "white" if values[y][x] > middle else "black"
                axes.text(x, y, f"${row.cost_usd:,.0f}", ha="center", va="center", color=colour)
    axes.figure.colorbar(image, ax=axes, label="$ per useful GPU-hour")


def _per_gpu_h(row: Found | None) -> float:
    value = None if row is None else row.usd_per_useful_gpu_h
    return float("nan") if value is None else value
