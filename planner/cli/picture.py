"""A canvas of matplotlib, and how a picture is written: what the plots of commands share."""

from __future__ import annotations

from io import StringIO
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
    with whole_file(path) as beside:
        _write(figure, beside, path.suffix.lower().removeprefix("."))


def svg_of(figure: Any) -> str:
    """The figure as an element that stands in a page of HTML."""
    text = StringIO()
    _write(figure, text, "svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _write(figure: Any, to: Path | StringIO, form: str) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):  # text stays text: searchable, and small
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(to, format=form, dpi=150, bbox_inches="tight", metadata=metadata)
