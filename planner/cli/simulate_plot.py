"""Cost and finish of a simulation as cumulative distributions."""

from __future__ import annotations

from pathlib import Path

from planner.cli.picture import save
from planner.simulation import WAYS, Simulation
from providers.errors import MissingExtraError

_COLOURS = {"ours": "tab:green", "spot": "tab:orange", "on_demand": "tab:blue"}
#: Lines that lie on each other are all seen.
_WIDTHS = {"ours": 4.5, "spot": 2.5, "on_demand": 1.2}


def plot_simulation(found: Simulation, title: str, path: Path) -> None:
    """Draw into an .svg or .png file: chance of at most so many dollars, and of being done by then.

    Args:
        found: What to draw.
        title: Names the job.
        path: The file.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("report", "a plot") from None
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(f"{title}, {found.jobs} simulated jobs on {found.machines}", fontsize=11)
    cost, finish = figure.subplots(1, 2, sharey=True)
    shares = [(index + 1) / found.jobs for index in range(found.jobs)]
    for way in found.ways:
        look = {
            "color": _COLOURS[way.name],
            "lw": _WIDTHS[way.name],
            "where": "post",
            "label": WAYS[way.name],
        }
        cost.step(sorted(way.cost_usd), shares, **look)
        finish.step(sorted(way.finish_h), shares, **look)
    if found.deadline_h is not None:
        finish.axvline(found.deadline_h, color="tab:red", ls="--", lw=1, label="deadline")
        finish.set_xlim(0, found.deadline_h * 1.5)
    cost.set(xlabel="total $", ylabel="share of simulated jobs at or below", ylim=(0, 1))
    cost.set_xlim(left=0)
    finish.set(xlabel="hours to the result")
    for axes in (cost, finish):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc="lower right")
    save(figure, path)
