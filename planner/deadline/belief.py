"""What the policy believes about a zone: its state, the age of the spell, and which model it follows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from planner.deadline.models import DOWN, UP, FloatArray, SpotModels, with_losses

#: Hours over which old evidence fades (zones change their regime) and the power of one observation.
MEMORY_H = 24.0
TEMPER = 0.5
#: How far a zone's evidence counts for the other zones of a job; 0.3 to 0.7 do as well on the records.
SHARED = 0.5
#: How old a spell is taken to be that was under way at the first look: a fresh one is what it most likely is not.
_FOUND_AGE_H = 1.0


class _Rates:
    """What follows from the models and the tick alone, shared by all zones of all jobs."""

    def __init__(self, models: SpotModels, tick_h: float) -> None:
        ends = np.clip(1 - np.exp(-models.hazard_per_h * tick_h), 1e-5, 1 - 1e-5)
        self.fade = float(np.exp(-tick_h / MEMORY_H))
        self.log_seen = TEMPER * np.stack(
            [np.log(1 - ends), np.log(ends)]
        )  # [stays or ends, model, state, age]
        self.log_prior = np.log(models.weight + 1e-12)
        self.edges: list[float] = models.age_edges_h.tolist()
        self.per_h = models.hazard_per_h
        grown = self.per_h[:, :, :-1] * np.diff(models.age_edges_h)
        self.exposure = np.concatenate([np.zeros_like(grown[:, :, :1]), np.cumsum(grown, axis=2)], axis=2)

    def exposed(self, state: int, ages_h: Sequence[float]) -> FloatArray:
        """Integral of the hazard of a spell up to each age: [model, age]."""
        at = [self.bucket(age_h) for age_h in ages_h]
        beyond_h = np.array([age_h - self.edges[age] for age_h, age in zip(ages_h, at, strict=True)])
        total: FloatArray = self.exposure[:, state, at] + self.per_h[:, state, at] * beyond_h
        return total

    def bucket(self, age_h: float) -> int:
        """As `SpotModels.bucket`."""
        return bisect_right(self.edges, age_h + 1e-9) - 1


_rates = lru_cache(maxsize=64)(_Rates)


class ZoneBelief:
    """Posterior over the models for one zone, updated by one observation a tick."""

    def __init__(self, models: SpotModels, tick_h: float) -> None:
        """Start from the prior, with nothing seen; `age_h` is how long the spell has been seen."""
        self._rates = _rates(models, tick_h)
        self._tick_h = tick_h
        self._evidence = np.zeros(len(models.weight))
        self._weights: FloatArray | None = None
        self.up: int | None = None
        self.age_h = 0.0
        self._unseen_h = 0.0

    def see(self, up: bool | None) -> None:
        """Take in this tick's state; None (not probed) lets the spell age and teaches nothing."""
        if up is None:
            self.age_h += self._tick_h
            return
        if self.up is not None:
            rates = self._rates
            self._evidence *= rates.fade
            self._evidence += rates.log_seen[int(up != self.up), :, self.up, self.bucket()]
            self._weights = None
        if self.up != int(up):
            self._unseen_h = _FOUND_AGE_H if self.up is None else 0.0
            self.up, self.age_h = int(up), 0.0
        else:
            self.age_h += self._tick_h

    def bucket(self, later_h: float = 0.0) -> int:
        """Age bucket of the running spell, now or `later_h` from now."""
        return self._rates.bucket(self._unseen_h + self.age_h + later_h)

    def weights(self) -> FloatArray:
        """Posterior over the models, sums to 1."""
        if self._weights is None:
            log_weight = self._evidence + self._rates.log_prior
            weight = np.exp(log_weight - log_weight.max())
            self._weights = weight / weight.sum()
        return self._weights

    def survival(self, horizon_h: float) -> float:
        """Chance that an up spell, of the running one's age if it is up, lasts `horizon_h` more."""
        return self._lasts(UP, self._unseen_h + self.age_h if self.up else 0.0, horizon_h)

    def lasts(self, horizon_h: float) -> float:
        """Chance that the zone stays as it is for `horizon_h`."""
        return self._lasts(self.up or DOWN, self._unseen_h + self.age_h, horizon_h)

    def _lasts(self, state: int, age_h: float, horizon_h: float) -> float:
        exposed = self._rates.exposed(state, (age_h, age_h + horizon_h))
        return float(self.weights() @ np.exp(exposed[:, 0] - exposed[:, 1]))


class _ZoneRates:
    """The same for several zones, each with a factor of its own on the rates of losses; zones come first."""

    def __init__(self, models: SpotModels, tick_h: float, losses: tuple[float, ...]) -> None:
        rates = [_rates(with_losses(models, factor), tick_h) for factor in losses]
        self.fade, self.log_prior, self.bucket = rates[0].fade, rates[0].log_prior, rates[0].bucket
        self._edges = rates[0].edges
        self.log_seen = np.stack([one.log_seen for one in rates])
        self._up_per_h = np.stack([one.per_h[:, UP] for one in rates])
        self._exposure = np.stack([one.exposure[:, UP] for one in rates])
        self._zones = np.arange(len(losses))

    def exposed(self, ages_h: Sequence[float]) -> FloatArray:
        """Integral of the hazard of each zone's up spell up to its age: [zone, model]."""
        at = [self.bucket(age_h) for age_h in ages_h]
        beyond_h = np.array([age_h - self._edges[age] for age_h, age in zip(ages_h, at, strict=True)])
        total: FloatArray = self._exposure[self._zones, :, at]
        total += self._up_per_h[self._zones, :, at] * beyond_h[:, None]
        return total


_zone_rates = lru_cache(maxsize=16)(_ZoneRates)


class ZoneBeliefs:
    """What is believed of several zones, of each as `ZoneBelief` would; one pass over all of them.

    Zones of one kind of machine have good and bad days together, so what one shows counts for the others too.
    """

    def __init__(
        self,
        models: SpotModels,
        tick_h: float,
        zones: int,
        shared: float = SHARED,
        *,
        losses: Sequence[float] | None = None,
    ) -> None:
        """Start from the prior, with nothing seen.

        Args:
            models: Of every zone.
            tick_h: Hours between observations.
            zones: How many.
            shared: How far evidence counts for the other zones.
            losses: Factor on each zone's rates of losses; None is 1.
        """
        self._shared = shared
        self._rates = _zone_rates(models, tick_h, (1.0,) * zones if losses is None else tuple(losses))
        self._tick_h = tick_h
        self._evidence = np.zeros((zones, len(models.weight)))
        self._up: list[int | None] = [None] * zones
        self._age_h = [0.0] * zones

    def see(self, up: Sequence[bool | None]) -> None:
        """Take in this tick's states, as `ZoneBelief.see` of each."""
        rates = self._rates
        seen, ended, before, ages = [], [], [], []
        for zone, (state, was) in enumerate(zip(up, self._up, strict=True)):
            if state is not None and was is not None:
                seen.append(zone)
                ended.append(int(state != was))
                before.append(was)
                ages.append(rates.bucket(self._age_h[zone]))
            if state is None or state == was:
                self._age_h[zone] += self._tick_h
            else:
                self._up[zone], self._age_h[zone] = int(state), 0.0 if was is not None else _FOUND_AGE_H
        if seen:
            self._evidence[seen] *= rates.fade
            self._evidence[seen] += rates.log_seen[seen, ended, :, before, ages]

    def ages_h(self) -> list[float]:
        """Hours that each zone's spell is old, 0 where it has no spot."""
        return [age_h if up else 0.0 for age_h, up in zip(self._age_h, self._up, strict=True)]

    def survival(self, horizon_h: float) -> list[float]:
        """Chance of each zone that an up spell, of the running one's age if it is up, lasts `horizon_h` more."""
        rates = self._rates
        ages_h = self.ages_h()
        log_weight = self._pooled() + rates.log_prior
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        lasts = np.exp(rates.exposed(ages_h) - rates.exposed([age_h + horizon_h for age_h in ages_h]))
        found: list[float] = ((weight * lasts).sum(1) / weight.sum(1)).tolist()
        return found

    def _pooled(self) -> FloatArray:
        """Evidence by zone with its share of what the other zones showed on average."""
        zones = len(self._evidence)
        if zones == 1 or self._shared == 0:
            return self._evidence
        others = (self._evidence.sum(0) - self._evidence) / (zones - 1)
        pooled: FloatArray = self._evidence + self._shared * others
        return pooled
