"""What preemptions add to a job on spot: the renewal equations of spells, losses, restarts and waits, solved on a grid.

Pure. A machine is had for a spell; its start takes `restart_h` billed hours without progress; a loss takes back
`rework_h` of progress on average (half a checkpoint interval); then the zone has no machine until its down spell ends,
and the next spell starts at age 0, where hazards are highest. The first spell is one that the job finds running, so of
random age. Within a model of a zone the first two moments are exact up to the grid (a few percent, checked against
simulation in the tests); their distribution is taken as log-normal beside the chance of no loss at all; models are
mixed by their weights.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

from planner.hazards import SpotHazards, ZoneModel
from planner.quantiles import Quantiles

#: Grids of work and of spell lengths, hours: geometric.
_WORK_H = [0.0, *(0.1 * 1.4**i for i in range(26))]
_SPELL_H = [0.0, *(0.06 * 1.42**i for i in range(26))]
#: Models of less weight than this are left out.
_LEAST_WEIGHT = 0.02
#: Share of the places whose losses are off the mixture's by the factor of doubt, on each side.
_DOUBTED = 0.3
_LEAST_H = 1e-3

#: Sums of a grid point: losses, then wasted billed hours and its square, then wasted and waited hours and its square.
_Sums = list[float]


class Branch(NamedTuple):
    """What one model of a zone adds.

    Attributes:
        weight: Its chance.
        none: Chance of no loss, given the branch.
        wasted: Mean and variance of wasted billed hours, given a loss.
        delayed: The same for wasted and waited hours together.
        losses: Expected losses.
    """

    weight: float
    none: float
    wasted: tuple[float, float]
    delayed: tuple[float, float]
    losses: float


class Waste(NamedTuple):
    """What losses add to one job.

    Attributes:
        branches: The mixture behind it.
        doubt: Factor that the place's own losses may be off the mixture's by, either way; widens the quantiles only.
    """

    branches: tuple[Branch, ...]
    doubt: float = 1.0

    @property
    def losses(self) -> float:
        """Expected number of losses."""
        return sum(branch.weight * branch.losses for branch in self.branches)

    @property
    def billed_mean_h(self) -> float:
        """Expected billed hours without lasting progress."""
        return sum(b.weight * (1 - b.none) * b.wasted[0] for b in self.branches)

    @property
    def delay_mean_h(self) -> float:
        """Expected hours later, waits included."""
        return sum(b.weight * (1 - b.none) * b.delayed[0] for b in self.branches)

    @property
    def billed_h(self) -> Quantiles:
        """Billed hours without lasting progress."""
        return _quantiles([(b.weight, b.none, *b.wasted) for b in self.branches], self.doubt)

    @property
    def delay_h(self) -> Quantiles:
        """Hours that the result comes later, waits included."""
        return _quantiles([(b.weight, b.none, *b.delayed) for b in self.branches], self.doubt)


class Preemptions:
    """Solves one machine group in one place, whose first start finds a machine: waste by the work to be done."""

    def __init__(self, hazards: SpotHazards, restart_h: float, rework_h: float, doubt: float = 1.0) -> None:
        """Prepare; the grid is solved as far as it is asked for.

        Args:
            hazards: Of the whole machine group.
            restart_h: Billed hours of a start.
            rework_h: Progress that a loss takes back on average.
            doubt: As of `Waste`.
        """
        self._doubt = doubt
        chances = [m.weight * m.up_share for m in hazards.models]
        known = [c / sum(chances) for c in chances]
        kept = [(c, m) for c, m in zip(known, hazards.models, strict=True) if c >= _LEAST_WEIGHT]
        total = sum(chance for chance, _ in kept)
        self._solved = [(chance / total, _Solved(model, restart_h, rework_h)) for chance, model in kept]

    def waste(self, work_h: float) -> Waste:
        """Waste of a job with this work left when it starts; its first start is not counted as waste."""
        return Waste(tuple(solved.branch(chance, work_h) for chance, solved in self._solved), self._doubt)


class _Solved:
    """The grid of one model."""

    def __init__(self, model: ZoneModel, restart_h: float, rework_h: float) -> None:
        self._model, self._restart_h, self._rework_h = model, restart_h, rework_h
        self._wait = (model.down.beyond_h(0), model.down.squared_h2())
        self._mean_up_h = model.up.beyond_h(0)
        self._fresh: list[_Sums] = [[0.0] * 5]
        self._aged: dict[int, _Sums] = {0: [0.0] * 5}
        self._new = [model.up.survival(t) for t in _SPELL_H]
        self._found = [self._residual(t) for t in _SPELL_H]

    def fresh(self, index: int) -> _Sums:
        """Sums at a grid point for a job that starts with a new spell; solved when asked for."""
        while len(self._fresh) <= index:
            at = len(self._fresh)
            self._fresh.append([0.0] * 5)
            self._fill(self._fresh[at], self._cells(at, self._new, self._model.up.survival), itself=at)
        return self._fresh[index]

    def aged(self, index: int) -> _Sums:
        """The same for a job that starts in a spell found running."""
        if index not in self._aged:
            self.fresh(index)
            self._aged[index] = [0.0] * 5
            self._fill(self._aged[index], self._cells(index, self._found, self._residual), itself=None)
        return self._aged[index]

    def _residual(self, t: float) -> float:
        """Chance that a spell found running lasts `t` more."""
        return self._model.up.beyond_h(t) / self._mean_up_h

    def _cells(
        self, index: int, alive: Sequence[float], survival: Callable[[float], float]
    ) -> list[tuple[float, float, int, float]]:
        """Spells too short for the work: chance, hours wasted, and what is left as a point below and a share up."""
        work_h = _WORK_H[index]
        enough_h = self._restart_h + work_h
        cells = []
        for low, high, here, later in zip(_SPELL_H, _SPELL_H[1:], alive, alive[1:], strict=False):
            if low >= enough_h:
                break
            end, left = (high, later) if high <= enough_h else (enough_h, survival(enough_h))
            middle_h = (low + end) / 2
            progress_h = max(0.0, middle_h - self._restart_h - self._rework_h)
            if here > left:
                cells.append((here - left, middle_h - progress_h, *_place(work_h - progress_h, index - 1)))
        return cells

    def _fill(
        self, sums: _Sums, cells: Sequence[tuple[float, float, int, float]], itself: int | None
    ) -> None:
        """Moments at one point: of this loss, and of what follows it, which may be the same point again."""
        (wait, wait2), known = self._wait, self._fresh
        again = sum(chance * share for chance, _, low, share in cells if low + 1 == itself)
        on = 1 / max(1 - again, 1e-3)
        losses = wasted = delayed = 0.0
        for chance, waste_h, low, share in cells:
            below, above, rest = known[low], known[low + 1], 1 - share
            losses += chance * (1 + rest * below[0] + share * above[0])
            wasted += chance * (waste_h + rest * below[1] + share * above[1])
            delayed += chance * (waste_h + wait + rest * below[3] + share * above[3])
        sums[0], sums[1], sums[3] = losses * on, wasted * on, delayed * on
        wasted2 = delayed2 = 0.0
        for chance, waste_h, low, share in cells:
            below, above, rest = known[low], known[low + 1], 1 - share
            w1, d1 = rest * below[1] + share * above[1], rest * below[3] + share * above[3]
            delay2 = waste_h**2 + 2 * waste_h * wait + wait2
            wasted2 += chance * (waste_h * (waste_h + 2 * w1) + rest * below[2] + share * above[2])
            delayed2 += chance * (delay2 + 2 * (waste_h + wait) * d1 + rest * below[4] + share * above[4])
        sums[2], sums[4] = wasted2 * on, delayed2 * on

    def branch(self, chance: float, work_h: float) -> Branch:
        """What this model adds to so much work."""
        none = self._residual(self._restart_h + work_h)
        losses, wasted, wasted2, delayed, delayed2 = _read(self.aged, work_h)
        lost = max(1 - none, 1e-9)
        return Branch(
            chance,
            none,
            _given(wasted / lost, wasted2 / lost),
            _given(delayed / lost, delayed2 / lost),
            losses,
        )


def _given(mean: float, square: float) -> tuple[float, float]:
    return mean, max(square - mean**2, 1e-6 * mean**2, 1e-12)


def _place(work_h: float, highest: int) -> tuple[int, float]:
    """Grid point below, at most `highest`, and the share of the way to the next."""
    low = min(bisect_right(_WORK_H, work_h) - 1, highest)
    return low, (work_h - _WORK_H[low]) / (_WORK_H[low + 1] - _WORK_H[low])


def _read(grid: Callable[[int], _Sums], work_h: float) -> _Sums:
    """Values between grid points; beyond the grid, means and variances go on in proportion to the work."""
    if work_h > _WORK_H[-1]:
        more = work_h / _WORK_H[-1]
        losses, wasted, wasted2, delayed, delayed2 = grid(len(_WORK_H) - 1)
        var, var_delay = wasted2 - wasted**2, delayed2 - delayed**2
        return [
            losses * more,
            wasted * more,
            var * more + (wasted * more) ** 2,
            delayed * more,
            var_delay * more + (delayed * more) ** 2,
        ]
    low, share = _place(work_h, len(_WORK_H) - 2)
    return [(1 - share) * a + share * b for a, b in zip(grid(low), grid(low + 1), strict=True)]


def loss_factors(doubt: float) -> tuple[tuple[float, float], ...]:
    """Factors that a place's loss rates may have over the mixture's, with their chances."""
    if doubt == 1:
        return ((1.0, 1.0),)
    return (1 / doubt, _DOUBTED), (1.0, 1 - 2 * _DOUBTED), (doubt, _DOUBTED)


def _quantiles(parts: Sequence[tuple[float, float, float, float]], doubt: float) -> Quantiles:
    """Quantiles of a mixture of (weight, chance of nothing, mean and variance otherwise)."""
    shapes = []
    for factor, chance in loss_factors(doubt):
        for weight, none, mean, variance in parts:
            sigma2 = math.log(1 + variance / mean**2) if mean > 0 else 1e-6
            mu = math.log(mean * factor) - sigma2 / 2 if mean > 0 else -30.0
            sure, slope = none**factor, 1 / math.sqrt(2 * sigma2)
            shapes.append((weight * chance * sure, weight * chance * (1 - sure) / 2, mu, slope))

    at_once = sum(sure for sure, *_ in shapes)

    def below(value: float) -> float:
        total, logged = 0.0, math.log(value)
        for sure, half, mu, slope in shapes:
            total += sure + half * (1 + math.erf((logged - mu) * slope))
        return total

    tenth = _inverse(below, 0.1, at_once, _LEAST_H)
    median = _inverse(below, 0.5, at_once, tenth)
    return Quantiles(tenth, median, _inverse(below, 0.9, at_once, median))


def _inverse(below: Callable[[float], float], chance: float, at_once: float, least: float) -> float:
    """Where a distribution function of hours reaches a chance, to about a thousandth; `least` reaches no more.

    It is bracketed and halved to a fiftieth, and the rest is taken for straight over the logarithm.

    Args:
        below: The distribution function.
        chance: That is to be reached.
        at_once: Chance of no hours at all.
        least: Hours that do not reach it, or just.
    """
    if at_once >= chance:
        return 0.0
    low = high = max(least, _LEAST_H)
    under, over = 0.0, below(high)
    step = 1.5
    while over < chance and high < 1e5:
        low, under = high, over
        high *= step
        over, step = below(high), step * step
    while high > 1.02 * low:
        middle = math.sqrt(low * high)
        at = below(middle)
        if at < chance:
            low, under = middle, at
        else:
            high, over = middle, at
    return low * (high / low) ** ((chance - under) / (over - under)) if over > under else high
