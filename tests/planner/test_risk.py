import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.quantiles import Quantiles
from planner.risk import checkpoint_interval_s, interruptions, probability_by, spot_hazard_per_h

_RESTART = Quantiles(0.05, 0.1, 0.2)


def _lost(work_h: float, hazard: Quantiles, save_s: float = 5.0):
    return interruptions(
        Quantiles(work_h, work_h, work_h), hazard_per_h=hazard, save_s=save_s, restart_h=_RESTART
    )


def test_no_hazard_costs_only_checkpoints() -> None:
    lost = _lost(10, Quantiles(0, 0, 0))
    assert lost.count == lost.rework_h == lost.restart_h == lost.wait_h == Quantiles(0, 0, 0)
    assert lost.checkpoint_h == pytest.approx(10 * 5 / 1800)


def test_interval_is_youngs() -> None:
    assert checkpoint_interval_s(60, 0.5) == pytest.approx(math.sqrt(2 * 60 * 3600 / 0.5))


def test_rework_is_half_an_interval_for_each_interruption() -> None:
    lost = _lost(10, spot_hazard_per_h("H100", 1))
    assert lost.rework_h.p50 == pytest.approx(lost.count.p50 * lost.checkpoint_interval_s / 7200)


@given(
    work_h=st.floats(0.01, 500),
    hazard=st.floats(0.001, 2),
    more=st.floats(1.01, 5),
    save_s=st.floats(0.1, 600),
)
def test_more_hazard_or_more_work_never_costs_less(
    work_h: float, hazard: float, more: float, save_s: float
) -> None:
    def billed(work: float, rate: float) -> float:
        lost = _lost(work, Quantiles(rate, rate, rate), save_s)
        return work + lost.rework_h.p50 + lost.restart_h.p50 + lost.checkpoint_h

    assert billed(work_h, hazard * more) >= billed(work_h, hazard)
    assert billed(work_h * more, hazard) > billed(work_h, hazard)


def test_a_gang_is_lost_more_often_than_one_machine() -> None:
    assert spot_hazard_per_h("H100", 4).p50 == pytest.approx(2 * spot_hazard_per_h("H100", 1).p50)


def test_probability_matches_the_quantiles_it_was_given() -> None:
    finish = Quantiles(2.0, 3.0, 7.0)
    assert probability_by(finish, 2.0) == pytest.approx(0.1, abs=1e-3)
    assert probability_by(finish, 3.0) == pytest.approx(0.5)
    assert probability_by(finish, 7.0) == pytest.approx(0.9, abs=1e-3)
    assert probability_by(finish, 0.0) == 0.0
