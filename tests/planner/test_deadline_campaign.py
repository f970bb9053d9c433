"""Thousands of random markets and jobs: never late. `make test-long` runs it with ROUNDS x 100 jobs."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from planner.deadline import DeadlinePolicy
from planner.deadline.replay import DeadlineJob, Market, replay
from tests.planner.spot_markets import invented, market

_H = 3600
_CELLS_H = [(48, 52), (48, 60), (48, 92), (8, 9), (8, 10), (8, 12), (8, 16), (2, 2.6), (0.3, 0.9)]


def _record(rng: np.random.Generator, ticks: int, tick_s: int, regions: int) -> Market:
    """Spells, noise, strict alternation, or one blink a day; prices from cheap to far above on-demand."""
    kind = rng.integers(4)
    spot = float(rng.choice([0.1, 0.3, 0.6, 0.95, 1.5]))
    if kind == 0:
        rate = float(rng.choice([0.1, 1, 4]))
        return invented(ticks, tick_s, regions, int(rng.integers(2**31)), spot, preempt=rate)
    up = rng.random((ticks, regions)) < rng.random()
    if kind == 1:
        up[:] = (np.arange(ticks) % 2 == 0)[:, None]
    if kind == 2:
        up[:] = (np.arange(ticks) % max(1, 86400 // tick_s) == 0)[:, None]
    spikes = np.where(rng.random(up.shape) < 0.05, 4.0, 1.0)
    return market(up, tick_s, spot * spikes)


@pytest.mark.long
def test_never_late_in_a_long_campaign() -> None:
    rng = np.random.default_rng(int(os.environ.get("SEED", "1")))
    for _ in range(100 * int(os.environ.get("ROUNDS", "20"))):
        work_h, deadline_h = _CELLS_H[rng.integers(len(_CELLS_H))]
        tick_s = int(rng.choice([180, 195, 288, 300, 306, 600]))
        overhead_s = int(rng.choice([0, 60, 180, 720, 1800, 2700]))
        job = DeadlineJob(round(work_h * _H), overhead_s, round(deadline_h * _H))
        ticks = job.deadline_s // tick_s
        if math.ceil((job.work_s + overhead_s) / tick_s) > ticks:
            continue
        regions = int(rng.choice([1, 1, 2, 7]))
        record = _record(rng, ticks, tick_s, regions)
        policy = DeadlinePolicy(work_h, deadline_h, overhead_s / _H, tick_s / _H, [1.0] * regions)
        outcome = replay(job, record, policy)
        assert not outcome.late, (job, tick_s, regions)
