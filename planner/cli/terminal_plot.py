"""Cost against time in plain characters: no colour, so there is nothing that NO_COLOR would have to turn off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.candidates import Candidate
from planner.estimate import Estimate

_LEFT = 10
_HEIGHT = 18
_MOST_NAMES = 12
_NAMES = "123456789abcdefghijklmnpqrstuvwxyz"  # without the ring of what may not fit
#: Nothing is told apart below a minute or a tenth of a cent.
_LEAST_H, _LEAST_USD = 1 / 60, 0.001


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis over `cells` characters."""

    low: float
    high: float
    cells: int

    def cell(self, value: float) -> int:
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return min(round(share * (self.cells - 1)), self.cells - 1)

    def value(self, cell: int) -> float:
        return float(self.low * (self.high / self.low) ** (cell / (self.cells - 1)))


def plot_in_terminal(estimate: Estimate, width: int) -> str:
    """Candidates as dots, rings if they may not fit, the frontier of the others numbered, deadline and budget as lines.

    Dollars go up, hours to the right.

    Args:
        estimate: The answer.
        width: Columns of the terminal.
    """
    candidates = estimate.candidates
    if not candidates:
        return "there is no candidate to draw"
    columns = max(min(width, 100) - _LEFT - 2, 30)
    goal = estimate.question.goal
    deadline = (goal.deadline_h,) if goal.deadline_h is not None and goal.deadline_h > 0 else ()
    budget = (goal.budget_usd,) if goal.budget_usd is not None else ()
    hours = _axis([c.wall_clock_h.p50 for c in candidates], deadline, _LEAST_H, columns)
    usd = _axis([c.cost_usd.p50 for c in candidates], budget, _LEAST_USD, _HEIGHT)
    grid = [[" "] * columns for _ in range(_HEIGHT)]
    for limit in budget:
        grid[usd.cell(limit)] = ["-"] * columns
    for limit in deadline:
        for row in grid:
            row[hours.cell(limit)] = "|"
    frontier = _frontier(candidates)
    doubtful = [("o", c) for c in candidates if c.may_not_fit]
    sure = [(".", c) for c in candidates if not c.may_not_fit]
    for mark, candidate in [*doubtful, *sure, *reversed(frontier)]:
        grid[usd.cell(candidate.cost_usd.p50)][hours.cell(candidate.wall_clock_h.p50)] = mark
    marks = [
        *(["o may not fit their memory"] if doubtful else []),
        *(["| deadline"] if deadline else []),
        *(["- budget"] if budget else []),
    ]
    return "\n".join([*_drawn(grid, usd), *_hours_axis(hours), *_legend(frontier, marks), *_names(frontier)])


def _axis(values: Sequence[float], limits: Sequence[float], least: float, cells: int) -> _Axis:
    every = [max(value, least) for value in (*values, *limits)]
    low, high = min(every) / 1.1, max(every) * 1.1
    return _Axis(low, high, cells)


def _frontier(candidates: Sequence[Candidate]) -> list[tuple[str, Candidate]]:
    """Marks of the frontier's points, fastest first."""
    points = sorted((c for c in candidates if c.pareto), key=lambda c: c.wall_clock_h.p50)
    return [(_NAMES[index] if index < len(_NAMES) else "*", point) for index, point in enumerate(points)]


def _drawn(grid: list[list[str]], usd: _Axis) -> Iterator[str]:
    """Rows from the top, every third with its amount."""
    yield f"{'total $':>{_LEFT}}"
    for row in reversed(range(len(grid))):
        label = f"{usd.value(row):,.3g}" if row % 4 == 1 else ""
        yield f"{label:>{_LEFT}} {'+' if label else '|'}{''.join(grid[row])}".rstrip()


def _hours_axis(hours: _Axis) -> Iterator[str]:
    line, labels = ["-"] * hours.cells, [" "] * (hours.cells + 8)
    for cell in range(5, hours.cells, 15):
        line[cell] = "+"
        text = f"{hours.value(cell):.3g}"
        start = cell - len(text) // 2
        labels[start : start + len(text)] = text
    yield " " * (_LEFT + 1) + "+" + "".join(line)
    yield " " * (_LEFT + 2) + "".join(labels).rstrip() + "  hours"


def _legend(frontier: Sequence[tuple[str, Candidate]], marks: Sequence[str]) -> Iterator[str]:
    numbered = ["numbered: nothing that surely fits is both cheaper and earlier"] if frontier else []
    yield "; ".join([*numbered, ". the others", *marks])


def _names(frontier: Sequence[tuple[str, Candidate]]) -> Iterator[str]:
    for mark, candidate in frontier[:_MOST_NAMES]:
        offer, cost, hours = candidate.offer, candidate.cost_usd, candidate.wall_clock_h
        nodes = f"{candidate.nodes} x " if candidate.nodes > 1 else ""
        yield (
            f"  {mark}  ${cost.p50:,.2f} ({cost.p10:,.2f}-{cost.p90:,.2f})  "
            f"{hours.p50:.2f} h ({hours.p10:.2f}-{hours.p90:.2f})  "
            f"{nodes}{offer.gpu}:{offer.gpus_per_node} {offer.cloud} {offer.market.replace('_', '-')}"
        )
    if len(frontier) > _MOST_NAMES:
        yield f"  and {len(frontier) - _MOST_NAMES} more"
