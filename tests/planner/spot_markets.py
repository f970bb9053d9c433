"""Invented spot markets: semi-Markov spells with the published hazards by age, and nasty ones."""

from __future__ import annotations

import numpy as np

from planner.deadline.replay import Market

#: Lower edges of the age buckets in hours, and rates per hour of preemption and of recovery (pooled public traces).
AGES_H = np.array([0, 1 / 6, 1 / 3, 1, 3, 8, 24])
PREEMPTION_PER_H = np.array([1.98, 1.35, 0.79, 0.37, 0.17, 0.095, 0.040])
RECOVERY_PER_H = np.array([2.47, 1.46, 0.92, 0.39, 0.23, 0.11, 0.015])


def spells(
    ticks: int, tick_h: float, rng: np.random.Generator, *, preempt: float = 1, recover: float = 1
) -> np.ndarray:
    """One zone's capacity by tick; `preempt` and `recover` scale the rates."""
    up, age_h = bool(rng.random() < 0.6), 0.0
    states = np.zeros(ticks, bool)
    draws = rng.random(ticks)
    for k in range(ticks):
        rates = preempt * PREEMPTION_PER_H if up else recover * RECOVERY_PER_H
        rate = rates[np.searchsorted(AGES_H, age_h + 1e-9, side="right") - 1]
        if draws[k] < 1 - np.exp(-rate * tick_h):
            up, age_h = not up, 0.0
        else:
            age_h += tick_h
        states[k] = up
    return states


def market(up: np.ndarray, tick_s: int, spot: float | np.ndarray = 0.3, on_demand: float = 1.0) -> Market:
    """A record from [tick, region] states and one price, prices by region, or by tick and region."""
    prices = np.broadcast_to(np.asarray(spot, float), up.shape)
    return Market(tick_s, up, prices, np.full(up.shape[1], on_demand))


def invented(ticks: int, tick_s: int, regions: int, seed: int, spot: float = 0.3, **rates: float) -> Market:
    """Independent zones with the published hazards."""
    rng = np.random.default_rng(seed)
    zones = [spells(ticks, tick_s / 3600, rng, **rates) for _ in range(regions)]
    return market(np.stack(zones, axis=1), tick_s, spot)
