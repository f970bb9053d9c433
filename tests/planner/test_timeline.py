import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.overheads import overheads
from planner.quantiles import Quantiles
from planner.risk import spot_hazard_per_h
from planner.timeline import timeline

_STEP = Quantiles(0.8, 1.0, 1.4)


def _around(*, local: bool = False, weight_bytes: float = 16e9):
    return overheads(
        local=local,
        weight_bytes=weight_bytes,
        checkpoint_bytes=5e8,
        result_bytes=1.7e8,
        data_tokens=1e7,
        evaluate_s=60,
    )


@given(steps=st.integers(1, 100_000), spot=st.booleans(), nodes=st.integers(1, 16))
def test_lines_add_up_to_the_billed_hours(steps: int, spot: bool, nodes: int) -> None:
    line = timeline(steps, _STEP, _around(), spot_hazard_per_h("H100", nodes) if spot else None)
    lines = line.compute_h + line.rework_h + line.reprovision_h + line.idle_h
    assert lines == pytest.approx(line.wall_clock_h.p50, rel=1e-9)


def test_spot_takes_longer_and_waits() -> None:
    spot = timeline(20_000, _STEP, _around(), spot_hazard_per_h("H100", 1))
    steady = timeline(20_000, _STEP, _around(), None)
    assert steady.rework_h == steady.reprovision_h == 0
    assert spot.wall_clock_h.p50 > steady.wall_clock_h.p50
    assert spot.finish_h.p50 - spot.wall_clock_h.p50 > steady.finish_h.p50 - steady.wall_clock_h.p50


def test_a_bigger_model_makes_every_restart_dearer() -> None:
    hazard = spot_hazard_per_h("H100", 1)
    small = timeline(20_000, _STEP, _around(weight_bytes=2e9), hazard)
    big = timeline(20_000, _STEP, _around(weight_bytes=140e9), hazard)
    assert big.reprovision_h > small.reprovision_h


def test_nothing_boots_or_downloads_on_the_own_machine() -> None:
    assert _around(local=True).start_s.p50 < _around().start_s.p50 / 5
    assert _around(local=True).idle_s == Quantiles(0, 0, 0)
