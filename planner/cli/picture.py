"""A canvas of matplotlib, and how a picture is written: what the plots of commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planner.whole_file import whole_file
from providers.errors import MissingExtraError, UsageError

_FORMATS = (".svg", ".png")


def check_ending(path: Path) -> None:
    """Refuse what cannot be drawn.

    Raises:
        UsageError: Neither .svg nor .png.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"cannot draw {path}", hint=f"endings: {', '.join(_FORMATS)}")


def canvas(rows: int = 1) -> tuple[Any, Any]:
    """A figure and its axes, one below the other.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("report", "a plot") from None
    figure = Figure(figsize=(11, 6), layout="constrained")
    return figure, figure.subplots(rows, sharex=rows > 1)


def save(figure: Any, path: Path) -> None:
    """Write the file; equal figures give equal files.

    Raises:
        UsageError: It cannot be written.
    """
    from matplotlib import rc_context

    svg = path.suffix.lower() == ".svg"
    with (
        whole_file(path) as beside,
        rc_context({"svg.fonttype": "none"}),
    ):  # text stays text: searchable, and small
        figure.savefig(beside, dpi=150, bbox_inches="tight", metadata={"Date": None} if svg else None)
