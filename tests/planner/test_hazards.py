import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.hazards import OwnSpell, Spell, SpotGroup, hazards_of, learned, prior, recorded
from planner.spot_sizes import sizes

_EDGES = (0.0, 0.5, 2.0, 8.0)
_RATES = st.lists(st.floats(0.02, 5), min_size=4, max_size=4).map(tuple)


def _own(
    hours: float, *, lost: bool, place: str = "us-east-1a", gpu: str = "H100", machines: int = 1
) -> OwnSpell:
    return OwnSpell("aws", place, gpu, machines, hours, lost)


def _rate(spells: list[OwnSpell], place: str = "us-east-1a", gpu: str = "H100", cloud: str = "aws") -> float:
    return learned(spells, cloud, place, gpu).losses_per_h(1.0)


@given(_RATES)
def test_moments_of_a_spell_are_integrals_of_its_survival(rates: tuple[float, ...]) -> None:
    spell = Spell(_EDGES, rates)
    top, cells = 8 + 20 / min(rates), 200_000
    width = top / cells
    ages = [(i + 20) * width for i in range(0, cells, 40)]
    mean = sum(spell.survival(age) for age in ages) * width * 40
    assert spell.beyond_h(0.0) == pytest.approx(mean, rel=0.05, abs=0.05)
    square = 2 * sum(age * spell.survival(age) for age in ages) * width * 40
    assert spell.squared_h2() == pytest.approx(square, rel=0.05, abs=0.05)


@given(_RATES, st.floats(0, 30), st.floats(0.01, 30))
def test_older_is_rarer(rates: tuple[float, ...], age_h: float, more_h: float) -> None:
    spell = Spell(_EDGES, rates)
    assert spell.survival(age_h + more_h) < spell.survival(age_h) <= 1
    assert spell.beyond_h(age_h + more_h) < spell.beyond_h(age_h)


def test_hazards_fall_with_the_age_of_the_spell_and_the_prior_is_half_the_record() -> None:
    rates = [prior().losses_per_h(age_h) for age_h in (0.05, 0.25, 0.5, 1.5, 6, 30)]
    assert rates == sorted(rates, reverse=True)
    assert 2.0 * prior().losses_per_h(0.0) == pytest.approx(recorded().losses_per_h(0.0))


def test_own_losses_raise_the_rate_where_they_were_most_of_all() -> None:
    bad = [_own(0.8, lost=True) for _ in range(6)]
    here, same_gpu, cloud, elsewhere = (
        _rate(bad),
        _rate(bad, place="us-east-1b"),
        _rate(bad, place="us-east-1b", gpu="L4"),
        _rate(bad, cloud="gcp", place="us-central1-a", gpu="L4"),
    )
    assert here > same_gpu > cloud > elsewhere > prior().losses_per_h(1.0)
    assert here > 1.5 * prior().losses_per_h(1.0)


def test_long_own_runs_without_a_loss_lower_the_rate() -> None:
    assert _rate([_own(20, lost=False) for _ in range(10)]) < 0.5 * prior().losses_per_h(1.0)


def test_nothing_of_ones_own_is_the_prior() -> None:
    assert learned([], "aws", "us-east-1a", "H100") is prior()
    usual = hazards_of((), SpotGroup("aws", "us-east-1a", "H100"))
    assert usual == prior().times(sizes().factor(1, 1))


def test_larger_machines_are_lost_more_often_and_groups_hardly() -> None:
    """Measured within zones: a factor of 1.6 from one to eight GPUs, 1.2 from one to sixteen machines."""
    factor = sizes().factor
    assert 1.3 < factor(1, 8) / factor(1, 1) < 2.0
    assert 1.0 < factor(16, 8) / factor(1, 8) < 1.5
    factors = [factor(1, gpus) for gpus in (1, 2, 4, 8)]
    assert factors == sorted(factors)
    assert factor(1, 16) == factor(1, 8) and factor(99, 1) == factor(16, 1)  # no size on record is larger
    assert factor(1, 0) == factor(1, 1)  # a machine without GPUs
    alone, group = (hazards_of((), SpotGroup("aws", "a", "H100", n, 8)).losses_per_h(0.0) for n in (1, 4))
    assert alone < group < 1.3 * alone


def test_the_loss_of_a_large_machine_says_less_of_a_small_one() -> None:
    large = learned([_own(4, lost=True)._replace(gpus=8)] * 5, "aws", "us-east-1a", "H100")
    one = learned([_own(4, lost=True)] * 5, "aws", "us-east-1a", "H100")
    assert large.losses_per_h(1.0) < one.losses_per_h(1.0)


@given(st.floats(0.5, 2), st.floats(0.5, 2))
def test_a_lean_moves_the_prior_by_itself_alone(one: float, other: float) -> None:
    rate = prior().losses_per_h(0.0)
    leant = [learned([], "aws", "a", "H100", lean).losses_per_h(0.0) for lean in sorted((one, other))]
    assert leant[0] <= leant[1] and 0.5 * rate <= leant[0] * 1.0001 and leant[1] <= 2.0001 * rate
    assert learned([], "aws", "a", "H100", one).losses_per_h(0.0) == pytest.approx(one * rate)


def test_own_runs_win_against_any_lean() -> None:
    good, bad = [_own(20, lost=False)] * 40, [_own(0.4, lost=True)] * 40
    usual = [_own(hours, lost=hours < 8) for hours in (0.1, 0.3, 0.5, 1, 2, 3, 5, 8)] * 6
    for spells in (good, bad, usual):  # at the age that they tell of
        low, high = (
            learned(spells, "aws", "us-east-1a", "H100", lean).losses_per_h(0.35) for lean in (0.5, 2.0)
        )
        assert low == pytest.approx(high, rel=0.25)
    contradicted = learned(bad, "aws", "us-east-1a", "H100", 0.5).losses_per_h(1.0)
    assert contradicted > 2 * learned(good, "aws", "us-east-1a", "H100", 2.0).losses_per_h(1.0)
    few = [learned(bad[:1], "aws", "us-east-1a", "H100", lean).losses_per_h(1.0) for lean in (0.5, 1.0, 2.0)]
    assert few == sorted(few) and few[2] > 1.5 * few[0]


def test_places_that_own_runs_say_the_same_of_share_one_answer() -> None:
    spells = (_own(3, lost=True),)
    rates = [
        hazards_of(spells, SpotGroup("aws", zone, "H100")).losses_per_h(1)
        for zone in ("b", "c", "us-east-1a")
    ]
    assert rates[0] == rates[1] < rates[2]


def test_the_source_counts_own_runs() -> None:
    source = learned([_own(3, lost=True), _own(5, lost=False)], "aws", "us-east-1a", "H100").source
    assert source.startswith("1 interruptions in 8.0 h of your own spot runs, and ")


def test_model_weights_sum_to_one() -> None:
    found = learned([_own(3, lost=True)], "aws", "us-east-1a", "H100")
    assert math.isclose(sum(model.weight for model in found.models), 1)
