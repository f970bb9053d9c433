import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.hazards import prior
from planner.overheads import overheads
from planner.quantiles import Quantiles
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
    line = timeline(steps, _STEP, _around(), prior().times(nodes**0.5) if spot else None)
    lines = line.compute_h + line.rework_h + line.reprovision_h + line.idle_h
    assert lines == pytest.approx(line.wall_clock_h.p50, rel=1e-9)


def test_spot_takes_longer_and_waits() -> None:
    spot = timeline(20_000, _STEP, _around(), prior())
    steady = timeline(20_000, _STEP, _around(), None)
    assert steady.rework_h == steady.reprovision_h == 0
    assert spot.billed_mean_h > steady.billed_mean_h
    assert spot.wall_clock_h.p90 > steady.wall_clock_h.p90
    assert spot.finish_h.p90 - spot.wall_clock_h.p90 > steady.finish_h.p90 - steady.wall_clock_h.p90


def test_a_bigger_model_makes_every_restart_dearer() -> None:
    hazard = prior()
    small = timeline(20_000, _STEP, _around(weight_bytes=2e9), hazard)
    big = timeline(20_000, _STEP, _around(weight_bytes=140e9), hazard)
    assert big.interruptions.restart_h.p90 > small.interruptions.restart_h.p90


def test_nothing_boots_or_downloads_on_the_own_machine() -> None:
    assert _around(local=True).start_s.p50 < _around().start_s.p50 / 5
    assert _around(local=True).idle_s == Quantiles(0, 0, 0)
