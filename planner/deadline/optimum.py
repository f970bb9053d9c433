"""Least cost with the whole future known: the lower bound that policies are measured against."""

from __future__ import annotations

import math

import numpy as np

from planner.deadline.models import FloatArray
from planner.deadline.replay import DeadlineJob, Market


def omniscient_cost_usd(job: DeadlineJob, market: Market) -> float:
    """Exact least cost of finishing by the deadline under the rules of `replay`, by dynamic programming.

    Work is counted in the greatest common divisor of tick, work and overhead, so nothing is rounded. Infinite where
    even on-demand throughout is late.
    """
    unit = math.gcd(math.gcd(job.work_s, job.overhead_s), market.tick_s)
    work, overhead, tick = (value // unit for value in (job.work_s, job.overhead_s, market.tick_s))
    on_demand_usd = float(market.on_demand_usd_per_h.min()) * market.tick_s / 3600
    spot_usd = market.spot_usd_per_h * market.tick_s / 3600
    levels = max(1, -(-overhead // tick))
    starts = [max(0, overhead - tick * (level + 1)) for level in range(levels)]
    regions = market.up.shape[1]
    waiting = _unfinished(work)
    running = [[_unfinished(work) for _ in starts] for _ in range(regions + 1)]
    for k in reversed(range(job.deadline_s // market.tick_s)):
        options = [(on_demand_usd, running[0])]
        options += [(spot_usd[k, r], running[r + 1]) for r in range(regions) if market.up[k, r]]
        fresh = waiting
        for price, after in options:
            fresh = np.minimum(fresh, price + _worked(after[0], tick - overhead))
        prices = [on_demand_usd, *(spot_usd[k, r] if market.up[k, r] else np.inf for r in range(regions))]
        running = [
            [
                np.minimum(fresh, price + _worked(after[min(level + 1, levels - 1)], tick - start))
                for level, start in enumerate(starts)
            ]
            for price, after in zip(prices, running, strict=True)
        ]
        waiting = fresh
        for value in (waiting, *(level for place in running for level in place)):
            value[0] = 0.0
    return float(waiting[work])


def _unfinished(work: int) -> FloatArray:
    value = np.full(work + 1, np.inf)
    value[0] = 0.0
    return value


def _worked(value: FloatArray, progress: int) -> FloatArray:
    """Values with `progress` units less to do."""
    if progress <= 0:
        return value
    done = np.zeros(min(progress, len(value)))
    return np.concatenate([done, value[: len(value) - len(done)]])
