import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.lengths import assumed_lengths, lengths_of


def test_longest_of_a_batch_matches_a_simulation() -> None:
    rng = random.Random(1)
    values = [rng.expovariate(1 / 200) + 5 for _ in range(4000)]
    simulated = fmean(max(rng.choices(values, k=8)) for _ in range(4000))
    assert lengths_of(values).mean_of_longest(8) == pytest.approx(simulated, rel=0.03)


@given(st.floats(1, 5000), st.floats(1.0, 20), st.integers(1, 64))
def test_assumed_lengths_keep_mean_and_longest(mean: float, ratio: float, rows: int) -> None:
    lengths = assumed_lengths(mean, mean * ratio)
    assert lengths.longest <= mean * ratio * (1 + 1e-9)
    assert lengths.mean == pytest.approx(mean, rel=0.03)
    assert lengths.mean * 0.999 <= lengths.mean_of_longest(rows) <= lengths.longest * 1.001


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=200), st.floats(1, 1e5))
def test_cutting_never_lengthens(values: list[float], most: float) -> None:
    lengths = lengths_of(values)
    cut = lengths.cut(most)
    assert cut.longest <= max(most, 0) or cut is lengths
    assert cut.mean <= lengths.mean * (1 + 1e-12)


@given(st.lists(st.floats(1, 1e5), min_size=2, max_size=200), st.integers(1, 32))
def test_bigger_batches_are_padded_more(values: list[float], rows: int) -> None:
    lengths = lengths_of(values)
    assert lengths.mean_of_longest(rows * 2) >= lengths.mean_of_longest(rows) * 0.98


def test_thinning_keeps_the_longest() -> None:
    assert lengths_of([float(n) for n in range(100_000)]).longest == 99_999.0
