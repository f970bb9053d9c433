"""What the policy believes about a zone: its state, the age of the spell, and which model it follows."""

from __future__ import annotations

import numpy as np

from planner.deadline.models import DOWN, UP, FloatArray, SpotModels

#: Hours over which old evidence fades (zones change their regime) and the power of one observation.
MEMORY_H = 24.0
TEMPER = 0.5


class ZoneBelief:
    """Posterior over the models for one zone, updated by one observation a tick."""

    def __init__(self, models: SpotModels, tick_h: float) -> None:
        """Start from the prior, with nothing seen."""
        ends = np.clip(1 - np.exp(-models.hazard_per_h * tick_h), 1e-5, 1 - 1e-5)
        self._models = models
        self._edges = np.append(models.age_edges_h, np.inf)
        self._tick_h = tick_h
        self._fade = float(np.exp(-tick_h / MEMORY_H))
        self._log_end, self._log_stay = np.log(ends), np.log(1 - ends)
        self._log_prior = np.log(models.weight + 1e-12)
        self._evidence = np.zeros(len(models.weight))
        self._weights: FloatArray | None = None
        self.up: int | None = None
        self.age_h = 0.0

    def see(self, up: bool | None) -> None:
        """Take in this tick's state; None (not probed) lets the spell age and teaches nothing."""
        if up is None:
            self.age_h += self._tick_h
            return
        if self.up is not None:
            ended = int(up) != self.up
            log_chance = self._log_end if ended else self._log_stay
            seen = log_chance[:, self.up, self.bucket()]
            self._evidence = self._fade * self._evidence + TEMPER * seen
            self._weights = None
        if self.up != int(up):
            self.up, self.age_h = int(up), 0.0
        else:
            self.age_h += self._tick_h

    def bucket(self, later_h: float = 0.0) -> int:
        """Age bucket of the running spell, now or `later_h` from now."""
        return self._models.bucket(self.age_h + later_h)

    def weights(self) -> FloatArray:
        """Posterior over the models, sums to 1."""
        if self._weights is None:
            log_weight = self._evidence + self._log_prior
            weight = np.exp(log_weight - log_weight.max())
            self._weights = weight / weight.sum()
        return self._weights

    def survival(self, horizon_h: float) -> float:
        """Chance that an up spell, of the running one's age if it is up, lasts `horizon_h` more."""
        return self._lasts(UP, self.age_h if self.up else 0.0, horizon_h)

    def lasts(self, horizon_h: float) -> float:
        """Chance that the zone stays as it is for `horizon_h`."""
        return self._lasts(self.up or DOWN, self.age_h, horizon_h)

    def _lasts(self, state: int, age_h: float, horizon_h: float) -> float:
        edges = self._edges
        overlap = np.clip(np.minimum(edges[1:], age_h + horizon_h) - np.maximum(edges[:-1], age_h), 0.0, None)
        return float(self.weights() @ np.exp(-(self._models.hazard_per_h[:, state] @ overlap)))
