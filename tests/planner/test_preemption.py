from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.hazards import Spell, SpotHazards, ZoneModel, prior
from planner.preemption import Preemptions

_EDGES = (0.0, 0.25, 1.0, 4.0)
_YOUNG = ZoneModel(1.0, Spell(_EDGES, (1.5, 0.8, 0.3, 0.05)), Spell(_EDGES, (2.0, 1.0, 0.5, 0.2)))
_FLAT = ZoneModel(1.0, Spell(_EDGES, (0.2,) * 4), Spell(_EDGES, (1.0,) * 4))


def _lengths(spell: Spell, count: int, rng: np.random.Generator) -> np.ndarray:
    """Spells drawn from their hazards."""
    sums = np.array([spell.exposure(edge) for edge in spell.edges_h])
    drawn = rng.exponential(size=count)
    bucket = np.searchsorted(sums, drawn, side="right") - 1
    return np.array(spell.edges_h)[bucket] + (drawn - sums[bucket]) / np.array(spell.ends_per_h)[bucket]


def _simulated(model: ZoneModel, work_h: float, restart_h: float, rework_h: float, jobs: int) -> np.ndarray:
    """Losses, wasted hours and delay of each job, spell by spell."""
    rng = np.random.default_rng(5)
    many = _lengths(model.up, 100_000, rng)
    first = rng.choice(many, jobs, p=many / many.sum()) * rng.random(jobs)
    out = np.zeros((jobs, 3))
    for row, length in zip(out, first, strict=True):
        left = work_h
        while length < restart_h + left:
            kept = max(0.0, length - restart_h - rework_h)
            wait = _lengths(model.down, 1, rng)[0]
            row += (1, length - kept, length - kept + wait)
            left -= kept
            length = _lengths(model.up, 1, rng)[0]
    return out


@pytest.mark.parametrize("model", [_YOUNG, _FLAT])
@pytest.mark.parametrize(("work_h", "restart_h"), [(2.0, 0.1), (8.0, 0.5), (40.0, 0.2)])
def test_moments_and_quantiles_are_those_of_a_simulation(
    model: ZoneModel, work_h: float, restart_h: float
) -> None:
    jobs = _simulated(model, work_h, restart_h, 0.05, 3000)
    waste = Preemptions(SpotHazards((model,)), restart_h, 0.05).waste(work_h)
    losses, billed, delay = jobs.mean(axis=0)
    assert waste.losses == pytest.approx(losses, rel=0.08, abs=0.03)
    assert waste.billed_mean_h == pytest.approx(billed, rel=0.08, abs=0.02)
    assert waste.delay_mean_h == pytest.approx(delay, rel=0.08, abs=0.03)
    assert waste.billed_h.p90 == pytest.approx(np.quantile(jobs[:, 1], 0.9), rel=0.25, abs=0.1)
    assert waste.delay_h.p90 == pytest.approx(np.quantile(jobs[:, 2], 0.9), rel=0.3, abs=0.2)


def test_a_flat_hazard_is_the_textbooks() -> None:
    """Starts and rework free of charge: losses come at the hazard's rate."""
    waste = Preemptions(SpotHazards((_FLAT,)), 1e-4, 1e-4).waste(10.0)
    assert waste.losses == pytest.approx(2.0, rel=0.02)
    assert waste.billed_mean_h == pytest.approx(0.0, abs=0.01)


@given(work_h=st.floats(0.05, 300), more=st.floats(1.05, 3), restart_h=st.floats(0.01, 0.8))
@settings(max_examples=30, deadline=None)
def test_more_work_or_dearer_starts_never_waste_less(work_h: float, more: float, restart_h: float) -> None:
    less = Preemptions(prior(), restart_h, 0.05).waste(work_h)
    longer = Preemptions(prior(), restart_h, 0.05).waste(work_h * more)
    slower = Preemptions(prior(), restart_h * more, 0.05).waste(work_h)
    for other in (longer, slower):
        assert other.billed_mean_h >= less.billed_mean_h * 0.999
        assert other.billed_h.p90 >= less.billed_h.p90 * 0.98


def test_no_losses_in_hardly_any_work() -> None:
    waste = Preemptions(prior(), 0.05, 0.05).waste(0.01)
    assert waste.losses < 0.02
    assert waste.billed_h.p50 == 0


def test_beyond_the_grid_it_goes_on_in_proportion() -> None:
    solved = Preemptions(prior(), 0.2, 0.1)
    assert solved.waste(2000.0).billed_mean_h == pytest.approx(
        2 * solved.waste(1000.0).billed_mean_h, rel=0.05
    )
