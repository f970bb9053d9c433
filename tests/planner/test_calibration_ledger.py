"""From recorded runs to better estimates: what `plan estimate` does with the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.progress import PeakMemory, Progress, StepTimes
from jobs.spec import JobSpec
from planner.accuracy import accuracy_document
from planner.answer import Answer, estimate_spec
from planner.calibration import NOT_CALIBRATED, Calibration
from planner.calibration_document import calibration_document
from planner.calibration_ledger import PROBE_LABEL, calibration_of, observe_run
from planner.candidate_document import candidate_document, candidate_from_document
from planner.candidates import Candidate
from planner.probe import probe_spec
from planner.rented import terms_document
from planner.repricing import with_machines
from planner.runs import Run
from planner.spec import FineTuneSpec
from planner.specfile import load_spec
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.run_factories import START, attempt_of, local_offer, run_of, terms_of

ROOT = Path(__file__).parents[2]
GOAT = load_spec(ROOT / "examples/tiny-goat/spec.yaml")
STAGES = {
    "data": 0.1,
    "setup": 9.0,
    "load": 0.5,
    "tokenise": 2.0,
    "evaluate": 4.0,
    "train": 60.0,
    "save": 0.5,
}


def estimate(
    spec: FineTuneSpec,
    calibration: Calibration = NOT_CALIBRATED,
    *,
    local: bool = False,
    gpu: str = "A100-80GB",
) -> Answer:
    offers = snapshot_of(local_offer(0.0) if local else offer_of(gpu))
    return estimate_spec(spec, GOAT.base_dir, offers, NOW, calibration=calibration)


def best(answer: Answer) -> Candidate:
    candidate = answer.estimate.recommended
    assert candidate is not None
    return candidate


def finished(
    answer: Answer, *, times: float = 1.0, run_id: str = "r1", step_s: float | None = None, **fields: Any
) -> Run:
    """The recommended candidate as a run whose steps took `times` as long as the formula said."""
    candidate = best(answer)
    assert candidate.basis is not None
    actual_s = step_s or candidate.basis.priors["step_time"] * times
    memory = PeakMemory(1.0, candidate.basis.priors["memory"] * fields.pop("memory", 1.0), 2.0)
    progress = Progress(
        run_id,
        1,
        state="done",
        step=fields.pop("steps", 100),
        step_time_s=StepTimes(actual_s, actual_s, actual_s),
        peak_memory_gib=memory,
        stage_seconds=dict(STAGES),
    )
    offer = json.dumps(candidate_document(candidate)["offer"])
    ended = "2026-11-22T12:01:20.000Z"
    attempt = replace(attempt_of(), offer_json=offer, started_at=START, ended_at=ended, cost_micro_usd=1000)
    terms = terms_of(
        candidate_json=json.dumps(candidate_document(candidate)), labels=fields.pop("labels", {})
    )
    state = fields.pop("state", "succeeded")
    return run_of(state, attempt, run_id=run_id, terms=terms, progress_json=progress.to_json(), **fields)


def test_the_basis_survives_its_document() -> None:
    candidate = best(estimate(spec_of()))
    read = candidate_from_document(json.loads(json.dumps(candidate_document(candidate))))
    assert read.basis == candidate.basis
    old = {key: value for key, value in candidate_document(candidate).items() if key != "basis"}
    assert candidate_from_document(old).basis is None


def test_a_second_local_run_is_predicted_far_better_than_the_first() -> None:
    first = estimate(GOAT.spec, local=True)
    actual_s = best(first).step_time_s.p50 * 6
    second = best(estimate(GOAT.spec, calibration_of([finished(first, step_s=actual_s)]), local=True))
    assert abs(best(first).step_time_s.p50 / actual_s - 1) > 0.8
    assert abs(second.step_time_s.p50 / actual_s - 1) < 0.2
    assert second.step_time_s.p10 <= actual_s <= second.step_time_s.p90
    assert second.step_time_s.p90 / second.step_time_s.p10 < 0.6 * (
        best(first).step_time_s.p90 / best(first).step_time_s.p10
    )


def test_overheads_of_the_same_place_are_learned() -> None:
    first = estimate(GOAT.spec, local=True)
    run = finished(first, step_s=0.1)
    seen = observe_run(run)
    assert seen is not None
    basis = best(first).basis
    assert basis is not None
    actual = {name: basis.priors[name] * 2.718281828**ratio for name, ratio in seen.log_ratios.items()}
    # 80 s of wall clock less what stages name besides the start
    assert actual["start"] == pytest.approx(80 - 0.1 - 2.0 - 4.0 - 0.5 - 60.0, rel=1e-6)
    assert (actual["prepare"], actual["evaluate"]) == (pytest.approx(2.1), pytest.approx(4.0))
    second = best(estimate(GOAT.spec, calibration_of([run]), local=True))
    wall_s = 600 * 0.1 + 13.4 + 2.1 + 4.0 + 0.5
    assert second.wall_clock_h.p50 * 3600 == pytest.approx(wall_s, rel=0.2)


def test_corrections_do_not_compound_over_runs() -> None:
    """Each run is compared with the formula, not with what was promised: ten runs say what one says."""
    runs: list[Run] = []
    for number in range(5):
        answer = estimate(spec_of(), calibration_of(runs))
        step_s = best(estimate(spec_of())).step_time_s.p50 * 2
        runs.insert(0, finished(answer, step_s=step_s, run_id=f"r{number}"))
    truth = best(estimate(spec_of())).step_time_s.p50 * 2
    assert best(estimate(spec_of(), calibration_of(runs))).step_time_s.p50 == pytest.approx(truth, rel=0.05)


def test_another_job_learns_a_part_and_another_gpu_little() -> None:
    table = calibration_of([finished(estimate(spec_of()), times=2.0)])
    other = spec_of(train={"sequence_length": 1024})

    def moved(spec: FineTuneSpec, gpu: str = "A100-80GB") -> float:
        plain = best(estimate(spec, gpu=gpu)).step_time_s.p50
        return best(estimate(spec, table, gpu=gpu)).step_time_s.p50 / plain

    assert moved(spec_of()) == pytest.approx(2.0, rel=0.05)
    assert 1.2 < moved(other) < 1.45
    assert 1.0 < moved(spec_of(), "H100") < 1.15


@pytest.mark.parametrize("recorded", [{}, {"stack": "trl"}], ids=["now", "by an older version"])
def test_runs_on_a_cpu_say_nothing_of_gpus(recorded: dict[str, str]) -> None:
    runs = []
    for number, steps in enumerate((600, 600, 40)):
        run = finished(estimate(GOAT.spec, local=True), step_s=3.0, run_id=f"r{number}", steps=steps)
        candidate = json.loads(run.terms.candidate_json)
        candidate["basis"]["groups"] |= recorded
        terms = replace(run.terms, candidate_json=json.dumps(candidate))
        runs.append(replace(run, terms=terms, state="cancelled" if steps == 40 else "succeeded"))
    table = calibration_of(runs)
    assert best(estimate(GOAT.spec, table, local=True)).step_time_s.p50 == pytest.approx(3.0, rel=0.1)
    learned = estimate(spec_of(), table).estimate.priced[0].solved.learned
    assert (learned.runs, learned.noticed()) == ((), "")
    assert best(estimate(spec_of(), table)).step_time_s == best(estimate(spec_of())).step_time_s


def test_what_was_learned_is_an_assumption_that_counts_the_runs() -> None:
    runs = [finished(estimate(spec_of()), times=1.23, run_id=f"r{n}") for n in range(3)]
    said = [
        row
        for row in estimate(spec_of(), calibration_of(runs)).estimate.assumptions
        if "formulas" in row.name
    ]
    assert len(said) == 1
    assert "step time x1.2" in str(said[0].value)
    assert "3 of your runs" in said[0].source
    assert not [row for row in estimate(spec_of()).estimate.assumptions if "formulas" in row.name]


def test_memory_that_was_larger_is_expected_larger_up_to_a_refusal() -> None:
    plain = best(estimate(spec_of())).memory
    larger = best(estimate(spec_of(), calibration_of([finished(estimate(spec_of()), memory=1.2)]))).memory
    assert plain.reserved_gib < larger.reserved_gib < 1.25 * plain.reserved_gib
    assert sum(larger.components_gib.values()) == pytest.approx(larger.nvml_gib, rel=0.01)
    runs = [finished(estimate(spec_of()), memory=9.0, run_id=f"r{n}") for n in range(4)]
    refused = estimate(spec_of(), calibration_of(runs)).estimate
    assert refused.candidates == ()
    assert refused.rejected[0].reason_code == "oom"


@pytest.mark.parametrize(
    "run",
    [
        finished(estimate(spec_of()), state="running"),
        replace(finished(estimate(spec_of())), progress_json=None),
        replace(finished(estimate(spec_of())), terms=terms_of()),
    ],
    ids=["running", "silent", "old"],
)
def test_runs_that_say_nothing_are_left_out(run: Run) -> None:
    assert observe_run(run) is None


def test_a_run_that_another_version_wrote_is_passed_over() -> None:
    good = finished(estimate(spec_of()), run_id="good")
    bad = [
        replace(good, progress_json="{"),
        replace(good, progress_json='{"step": 50, "step_time_s": {"p11": 1}}'),
    ]
    assert [one.run_id for one in calibration_of([*bad, good]).observations] == ["good"]


def test_a_failed_run_teaches_its_step_time_but_no_overheads() -> None:
    seen = observe_run(finished(estimate(spec_of()), state="cancelled"))
    assert seen is not None
    assert set(seen.log_ratios) == {"step_time", "memory"}
    short = observe_run(finished(estimate(spec_of()), state="cancelled", steps=20))
    assert short is not None
    assert set(short.log_ratios) == {"memory"}
    probe = observe_run(finished(estimate(spec_of()), steps=20))
    assert probe is not None and "step_time" in probe.log_ratios


def test_a_probe_is_the_same_job() -> None:
    probe = probe_spec(GOAT.spec, 30)
    assert (probe.train.steps, probe.labels[PROBE_LABEL], probe.output.uri) == (30, "tiny-goat", None)
    one, other = best(estimate(GOAT.spec, local=True)).basis, best(estimate(probe, local=True)).basis
    assert one is not None
    assert other is not None
    assert one.groups == other.groups


def test_accuracy_by_gpu_and_method_leaves_probes_out() -> None:
    runs = [
        finished(estimate(spec_of()), times=1.1, run_id="a"),
        finished(estimate(spec_of()), times=3.0, run_id="b"),
        finished(estimate(spec_of()), times=9.0, run_id="p", labels={PROBE_LABEL: "x"}),
    ]
    document = accuracy_document(runs)
    assert document["run_ids"] == ["a", "b"]
    rows = {(row["quantity"], row["gpu"]): row for row in document["rows"]}
    step = rows["step_time_s", "A100-80GB"]
    assert (step["runs"], step["method"]) == (2, "lora")
    assert step["median_error"] == pytest.approx((1 / 1.1 + 1 / 3) / 2 - 1)
    assert step["inside_interval"] == 0.5
    assert step["formula_median_abs_error"] == pytest.approx(step["median_abs_error"])
    assert rows["step_time_s", None]["runs"] == 2


def elsewhere(run: Run, **offer: Any) -> Run:
    """The run, as if it had got one of its plan's other machines."""
    got = json.loads(run.current.offer_json) | offer
    return replace(run, attempts=(replace(run.current, offer_json=json.dumps(got)),))


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (
            {"region": "elsewhere", "price_usd_per_h": "9"},
            {"step_time", "memory", "start", "prepare", "finish"},
        ),
        ({"gpu": "H100"}, {"start", "prepare", "finish"}),
        ({"gpus_per_node": 2}, {"start", "prepare", "finish"}),
        ({"cloud": "another"}, {"step_time", "memory"}),
        ({"cloud": "another", "gpu": "H100"}, None),
    ],
)
def test_a_machine_that_was_not_planned_for_teaches_nothing_of_the_one_that_was(
    got: dict[str, Any], told: set[str] | None
) -> None:
    run = elsewhere(finished(estimate(spec_of()), times=2.0), **got)
    seen = observe_run(run)
    assert (None if seen is None else set(seen.log_ratios) - {"evaluate"}) == told
    assert bool(accuracy_document([run])["rows"]) == ("region" in got)


def test_the_first_run_teaches_of_the_cloud_that_it_was_planned_for() -> None:
    """Before anything is known of places a shape is solved once for all clouds; its bases name each candidate's own."""
    offers = snapshot_of(offer_of(price=2.0), offer_of(price=1.0, cloud="gcp", region="us-central1"))
    answer = estimate_spec(spec_of(), GOAT.base_dir, offers, NOW)
    places = {row.offer.cloud: row.basis.groups["place"] for row in answer.estimate.candidates if row.basis}
    assert places == {"aws": "cloud|aws", "gcp": "cloud|gcp"}
    run = finished(answer, times=2.0)
    seen = observe_run(run)
    assert seen is not None
    assert seen.groups["place"] == "cloud|gcp"
    assert "start" in seen.log_ratios
    assert accuracy_document([run])["rows"]


def with_both_gpus(times: float) -> tuple[Run, dict[str, Candidate]]:
    """A run that was planned for an A100 and got an H100, where its steps took `times` as long as the formula said."""
    offers = snapshot_of(offer_of(price=2.0), offer_of("H100", price=3.0))
    plan = estimate_spec(spec_of(train={"micro_batch": 1}), GOAT.base_dir, offers, NOW).plan()
    by_gpu = {row.offer.gpu: row for row in plan.candidates}
    chosen, basis = by_gpu["A100-80GB"], by_gpu["H100"].basis
    assert basis is not None
    run = finished(estimate(spec_of()), step_s=basis.priors["step_time"] * times)
    job = JobSpec.from_json(run.terms.job_json)
    document = candidate_document(chosen) | {
        "rented": json.loads(json.dumps(terms_document(plan, chosen, job)))
    }
    terms = replace(run.terms, candidate_json=json.dumps(document))
    return elsewhere(replace(run, terms=terms), gpu="H100"), by_gpu


def learned_factor(run: Run, candidate: Candidate) -> float:
    assert candidate.basis is not None
    return calibration_of([run]).correction("step_time", candidate.basis.groups, 0.3).factor


@pytest.mark.parametrize("resumed", [False, True], ids=["at once", "first of those that a resume asked for"])
def test_a_run_on_another_gpu_than_planned_teaches_of_the_one_that_it_had(resumed: bool) -> None:
    run, by_gpu = with_both_gpus(2.0)
    if resumed:
        document = with_machines(json.loads(run.terms.candidate_json), [by_gpu["H100"].offer])
        run = replace(run, terms=replace(run.terms, candidate_json=json.dumps(document)))
    seen = observe_run(run)
    assert seen is not None and {"step_time", "memory"} <= set(seen.log_ratios)
    assert seen.groups["gpu"].startswith("H100|")
    assert learned_factor(run, by_gpu["H100"]) == pytest.approx(2.0, rel=0.05)
    assert 1.0 < learned_factor(run, by_gpu["A100-80GB"]) < 1.15  # what any two GPUs have in common
    assert not accuracy_document([run])["rows"]  # nothing was promised of it


def test_a_run_on_a_gpu_of_which_no_formula_is_on_record_teaches_nothing_of_gpus() -> None:
    run, by_gpu = with_both_gpus(2.0)
    unknown = elsewhere(run, gpu="L4")
    seen = observe_run(unknown)
    assert seen is not None and not {"step_time", "memory", "evaluate"} & set(seen.log_ratios)
    assert learned_factor(unknown, by_gpu["A100-80GB"]) == 1.0


def test_the_table_shows_ratio_and_trust() -> None:
    document = calibration_document(calibration_of([finished(estimate(spec_of()), times=2.0)]))
    row = next(row for row in document["rows"] if row["quantity"] == "step_time")
    assert row["ratio"] == pytest.approx(2.0)
    assert 1.2 < row["factor_other_job"] < 1.4 < 1.8 < row["factor_same_job"] <= 2.0
    assert calibration_document(NOT_CALIBRATED) == {"rows": [], "runs": []}
