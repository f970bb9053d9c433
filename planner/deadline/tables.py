"""Least expected cost of finishing in time, by dynamic programming over (steps left, slack, zone, machine).

Costs are in hours at the on-demand price. Time runs in steps of `step_h`; work in `parts` parts of a step. The
coordinate is the slack z = steps left x parts - work, in parts: progress keeps z, waiting lowers it. A state that
could not restart on on-demand and still finish is never entered, whatever the market does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from planner.deadline.models import DOWN, UP, FloatArray, SpotModels
from planner.deadline.problem import Problem

Values = npt.NDArray[np.float32]
_BIG = 1e9
#: Layers are kept in full up to this size, else every 24th.
USUAL_BYTES, _BLOCK = 48_000_000, 24
#: Of the rest, so many blocks are at hand: a look ahead reaches over the edge of one.
_MOST_BLOCKS = 3


@dataclass(frozen=True)
class Layer:
    """Values at one number of steps left, for the slacks that can be met then.

    A zone's states are the ages of its down spells, then those of its up spells. On spot, level j of the machine (from
    0) means that j + 1 steps of its start-up are over.

    Attributes:
        first: Slack of the first column, in parts.
        fixed: [model, 0 without a machine or 1 on on-demand, state, slack].
        spot: [model, level, age of the up spell, slack].
    """

    first: int
    fixed: Values
    spot: Values


class ValueTable:
    """Values for every number of steps left; a large one keeps every 24th layer and recomputes the rest by blocks."""

    def __init__(self, problem: Problem, models: SpotModels, most_bytes: int = USUAL_BYTES) -> None:
        """Solve the whole horizon, from its end."""
        self.problem, self.models = problem, models
        self._solver = _Solver(problem, models)
        layer = self._solver.last()
        self._kept = [layer]
        every = self._every = 1 if self._size() <= most_bytes else _BLOCK
        for n in range(1, problem.steps + 1):
            layer = self._solver.before(n, layer)
            if n % every == 0:
                self._kept.append(layer)
        self._blocks: dict[int, list[Layer]] = {}
        self._lock = Lock()

    def at(self, n: int) -> Layer:
        """Values with `n` steps left, 0 to `steps`."""
        if self._every == 1:
            return self._kept[n]
        number = min(n, self.problem.steps - 1) // _BLOCK
        with self._lock:  # runs that are alike share a table, and are looked at side by side
            block = self._blocks.pop(number, None) or self._solved(number)
            while len(self._blocks) >= _MOST_BLOCKS:
                del self._blocks[next(iter(self._blocks))]  # the one not looked at for longest
            self._blocks[number] = block
        return block[n - number * _BLOCK]

    @property
    def nbytes(self) -> int:
        """Memory that the layers take."""
        layers = [*self._kept, *(layer for block in self._blocks.values() for layer in block[1:])]
        return sum(layer.fixed.nbytes + layer.spot.nbytes for layer in layers)

    def _solved(self, number: int) -> list[Layer]:
        """A block's layers and the first of the next one."""
        first = number * _BLOCK
        block = [self._kept[number]]
        for m in range(first + 1, min(first + _BLOCK, self.problem.steps) + 1):
            block.append(self._solver.before(m, block[-1]))
        return block

    def _size(self) -> int:
        """Bytes of all layers."""
        p, ages = self.problem, len(self.models.age_edges_h)
        rows = len(self.models.weight) * ages * (4 + p.machines)
        return 4 * rows * sum(end - first for first, end in map(p.slacks, range(p.steps + 1)))


class _Solver:
    """One step of the recursion, with all that does not change from step to step."""

    def __init__(self, problem: Problem, models: SpotModels) -> None:
        self.p = problem
        self.overhead = problem.overhead_steps * problem.parts
        self.ages = len(models.age_edges_h)
        move = _moves(models, problem.step_h)
        up, ages = move[:, self.ages :], self.ages
        self.move = move.astype(np.float32)[:, None]
        self.stays_up = up[:, :, ages:].astype(np.float32)
        self.falls = up[:, :, 0].astype(np.float32)
        first = [problem.own_loss_per_h[0]] * (problem.levels - 1)
        rates = np.array([*first, *problem.own_loss_per_h])
        self.lost = (1 - np.exp(-rates * problem.step_h)).astype(np.float32)[:, None, None]
        self.older = [min(1.0, problem.step_h / stage_h) for stage_h in problem.own_stage_h]

    def last(self) -> Layer:
        """Nothing left to do, nothing to pay."""
        models, ages, width = len(self.move), self.ages, min(self.p.slack_parts, self.p.parts) + 1
        fixed = np.zeros((models, 2, 2 * ages, width), np.float32)
        return Layer(0, fixed, np.zeros((models, self.p.machines, ages, width), np.float32))

    def before(self, n: int, after: Layer) -> Layer:
        """Values with `n` steps left from those with one step less."""
        step = _Step(self.p, n, after.first, after.fixed.shape[-1])
        fixed = np.matmul(self.move, after.fixed)
        spot = self._machine_after(after)
        value = Layer(step.first, step.room(fixed), step.room(spot))
        waiting, on_demand = value.fixed[:, 0], value.fixed[:, 1]
        inner = slice(0, step.width)
        p = self.p
        fresh = step.hold(fixed[:, 1], 1.0, p.overhead_steps, self.overhead)
        np.minimum(fresh, step.guard(step.shift(fixed[:, 0], p.parts), p.parts), out=fresh)
        fresh_up = fresh[:, self.ages :]
        lost = min(self.overhead, p.parts)
        start = step.guard(step.hold(spot[:, 0], p.spot_price, p.overhead_steps, lost), lost)
        np.minimum(fresh_up, start, out=fresh_up)
        waiting[..., inner] = fresh
        running = step.hold(fixed[:, 1], 1.0, 0.0, 0.0)
        np.minimum(fresh, running, out=on_demand[..., inner])
        for level in range(p.machines):
            left = max(0.0, p.overhead_steps - level - 1)
            lost = p.parts * min(1.0, left)
            after_spot = self._next(spot, level)
            goes_on = step.guard(step.hold(after_spot, p.spot_price, left, lost), lost)
            np.minimum(fresh_up, goes_on, out=value.spot[:, level, :, inner])
        step.close(value)
        return value

    def _machine_after(self, after: Layer) -> Values:
        """Expected values after a step of a spot machine, by the state it is in then if it is not lost."""
        up, waiting = self.stays_up[:, None], after.fixed[:, 0]
        spot: Values = np.matmul(up, after.spot)
        if self.lost.any():
            gone = np.matmul(self.stays_up, waiting[:, self.ages :])[:, None]
            spot += self.lost * (gone - spot)
        spot += (self.falls[:, :, None] * waiting[:, None, 0])[:, None]
        return spot

    def _next(self, spot: Values, level: int) -> Values:
        """What a machine in this state becomes within a step."""
        first = self.p.levels - 1
        if level < first:
            return spot[:, level + 1]
        here = spot[:, level]
        if level == self.p.machines - 1:
            return here
        moved: Values = here + np.float32(self.older[level - first]) * (spot[:, level + 1] - here)
        return moved


class _Step:
    """The slacks that can be met with `n` steps left, and the choices' values over them."""

    def __init__(self, problem: Problem, n: int, first_after: int, width_after: int) -> None:
        self.p, self.n = problem, n
        self.first, end = problem.slacks(n)
        self.width = first_after + width_after - self.first
        self.drop = self.first - first_after
        self.slack = np.arange(self.first, self.first + self.width, dtype=np.float32)
        self.full_width = end - self.first
        self.overhead = problem.overhead_steps * problem.parts

    def room(self, like: Values) -> Values:
        """Place for this step's values, and zeros in the columns that the next step has to spare."""
        values = np.empty((*like.shape[:-1], self.full_width), np.float32)
        values[..., self.width :] = 0.0
        return values

    def shift(self, values: Values, parts: float) -> Values:
        """Values at a slack that is `parts` lower (linear between grid points); large where there is none."""
        whole = math.ceil(parts - 1e-9)
        share = np.float32(whole - parts)
        start = self.drop - whole
        missing = min(max(0, -start), self.width)
        out = np.empty((*values.shape[:-1], self.width), np.float32)
        out[..., :missing] = _BIG
        if missing == self.width:
            return out
        low = values[..., start + missing : start + self.width]
        if share < 1e-6:
            out[..., missing:] = low
            return out
        high = values[..., start + missing + 1 : start + self.width + 1]
        np.subtract(high, low, out=out[..., missing:])
        out[..., missing:] *= share
        out[..., missing:] += low
        return out

    def hold(self, after: Values, price: float, overhead_steps: float, lost_parts: float) -> Values:
        """Cost of a step on a machine and of what follows."""
        out = self.shift(after, lost_parts)
        out += np.float32(price) * self._billed_h(overhead_steps)
        return out

    def _billed_h(self, overhead_steps: float) -> Values | np.float32:
        """Hours billed for the step, by slack: less than the step where the job ends in it."""
        p = self.p
        if self.n - (self.first + self.width) / p.parts + overhead_steps >= 1:
            return np.float32(p.step_h)
        left = np.maximum(self.n - self.slack / p.parts, 0) + overhead_steps
        share = np.ceil(left / p.tick_steps - 1e-6) * p.tick_steps
        billed: Values = (np.minimum(1.0, share) * p.step_h).astype(np.float32)
        return billed

    def guard(self, value: Values, lost_parts: float) -> Values:
        """Forbids choices after which on-demand from scratch would be late."""
        enough = min(self.overhead, (self.n - 1) * self.p.parts) + lost_parts
        value[..., : max(0, math.ceil(enough - 1e-6) - self.first)] = _BIG
        return value

    def close(self, value: Layer) -> None:
        """Finished work costs nothing; too little slack for a restart costs on-demand from scratch."""
        done = self.n * self.p.parts - self.first
        value.fixed[..., max(0, done) :] = 0.0
        value.spot[..., max(0, done) :] = 0.0
        short = min(math.ceil(self.overhead - 1e-6) - self.first, done, self.width)
        if short > 0:
            scratch = (self.n + self.p.overhead_steps - self.slack[:short] / self.p.parts) * self.p.step_h
            value.fixed[:, 0, :, :short] = scratch
            np.minimum(value.spot[..., :short], scratch.astype(np.float32), out=value.spot[..., :short])


def _moves(models: SpotModels, step_h: float) -> FloatArray:
    """Chances of a step between a zone's states: [model, from, to]."""
    count, _, ages = models.hazard_per_h.shape
    ends = 1 - np.exp(-models.hazard_per_h * step_h)
    older = models.advance(step_h)
    move = np.zeros((count, 2 * ages, 2 * ages))
    for state in (DOWN, UP):
        for age in range(ages):
            row, stay = state * ages + age, 1 - ends[:, state, age]
            move[:, row, row] += stay * (1 - older[age])
            move[:, row, state * ages + min(age + 1, ages - 1)] += stay * older[age]
            move[:, row, (1 - state) * ages] += ends[:, state, age]
    return move
