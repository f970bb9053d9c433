"""The value table as seen from one moment: expected cost after holding a choice for the next step."""

from __future__ import annotations

import math

import numpy as np

from planner.deadline.belief import ZoneBelief
from planner.deadline.models import DOWN, UP
from planner.deadline.tables import Values, ValueTable

#: Markets besides the levels of a spot machine, which count from 0.
_NONE, _ON_DEMAND = -2, -1


class Outlook:
    """Expected costs under the mixture of models; in hours at the on-demand price, without the step itself."""

    def __init__(
        self, table: ValueTable, belief: ZoneBelief, hold_h: float, left_h: float, work_h: float
    ) -> None:
        """Look from `left_h` before the deadline, with `work_h` to do, at choices that are held for `hold_h`."""
        self._table, self._hold_h = table, hold_h
        self._steps = max(0.0, (left_h - hold_h) / table.problem.step_h)
        self._work_h = work_h
        self._state = belief.up or DOWN
        self._older = belief.bucket(hold_h)
        rates = table.models.hazard_per_h[:, self._state, belief.bucket()]
        ends = 1 - np.exp(-rates * hold_h)
        weights = belief.weights()
        self._stays, self._changes = (
            share.astype(np.float32) for share in (weights * (1 - ends), weights * ends)
        )
        self._weights = weights.astype(np.float32)
        self._losses: dict[int, float] = {}
        self._known: dict[tuple[float, int], float] = {}

    def wait(self) -> float:
        """After a step without a machine."""
        return self._after(self._work_h, _NONE, _NONE)

    def on_demand(self, start_h: float) -> float:
        """After a step on on-demand whose start-up takes `start_h` more."""
        return self._after(max(0.0, self._work_h + start_h - self._hold_h), _ON_DEMAND, _ON_DEMAND)

    def spot(self, start_h: float, stage: int = 0) -> float:
        """After a step on spot whose start-up takes `start_h` more; then the region's spell is in `stage`."""
        work_h, level = self._running(start_h)
        if level == self._table.problem.levels - 1:
            level += stage
        if (work_h, level) not in self._known:  # regions whose machine takes as long to start have one value
            self._known[work_h, level] = self._after(work_h, level, _NONE)
        return self._known[work_h, level]

    def loss(self, stage: int = 0) -> float:
        """What losing a running spot machine costs while the market stays."""
        if stage not in self._losses:
            level = self._table.problem.levels - 1 + stage
            here, gone = self._position(self._work_h, 0), self._position(self._work_h, _NONE)
            held = self._mean(self._weights, here, UP, self._older, level)
            self._losses[stage] = self._mean(self._weights, gone, UP, self._older, _NONE) - held
        return self._losses[stage]

    def _running(self, start_h: float) -> tuple[float, int]:
        """Work left and level of a spot machine after the step; what is left of a start counts as work."""
        p, held_h = self._table.problem, self._hold_h
        start_left_h = max(0.0, start_h - held_h)
        work_h = self._work_h - max(0.0, held_h - start_h)
        if work_h <= 1e-9:
            return 0.0, 0
        level = max(0, p.levels - 1 - math.ceil(start_left_h / p.step_h - 1e-6))
        start_at_level_h = max(0.0, (p.overhead_steps - level - 1) * p.step_h)
        return work_h + start_left_h - start_at_level_h, level

    def _after(self, work_h: float, market: int, fallback: int) -> float:
        """The market's spell goes on, or ends (then `fallback`), or only our spot machine is lost."""
        if work_h <= 0:
            return 0.0
        here, gone = self._position(work_h, market), self._position(work_h, fallback)
        own = self._lost(market) if market >= 0 else 0.0
        total = (1 - own) * self._mean(self._stays, here, self._state, self._older, market)
        if own > 0:
            total += own * self._mean(self._stays, gone, self._state, self._older, fallback)
        return total + self._mean(self._changes, gone, 1 - self._state, 0, fallback)

    def _lost(self, level: int) -> float:
        """Chance that a spot machine is lost in the step while the market stays."""
        p = self._table.problem
        return 1 - math.exp(-p.own_loss_per_h[max(0, level - p.levels + 1)] * self._hold_h)

    def _position(self, work_h: float, market: int) -> tuple[int, int, float, float]:
        """Step and slack below real-valued ones, and the shares of the way to the next."""
        p = self._table.problem
        parts = work_h / p.step_h * p.parts
        if market == _NONE and parts < 1:  # between no work and the first part lies a whole start
            parts = 1.0
        steps = min(self._steps, (parts + p.slack_parts) / p.parts, p.steps)
        slack = max(0.0, steps * p.parts - parts)
        z = min(int(slack), p.slack_parts - 1)
        whole = round(steps)
        if abs(steps - whole) < 1e-9:  # as where ticks are steps: one layer will do
            return whole, z, 0.0, slack - z
        n = min(int(steps), p.steps - 1)
        return n, z, steps - n, slack - z

    def _mean(
        self, weights: Values, at: tuple[int, int, float, float], state: int, bucket: int, market: int
    ) -> float:
        """Weighted sum over the models, linear in time and slack, time along lines of constant slack."""
        n, z, share_n, share_z = at
        low = self._row(weights, n, state, bucket, market, z)
        if share_n == 0:
            return low[0] + share_z * (low[1] - low[0])
        high = self._row(weights, n + 1, state, bucket, market, z)
        here = low[0] + share_n * (high[0] - low[0])
        more = low[1] + share_n * (high[1] - low[1])
        return here + share_z * (more - here)

    def _row(self, weights: Values, n: int, state: int, bucket: int, market: int, z: int) -> list[float]:
        """Weighted sums at the slacks z and z + 1."""
        layer = self._table.at(n)
        z = max(0, z - layer.first)
        if market >= 0:
            values = layer.spot[:, market, bucket, z : z + 2]
        else:
            values = layer.fixed[:, market - _NONE, state * layer.spot.shape[2] + bucket, z : z + 2]
        found: list[float] = np.dot(weights, values).tolist()
        return found
