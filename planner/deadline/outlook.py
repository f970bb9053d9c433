"""The value table as seen from one moment: expected cost after holding a choice for the next step."""

from __future__ import annotations

import math

import numpy as np

from planner.deadline.belief import ZoneBelief
from planner.deadline.models import DOWN, UP, FloatArray
from planner.deadline.tables import Values, ValueTable

#: Markets besides the levels of a spot machine, which count from 0.
_NONE, _ON_DEMAND = -2, -1


class Outlook:
    """Expected costs under the mixture of models; in hours at the on-demand price, without the step itself."""

    def __init__(self, table: ValueTable, belief: ZoneBelief, hold_h: float, left_h: float) -> None:
        """Look from `left_h` before the deadline at choices that are held for `hold_h`."""
        self._table, self._hold_h = table, hold_h
        p = table.problem
        self._steps = max(0.0, (left_h - hold_h) / p.step_h)
        self._state = belief.up or DOWN
        self._older = belief.bucket(hold_h)
        rates = table.models.hazard_per_h[:, self._state, belief.bucket()]
        self._weights = belief.weights()
        self._ends = 1 - np.exp(-rates * hold_h)
        self._own = 1 - math.exp(-p.own_loss_per_h * hold_h)

    def wait(self, work_h: float) -> float:
        """After a step without a machine."""
        return self._after(work_h, _NONE, _NONE)

    def on_demand(self, work_h: float, start_h: float) -> float:
        """After a step on on-demand whose start-up takes `start_h` more."""
        return self._after(max(0.0, work_h + start_h - self._hold_h), _ON_DEMAND, _ON_DEMAND)

    def spot(self, work_h: float, start_h: float) -> float:
        """After a step on spot whose start-up takes `start_h` more."""
        p = self._table.problem
        start_left_h = max(0.0, start_h - self._hold_h)
        work_h -= max(0.0, self._hold_h - start_h)
        if work_h <= 1e-9:
            return 0.0
        level = max(0, p.levels - 1 - math.ceil(start_left_h / p.step_h - 1e-6))
        start_at_level_h = max(0.0, (p.overhead_steps - level - 1) * p.step_h)
        return self._after(work_h + start_left_h - start_at_level_h, level, _NONE)

    def loss(self, work_h: float) -> float:
        """What losing a running spot machine costs while the market stays."""
        held, none = (self._look(work_h, UP, self._older, m) for m in (self._table.problem.levels - 1, _NONE))
        return float(self._weights @ (none - held))

    def _after(self, work_h: float, market: int, fallback: int) -> float:
        """The market's spell goes on, or ends (then `fallback`), or only our spot machine is lost."""
        if work_h <= 0:
            return 0.0
        stays = self._look(work_h, self._state, self._older, market)
        if market >= 0 and self._own > 0:
            stays = stays + self._own * (self._look(work_h, self._state, self._older, fallback) - stays)
        gone = self._look(work_h, 1 - self._state, 0, fallback)
        return float(self._weights @ (self._ends * gone + (1 - self._ends) * stays))

    def _look(self, work_h: float, state: int, bucket: int, market: int) -> FloatArray:
        """Value by model at real-valued time and slack: linear in both, time along lines of constant slack."""
        p = self._table.problem
        parts = work_h / p.step_h * p.parts
        if market == _NONE:
            parts = max(
                parts, 1.0
            )  # between no work and the first part lies a whole start, not a share of one
        steps = min(self._steps, (parts + p.slack_parts) / p.parts, p.steps)
        slack = max(0.0, steps * p.parts - parts)
        n, z = min(int(steps), p.steps - 1), min(int(slack), p.slack_parts - 1)
        share_n, share_z = steps - n, slack - z
        low, high = (self._row(m, state, bucket, market, z) for m in (n, n + 1))
        corner = (1 - share_n) * low + share_n * high
        result: FloatArray = (1 - share_z) * corner[:, 0] + share_z * corner[:, 1]
        return result

    def _row(self, n: int, state: int, bucket: int, market: int, z: int) -> Values:
        """Values by model at the slacks z and z + 1."""
        layer = self._table.at(n)
        z = max(0, z - layer.first)
        if market >= 0:
            return layer.spot[:, market, bucket, z : z + 2]
        ages = layer.spot.shape[2]
        return layer.fixed[:, market - _NONE, state * ages + bucket, z : z + 2]
