"""The interval follows what saving costs and how likely the machine is lost."""

from __future__ import annotations

import random

import pytest

from jobs.interval import LEAST_S, MOST_S, hazard_now_per_s, interval_s


def wasted_share(tau_s: float, save_s: float, mean_s: float, rng: random.Random) -> float:
    """Time saving and training again, per useful second, simulated over many losses."""
    useful = wasted = 0.0
    for _ in range(20_000):
        spell = rng.expovariate(1 / mean_s)
        rounds = int(spell // (tau_s + save_s))
        useful += rounds * tau_s
        wasted += spell - rounds * tau_s
    return wasted / useful


@pytest.mark.parametrize(("save_s", "mean_h"), [(0.4, 2.0), (6.0, 1.0), (30.0, 4.0)])
def test_no_other_interval_wastes_less(save_s: float, mean_h: float) -> None:
    best_s = interval_s(1 / (mean_h * 3600), save_s, 0.0)
    waste = wasted_share(best_s, save_s, mean_h * 3600, random.Random(1))
    for factor in (0.4, 0.6, 1.7, 2.5):
        assert waste < wasted_share(best_s * factor, save_s, mean_h * 3600, random.Random(1))


def test_a_machine_that_stays_is_trusted_more() -> None:
    intervals = [interval_s(hazard_now_per_s(0.5, hours), 1.0, 0.0) for hours in (0, 1, 4, 12)]
    assert intervals == sorted(set(intervals))


def test_bounds() -> None:
    assert interval_s(1.0, 0.01, 0.0) == LEAST_S
    assert interval_s(1e-9, 10.0, 0.0) == MOST_S
    assert interval_s(1e-9, 10.0, 4000.0) == 4000.0


def test_saving_lora_checkpoints_blocks_at_most_one_percent() -> None:
    """0.4 s a save, as measured of a LoRA; even where a machine is lost every two hours."""
    assert 0.4 / interval_s(hazard_now_per_s(0.5, 0.0), 0.4, 3.0) <= 0.01
