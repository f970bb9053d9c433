import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.hazards import SpotHazards, prior
from planner.quantiles import Quantiles
from planner.risk import Interruptions, checkpoint_interval_s, interruptions, probability_by

_NOTHING = Quantiles(0, 0, 0)


def _lost(work_h: float, hazards: SpotHazards | None, save_s: float = 5.0) -> Interruptions:
    return interruptions(work_h, hazards=hazards, save_s=save_s, restart_h=0.1)


def test_off_the_spot_market_only_checkpoints_cost() -> None:
    lost = _lost(10, None)
    assert lost.count == lost.rework_h == lost.restart_h == lost.wait_h == _NOTHING
    assert lost.expected == lost.billed_mean_h == 0
    assert lost.checkpoint_h == pytest.approx(10 * 5 / 1800)


def test_interval_is_youngs() -> None:
    assert checkpoint_interval_s(60, 0.5) == pytest.approx(math.sqrt(2 * 60 * 3600 / 0.5))


def test_rework_is_half_an_interval_for_each_interruption() -> None:
    lost = _lost(100, prior())
    assert lost.count.p50 > 0
    assert lost.rework_h.p50 == pytest.approx(lost.count.p50 * lost.checkpoint_interval_s / 7200)


@given(
    work_h=st.floats(0.01, 500),
    machines=st.integers(2, 16),
    more=st.floats(1.1, 5),
    save_s=st.floats(0.1, 600),
)
@settings(max_examples=40, deadline=None)
def test_more_hazard_or_more_work_never_costs_less(
    work_h: float, machines: int, more: float, save_s: float
) -> None:
    def billed(work: float, hazards: SpotHazards) -> float:
        lost = _lost(work, hazards, save_s)
        return work + lost.billed_mean_h + lost.checkpoint_h

    rounding = 1.02  # starts and intervals that differ by seconds share a solution
    assert billed(work_h, prior().times(machines**0.5)) * rounding >= billed(work_h, prior())
    assert billed(work_h * more, prior()) > billed(work_h, prior())


def test_the_mean_is_above_the_median_of_what_is_lost() -> None:
    lost = _lost(5, prior())
    assert lost.billed_mean_h > lost.rework_h.p50 + lost.restart_h.p50


def test_probability_matches_the_quantiles_it_was_given() -> None:
    finish = Quantiles(2.0, 3.0, 7.0)
    assert probability_by(finish, 2.0) == pytest.approx(0.1, abs=1e-3)
    assert probability_by(finish, 3.0) == pytest.approx(0.5)
    assert probability_by(finish, 7.0) == pytest.approx(0.9, abs=1e-3)
    assert probability_by(finish, 0.0) == 0.0
