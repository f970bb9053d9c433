"""Loss and metric of a run against its steps, as an SVG or PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.cli.picture import canvas, check_ending, save
from providers.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DIM, _STRONG, _LINE = "#8a94a3", "#1f5fa8", "#c0392b"


def plot_report(document: dict[str, Any], path: Path) -> None:
    """Draw the training loss, and the metric of each evaluation beside that of the base model.

    Args:
        document: As `planner.report.report_document` gives it.
        path: .svg or .png.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: Another ending, nothing measured yet, or the file cannot be written.
    """
    check_ending(path)
    if not has_curves(document):
        raise UsageError("nothing was measured yet", hint="a run is drawn from its first checkpoint on")
    save(draw_report(document), path)


def has_curves(document: dict[str, Any]) -> bool:
    """Whether there is anything to draw: from a run's first checkpoint on there is."""
    history = document["history"]
    return history is not None and bool(history["losses"] or history["evaluations"])


def draw_report(document: dict[str, Any]) -> Figure:
    """The figure of a run that has curves.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    history = document["history"]
    metric = document["metrics"][0]["name"] if document["metrics"] else None
    if metric is None and history["evaluations"]:
        metric = next(iter(history["evaluations"][0]["values"]))
    figure, (upper, lower) = canvas(2)
    _losses(upper, history["losses"])
    _metric(lower, document, metric)
    upper.set_title(f"{document['run_id']}: {document['state']}", fontsize=11)
    lower.set_xlabel("optimizer steps")
    drawn: Figure = figure
    return drawn


def _losses(axes: Axes, losses: list[dict[str, Any]]) -> None:
    axes.plot([one["step"] for one in losses], [one["loss"] for one in losses], color=_STRONG, lw=1)
    axes.set_ylabel("training loss")
    axes.grid(True, lw=0.3)


def _metric(axes: Axes, document: dict[str, Any], metric: str | None) -> None:
    axes.set_ylabel(metric or "metric")
    axes.grid(True, lw=0.3)
    if metric is None:
        return
    evaluations = document["history"]["evaluations"]
    steps = [one["step"] for one in evaluations]
    axes.plot(
        steps,
        [one["values"][metric] for one in evaluations],
        "o-",
        color=_STRONG,
        ms=3,
        lw=1,
        label="held out",
    )
    general = [one for one in evaluations if one["guard_values"] is not None]
    if general:
        values = [one["guard_values"][metric] for one in general]
        axes.plot(
            [one["step"] for one in general], values, "s--", color=_DIM, ms=3, lw=1, label="general hold-out"
        )
    base = next((one["base"] for one in document["metrics"] if one["split"] == "eval"), None)
    if base is not None:
        axes.axhline(base, color=_DIM, lw=1, ls=":", label="base model")
    chosen = document["output_step"]
    if chosen in steps:
        axes.axvline(chosen, color=_LINE, lw=1, ls="--", label=f"handed over: step {chosen}")
    if steps or base is not None:
        axes.legend(fontsize=8)
