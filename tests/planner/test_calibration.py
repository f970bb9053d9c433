import math
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.calibration import SHARES, UNCORRECTED, Calibration, Observation, likeness, log_sd
from planner.quantiles import Quantiles

SD = 0.3


def groups(job: str, *, gpu: str = "A10", method: str = "lora") -> dict[str, str]:
    return {
        "stack": "trl",
        "gpu": f"{gpu}|trl",
        "class": f"{gpu}|trl|{method}",
        "place": "cloud|aws",
        "model": "m",
        "job": job,
    }


def seen(job: str, ratio: float, run_id: str = "", **fields: str) -> Observation:
    return Observation(run_id or job, groups(job, **fields), {"step_time": math.log(ratio)})


def factor(*observations: Observation, job: str = "mine") -> float:
    return Calibration(observations).correction("step_time", groups(job), SD).factor


@pytest.mark.parametrize("quantity", list(SHARES))
def test_shares_add_up_to_the_whole_variance(quantity: str) -> None:
    assert sum(share for _, share in SHARES[quantity]) == pytest.approx(1)
    assert likeness(quantity, groups("a"), groups("a")) == pytest.approx(1)


def test_without_runs_nothing_changes() -> None:
    assert Calibration().correction("step_time", groups("a"), SD) is UNCORRECTED
    assert UNCORRECTED.apply(Quantiles(1, 2, 4)) == Quantiles(1, 2, 4)


def test_another_job_of_the_class_is_trusted_by_about_four_tenths() -> None:
    assert math.log(factor(seen("other", 2.0))) / math.log(2) == pytest.approx(0.4, abs=0.02)


def test_the_same_job_is_trusted_almost_wholly() -> None:
    assert math.log(factor(seen("mine", 2.0))) / math.log(2) > 0.95


def test_another_gpu_or_method_says_little() -> None:
    other_gpu = math.log(factor(seen("other", 2.0, gpu="H100"))) / math.log(2)
    other_method = math.log(factor(seen("other", 2.0, method="full"))) / math.log(2)
    assert 0 < other_gpu < other_method < 0.3


def test_several_jobs_that_agree_are_trusted_more_than_one_that_repeats() -> None:
    jobs = factor(*(seen(f"job-{n}", 2.0) for n in range(6)))
    repeats = factor(*(seen("other", 2.0, f"run-{n}") for n in range(6)))
    assert 2**0.6 < jobs < 2
    assert repeats == pytest.approx(2**0.4, rel=0.02)


def test_the_same_job_outweighs_many_others() -> None:
    others = [seen(f"job-{n}", 0.5) for n in range(20)]
    assert factor(seen("mine", 2.0), *others) > 1.7


def test_the_interval_narrows_with_likeness() -> None:
    def shrink(*observations: Observation) -> float:
        return Calibration(observations).correction("step_time", groups("mine"), SD).shrink

    same, alike, far = shrink(seen("mine", 1.2)), shrink(seen("o", 1.2)), shrink(seen("o", 1.2, gpu="H100"))
    assert same < 0.4 < alike < far < 1


def test_a_run_that_surprises_moves_another_job_without_making_it_surer() -> None:
    found = Calibration((seen("o", 8.0),)).correction("step_time", groups("mine"), SD)
    assert found.factor > 2
    assert found.shrink == 1


def test_what_befell_one_job_is_believed_of_it_and_moves_others_no_more_than_tenfold_would() -> None:
    """A run beside others' work took eighty times as long: that is no news of another GPU."""
    assert factor(seen("mine", 80.0)) > 50
    for fields in ({}, {"gpu": "H100"}):
        assert factor(seen("o", 80.0, **fields)) == pytest.approx(factor(seen("o", 10.0, **fields)))
        assert factor(seen("o", 5.0, **fields)) < factor(seen("o", 10.0, **fields))
    assert factor(seen("o", 80.0, gpu="H100")) < 1.3


def test_a_formula_that_is_far_off_deserves_no_trust_against_a_noisy_repeat() -> None:
    """Starts of the same job scatter by a third; one that took thirty times as long is believed all the same."""
    run = Observation("r", groups("mine"), {"start": math.log(30)})
    assert Calibration((run,)).correction("start", groups("mine"), SD).factor > 25


def test_a_job_that_scatters_is_trusted_less_and_stays_wide() -> None:
    steady = Calibration(tuple(seen("mine", 2.0, f"r{n}") for n in range(4)))
    wild = Calibration(tuple(seen("mine", ratio, f"r{n}") for n, ratio in enumerate((1.0, 4.0, 1.0, 4.0))))
    one, other = (table.correction("step_time", groups("mine"), SD) for table in (steady, wild))
    assert other.factor < one.factor
    assert other.shrink > 2 * one.shrink


def test_only_runs_that_are_alike_are_named() -> None:
    far = Observation(
        "far", {**groups("x"), "stack": "hf", "gpu": "B|hf", "class": "B|hf|full"}, {"step_time": 1.0}
    )
    found = Calibration((seen("other", 2.0, "near"), far)).correction("step_time", groups("mine"), SD)
    assert found.runs == ("near",)


ratios = st.lists(st.tuples(st.integers(0, 5), st.floats(0.01, 100)), min_size=1, max_size=12)


@given(ratios, st.floats(0.05, 1.0))
def test_corrections_stay_within_what_was_seen_and_intervals_never_widen(
    rows: list[tuple[int, float]], sd: float
) -> None:
    table = Calibration(tuple(seen(f"job-{job}", ratio, f"r{n}") for n, (job, ratio) in enumerate(rows)))
    found = table.correction("step_time", groups("job-0"), sd)
    largest = max(abs(math.log(ratio)) for _, ratio in rows)
    assert abs(math.log(found.factor)) <= 2 * min(largest, math.log(200)) + 1e-9
    assert 0 < found.shrink <= 1
    value = found.apply(Quantiles(0.5, 1.0, 2.5))
    assert value.p10 <= value.p50 <= value.p90
    assert value.p90 / value.p10 <= 5 + 1e-9


@given(st.floats(0.05, 20), st.floats(0.05, 0.8))
def test_one_other_job_never_moves_an_estimate_further_than_its_own_error(ratio: float, sd: float) -> None:
    moved = math.log(Calibration((seen("other", ratio),)).correction("step_time", groups("mine"), sd).factor)
    assert 0 <= moved * math.copysign(1, math.log(ratio) or 1) <= 0.4 * abs(math.log(ratio)) + 1e-9


def test_a_simulated_user_is_predicted_better_run_by_run_and_the_interval_covers() -> None:
    """Errors drawn as the model assumes: the corrected ones are smaller, and 80 % lie inside."""
    rng = random.Random(7)
    raw, corrected, inside = [], [], []
    for _ in range(400):
        parts = {name: rng.gauss(0, SD * math.sqrt(share)) for name, share in SHARES["step_time"][:3]}
        jobs = [rng.gauss(0, SD * math.sqrt(0.6)) for _ in range(4)]
        errors = [sum(parts.values()) + job + rng.gauss(0, 0.05) for job in jobs]
        table = Calibration(tuple(seen(f"job-{n}", math.exp(error)) for n, error in enumerate(errors[1:], 1)))
        found = table.correction("step_time", groups("job-0"), SD)
        left = errors[0] - math.log(found.factor)
        raw.append(abs(errors[0]))
        corrected.append(abs(left))
        inside.append(abs(left) <= 1.2816 * SD * found.shrink)
    assert fmean(corrected) < 0.92 * fmean(raw)
    assert 0.74 <= fmean(inside) <= 0.86


def test_log_sd_of_an_interval() -> None:
    assert log_sd(Quantiles(1 / math.exp(1.2816 * 0.2), 1.0, math.exp(1.2816 * 0.2))) == pytest.approx(0.2)
