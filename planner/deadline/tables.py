"""Least expected cost of finishing in time, by dynamic programming over (steps left, slack, zone, machine).

Costs are in hours at the on-demand price. Time runs in steps of `step_h`; work in `parts` parts of a step. The
coordinate is the slack z = steps left x parts - work, in parts: progress keeps z, waiting lowers it. A state that
could not restart on on-demand and still finish is never entered, whatever the market does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.deadline.models import DOWN, UP, SpotModels

Values = npt.NDArray[np.float32]
#: First markets of a state; a spot machine of level j has taken j steps of its start-up, then on-demand comes last.
NO_MACHINE = 0
_BIG = np.float32(1e9)
_BLOCK = 24


@dataclass(frozen=True)
class Problem:
    """What a table is for; all that its values depend on besides the models.

    Attributes:
        steps: Steps of the horizon.
        slack_parts: Largest slack, in parts.
        step_h: Length of a step.
        parts: Parts of a step.
        overhead_steps: Start-up of a machine, in steps (may be fractional).
        spot_price: Spot price over the on-demand price.
        bill_share: Share of a step that is billed at least: whole ticks are.
        own_loss: Ends of our own machine for each time the whole market goes, minus 1; 0 for a single zone.
    """

    steps: int
    slack_parts: int
    step_h: float
    parts: int
    overhead_steps: float
    spot_price: float
    bill_share: float
    own_loss: float = 0.0

    @property
    def levels(self) -> int:
        """Steps after which a machine started now is ready, at least 1."""
        return max(1, math.ceil(self.overhead_steps - 1e-9))


@dataclass(frozen=True)
class Layer:
    """Values at one number of steps left: `down` [model, bucket, 2, slack], `up` [model, bucket, levels + 2, slack]."""

    down: Values
    up: Values

    def of(self, state: int) -> Values:
        """Values in a state of the zone."""
        return self.up if state == UP else self.down


class ValueTable:
    """Values for every number of steps left; keeps every 24th layer and recomputes the rest block by block."""

    def __init__(self, problem: Problem, models: SpotModels) -> None:
        """Solve the whole horizon, from its end."""
        self.models = models
        self.problem = problem
        self._solver = _Solver(problem, models)
        layer = self._solver.last()
        self._kept = [layer]
        for n in range(1, problem.steps + 1):
            layer = self._solver.before(n, layer)
            if n % _BLOCK == 0:
                self._kept.append(layer)
        self._first = 0
        self._block: list[Layer] = []

    def at(self, n: int) -> Layer:
        """Values with `n` steps left, 0 to `steps`."""
        first = self._first
        if not first <= n < first + len(self._block):
            first = self._first = min(n, self.problem.steps - 1) // _BLOCK * _BLOCK
            layer = self._kept[first // _BLOCK]
            self._block = [layer]
            for m in range(first + 1, min(first + _BLOCK, self.problem.steps) + 1):
                layer = self._solver.before(m, layer)
                self._block.append(layer)
        return self._block[n - first]


class _Solver:
    """One step of the recursion, with all that does not change from step to step."""

    def __init__(self, problem: Problem, models: SpotModels) -> None:
        self.p = problem
        self.width = problem.slack_parts + 1
        self.slack = np.arange(self.width, dtype=np.float32)
        self.overhead = problem.overhead_steps * problem.parts
        ends = 1 - np.exp(-models.hazard_per_h * problem.step_h)
        self.ends = ends.astype(np.float32)[..., None, None]
        lost = 1 - np.exp(-models.hazard_per_h[:, UP] * problem.own_loss * problem.step_h)
        self.lost = lost.astype(np.float32)[..., None, None]
        self.ages = models.advance(problem.step_h).astype(np.float32)[None, :, None, None]
        self.shape = models.hazard_per_h[:, 0].shape

    def last(self) -> Layer:
        """Nothing left to do, nothing to pay."""
        markets = (2, self.p.levels + 2)
        down, up = (np.zeros((*self.shape, count, self.width), np.float32) for count in markets)
        return Layer(down, up)

    def before(self, n: int, after: Layer) -> Layer:
        """Values with `n` steps left from those with one step less."""
        return Layer(
            self._best(n, DOWN, self._expected(DOWN, after)), self._best(n, UP, self._expected(UP, after))
        )

    def _expected(self, state: int, after: Layer) -> Values:
        """Value after the step for each machine held during it: the spell may end, or grow older."""
        here, other = after.of(state), after.of(1 - state)[:, :1]
        stays: Values = here + self.ages * (np.concatenate([here[:, 1:], here[:, -1:]], axis=1) - here)
        if state == UP and self.p.own_loss > 0:
            spot = stays[:, :, 1:-1]
            spot += self.lost * (stays[:, :, :1] - spot)
        stays[:, :, :-1] += self.ends[:, state] * (other[:, :, :1] - stays[:, :, :-1])
        stays[:, :, -1:] += self.ends[:, state] * (other[:, :, -1:] - stays[:, :, -1:])
        return stays

    def _best(self, n: int, state: int, expected: Values) -> Values:
        """Cheapest allowed choice for each machine held at the start of the step."""
        p = self.p
        fresh = self._bill(n, p.overhead_steps) + _shift(expected[:, :, -1], self.overhead)
        wait = self._allowed(n, _shift(expected[:, :, NO_MACHINE], p.parts), p.parts)
        np.minimum(fresh, wait, out=fresh)
        if state == UP:
            np.minimum(fresh, self._spot(n, expected, 0), out=fresh)
        value = np.empty_like(expected)
        value[:, :, NO_MACHINE] = fresh
        np.minimum(fresh, self._bill(n, 0.0) + expected[:, :, -1], out=value[:, :, -1])
        if state == UP:
            for level in range(1, p.levels + 1):
                np.minimum(fresh, self._spot(n, expected, level), out=value[:, :, level])
        return self._edges(n, value)

    def _spot(self, n: int, expected: Values, level: int) -> Values:
        """Value of holding a spot machine that has taken `level` steps of its start-up."""
        p = self.p
        left = max(0.0, p.overhead_steps - level)
        lost_parts = p.parts * min(1.0, left)
        after = _shift(expected[:, :, min(level + 1, p.levels)], lost_parts)
        return self._allowed(n, np.float32(p.spot_price) * self._bill(n, left) + after, lost_parts)

    def _bill(self, n: int, overhead_steps: float) -> Values:
        """Hours billed for the step, by slack: less than the step where the job ends in it."""
        p = self.p
        left = np.maximum(n - self.slack / p.parts, 0) + overhead_steps
        share = np.ceil(left / p.bill_share - 1e-6) * p.bill_share
        return (np.minimum(1.0, share) * p.step_h).astype(np.float32)

    def _allowed(self, n: int, value: Values, lost_parts: float) -> Values:
        """Forbids choices after which on-demand from scratch would be late."""
        after = self.slack - lost_parts
        late = (after < self.overhead - 1e-6) & (after < (n - 1) * self.p.parts - 1e-6)
        value[..., late] = _BIG
        return value

    def _edges(self, n: int, value: Values) -> Values:
        """Finished work costs nothing; too little slack for a restart costs on-demand from scratch."""
        value[..., n * self.p.parts :] = 0.0
        short = min(math.ceil(self.overhead - 1e-6), n * self.p.parts, self.width)
        scratch = (n + self.p.overhead_steps - self.slack[:short] / self.p.parts) * self.p.step_h
        value[:, :, :-1, :short] = np.where(
            value[:, :, :-1, :short] < _BIG, value[:, :, :-1, :short], scratch
        )
        value[:, :, NO_MACHINE, :short] = scratch
        return value


def _shift(values: Values, parts: float) -> Values:
    """Values at a slack that is `parts` lower (linear between grid points); far below zero where there is none."""
    whole = math.ceil(parts - 1e-9)
    share = np.float32(whole - parts)
    out = np.full_like(values, _BIG)
    if whole >= values.shape[-1]:
        return out
    if share < 1e-6:
        out[..., whole:] = values[..., : values.shape[-1] - whole]
        return out
    low = values[..., : values.shape[-1] - whole]
    high = values[..., 1 : values.shape[-1] - whole + 1]
    out[..., whole:] = low + share * (high - low)
    return out
