"""Cost against time of an estimate's candidates, as an SVG or PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.candidates import Candidate
from planner.cli.picture import canvas, check_ending, save
from planner.estimate import Estimate
from providers.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Names that fit beside the picture; further points keep their number.
_MOST_NAMES = 24
#: Ticks of a logarithmic axis that a person can read off.
_TICKS = (1.0, 2.0, 5.0)
_DIM, _STRONG, _LINE = "#b8bec8", "#1f5fa8", "#c0392b"


def plot_estimate(estimate: Estimate, title: str, path: Path) -> None:
    """Draw every candidate, those that may not fit hollow, the Pareto frontier of the others with its p10-p90 whiskers,
    deadline and budget.

    Args:
        estimate: With at least one candidate.
        title: Of the picture.
        path: .svg or .png.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: Another ending, nothing to draw, or the file cannot be written.
    """
    check_ending(path)
    if not estimate.candidates:
        raise UsageError("there is no candidate to draw", hint="the table says what was dropped and why")
    figure, axes = canvas()
    frontier = [candidate for candidate in estimate.candidates if candidate.pareto]
    others = [candidate for candidate in estimate.candidates if not candidate.pareto]
    _points(axes, [one for one in others if not one.may_not_fit], "other candidates", filled=True)
    _points(axes, [one for one in others if one.may_not_fit], "may not fit their memory", filled=False)
    if frontier:
        _frontier(axes, frontier)
    _limits(axes, estimate)
    free = min(candidate.cost_usd.p10 for candidate in estimate.candidates) <= 0
    _describe(axes, title, free=free)
    save(figure, path)


def _points(axes: Axes, candidates: Sequence[Candidate], label: str, *, filled: bool) -> None:
    if not candidates:
        return
    axes.scatter(
        [c.wall_clock_h.p50 for c in candidates],
        [c.cost_usd.p50 for c in candidates],
        s=14,
        facecolors=_DIM if filled else "none",
        edgecolors=_DIM,
        linewidths=0.8,
        label=label,
        zorder=1,
    )


def _frontier(axes: Axes, candidates: Sequence[Candidate]) -> None:
    ordered = sorted(candidates, key=lambda c: c.wall_clock_h.p50)
    hours, dollars = [c.wall_clock_h for c in ordered], [c.cost_usd for c in ordered]
    axes.errorbar(
        [q.p50 for q in hours],
        [q.p50 for q in dollars],
        xerr=[[q.p50 - q.p10 for q in hours], [q.p90 - q.p50 for q in hours]],
        yerr=[[q.p50 - q.p10 for q in dollars], [q.p90 - q.p50 for q in dollars]],
        fmt="o",
        color=_STRONG,
        ecolor=_STRONG,
        elinewidth=0.8,
        alpha=0.9,
        label="no other that surely fits is both cheaper and faster (p10-p90)",
        zorder=3,
    )
    axes.step([q.p50 for q in hours], [q.p50 for q in dollars], where="post", color=_STRONG, lw=0.8, zorder=2)
    for number, candidate in enumerate(ordered, 1):
        axes.annotate(
            str(number),
            (candidate.wall_clock_h.p50, candidate.cost_usd.p50),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=9,
            fontweight="bold",
            zorder=4,
        )
    names = [f"{number}  {_name(candidate)}" for number, candidate in enumerate(ordered, 1)]
    handles = [axes.plot([], [], " ", label=name)[0] for name in names[:_MOST_NAMES]]
    axes.figure.legend(
        handles=handles, loc="outside right upper", fontsize=8, handlelength=0, title="frontier"
    )


def _name(candidate: Candidate) -> str:
    offer = candidate.offer
    nodes = f"{candidate.nodes} x " if candidate.nodes > 1 else ""
    market = offer.market.replace("_", "-")
    cost, hours = candidate.cost_usd.p50, candidate.wall_clock_h.p50
    return f"{nodes}{offer.gpu}:{offer.gpus_per_node} {offer.cloud} {market}  ${cost:,.2f}, {hours:.3g} h"


def _limits(axes: Axes, estimate: Estimate) -> None:
    goal = estimate.question.goal
    if goal.deadline_h is not None and goal.deadline_h > 0:
        axes.axvline(goal.deadline_h, color=_LINE, lw=1, ls="--")
        axes.annotate("deadline", (goal.deadline_h, 0.98), xycoords=("data", "axes fraction"), rotation=90,
                      ha="right", va="top", fontsize=8, color=_LINE)  # fmt: skip
    if goal.budget_usd is not None:
        axes.axhline(goal.budget_usd, color=_LINE, lw=1, ls="--")
        axes.annotate(f"budget ${goal.budget_usd:,.0f}", (0.01, goal.budget_usd), xycoords=("axes fraction", "data"),
                      ha="left", va="bottom", fontsize=8, color=_LINE)  # fmt: skip


def _describe(axes: Axes, title: str, *, free: bool) -> None:
    """Axes and legend; on one's own machine everything may be free, which no logarithmic axis shows."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("linear" if free else "log")
    for axis in [axes.xaxis] if free else [axes.xaxis, axes.yaxis]:
        axis.set_major_locator(LogLocator(subs=_TICKS))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    if free:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("billed hours, p50 (without waiting for capacity)")
    axes.set_ylabel("US dollars before tax, p50")
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="major", lw=0.3)
    handles, labels = axes.get_legend_handles_labels()
    told = [(handle, label) for handle, label in zip(handles, labels, strict=True) if not label[0].isdigit()]
    axes.figure.legend(*zip(*told, strict=True), loc="outside lower center", ncols=2, fontsize=8)
