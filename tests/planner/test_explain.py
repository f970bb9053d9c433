import json
import math
from datetime import UTC, datetime

import pytest

from planner.calibration import Calibration, Observation
from planner.candidate_document import candidate_document
from planner.cli.estimate_table import render_estimate
from planner.estimate import Estimate, build_estimate
from planner.explain import Section, explain, explanation_document
from planner.explain.memory import memory
from planner.intake import Overrides
from planner.money import usd_text
from planner.question import Question
from providers.errors import UsageError
from tests.planner.factories import offer_of, question_of, snapshot_of, spec_of

OFFERS = (
    offer_of("A100-80GB", 1, 2.0),
    offer_of("H100", 8, 20.0, market="spot"),
    offer_of("A10", 1, 0.8, flags=("host_from_region",)),
)
SPECS = {
    "lora": {},
    "full": {"method": {"kind": "full"}},
    "qlora": {"method": {"kind": "qlora", "rank": 8}, "train": {"packing": False}},
    "dpo": {"task": "dpo", "train": {"packing": False}, "data": {"tokens_per_sample": 900}},
    "classification": {
        "task": "classification",
        "model": "roberta-large",
        "train": {"packing": False, "sequence_length": 512},
    },
    "moe": {"model": "mistralai/Mixtral-8x7B-v0.1", "method": {"kind": "qlora", "rank": 8}},
}


def estimate_of(name: str) -> Estimate:
    estimate = build_estimate(question_of(**SPECS[name]), snapshot_of(*OFFERS))
    assert estimate.candidates
    return estimate


def taught(question: Question, estimate: Estimate) -> Estimate:
    """The same after a run that took 1.5 times as long and 1.2 times as much of everything else."""
    basis = estimate.candidates[0].basis
    assert basis is not None
    ratios = {"step_time": 1.5, "memory": 1.2, "start": 1.2, "prepare": 1.2, "evaluate": 1.2, "finish": 1.2}
    run = Observation("run-1", basis.groups, {name: math.log(ratio) for name, ratio in ratios.items()})
    return build_estimate(question._replace(calibration=Calibration((run,))), snapshot_of(*OFFERS))


def section(sections: tuple[Section, ...], key: str) -> Section:
    return next(row for row in sections if row.key == key)


def number(value: object) -> float:
    assert isinstance(value, float | int)
    return value


@pytest.mark.parametrize("name", SPECS)
def test_every_total_is_the_sum_of_its_terms(name: str) -> None:
    estimate = estimate_of(name)
    for candidate in estimate.candidates:
        totals = 0
        for part in explain(estimate, candidate.candidate_id).sections:
            if part.total is None:
                continue
            totals += 1
            known = [number(term.value) for term in part.terms if term.value is not None]
            assert math.isclose(math.fsum(known), number(part.total.value), rel_tol=1e-9), part.key
        assert totals == 6


def test_what_own_runs_taught_is_a_term_of_its_own() -> None:
    plain = estimate_of("lora")
    estimate = taught(plain.question, plain)
    index = next(i for i, row in enumerate(estimate.priced) if row.offer == plain.priced[0].offer)
    sections = explain(estimate, str(index + 1)).sections
    correction = next(term for term in section(sections, "step").terms if term.name == "correction")
    assert 1.3 < number(correction.inputs["factor"]) < 1.5 and correction.source == "your runs run-1"
    boot = next(term for term in section(sections, "hours").terms if term.name == "start: boot")
    assert boot.source == "your runs run-1" and boot.formula.endswith(", corrected")
    for part in sections:
        if part.total is not None:
            known = [number(term.value) for term in part.terms if term.value is not None]
            assert math.isclose(math.fsum(known), number(part.total.value), rel_tol=1e-9), part.key


@pytest.mark.parametrize("name", SPECS)
def test_the_values_are_those_of_the_answer(name: str) -> None:
    estimate = estimate_of(name)
    best = estimate.candidates[0]
    shown = candidate_document(best)
    sections = explain(estimate).sections
    memory = {term.name: term.value for term in section(sections, "memory").terms}
    assert memory == best.memory.components_gib
    assert section(sections, "memory").total.value == best.memory.nvml_gib  # type: ignore[union-attr]
    lines = {term.name: term.value for term in section(sections, "cost").terms}
    assert {name: usd_text(number(v)) if v is not None else None for name, v in lines.items()} == shown[
        "cost_tree_usd"
    ]
    whole = explanation_document(explain(estimate))["sections"]
    total = next(row for row in whole if row["key"] == "cost")["total"]
    assert (total["value"], total["interval"]) == (shown["cost_usd"]["p50"], shown["cost_usd"])
    step = section(sections, "step").total
    assert step is not None and step.interval == best.step_time_s
    hours = section(sections, "hours").total
    assert hours is not None and hours.interval == best.wall_clock_h
    counts = estimate.question.counts
    assert section(sections, "parameters").total.value == counts.total  # type: ignore[union-attr]


def test_every_term_has_a_formula_and_a_source() -> None:
    document = explanation_document(explain(estimate_of("lora")))
    terms = [term for part in document["sections"] for term in (*part["terms"], *part["notes"])]
    assert len(terms) > 45
    for term in terms:
        assert term["formula"] and term["source"], term
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_age_source_and_doubts_of_the_price_are_told() -> None:
    question = question_of(method={"kind": "qlora"})
    estimate = build_estimate(question, snapshot_of(offer_of("A10", 1, 0.8, flags=("host_from_region",))))
    price = section(explain(estimate).sections, "cost").notes[0]
    assert question.goal.now == datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert dict(price.inputs) == {"as of": "2026-11-01T00:00:00Z", "days old": 21, "machines": 1}
    assert price.source == "test" and "another zone" in price.error


def test_unknown_is_not_zero() -> None:
    lines = {term.name: term for term in section(explain(estimate_of("lora")).sections, "cost").terms}
    assert lines["egress"].value is None and lines["controller"].value == 0


def test_machines_that_each_save_their_shards_stop_for_a_shorter_time() -> None:
    """And what it costs to keep the whole checkpoint is the same."""
    saved = {}
    for nodes in (2, 8):
        question = question_of(
            Overrides(nodes=nodes), model={"id": "meta-llama/Llama-3.1-70B"}, method={"kind": "full"},
            train={"global_batch": 64},
        )  # fmt: skip
        estimate = build_estimate(question, snapshot_of(offer_of("H200", 8, 30.0)))
        terms = section(explain(estimate).sections, "hours").terms
        saved[nodes] = next(term for term in terms if term.name == "checkpoints").inputs
        assert estimate.recommended is not None
    assert number(saved[2]["save s"]) > 3.9 * number(saved[8]["save s"])
    assert saved[2]["GiB"] == saved[8]["GiB"]
    assert saved[8]["share of a machine"] == 0.125


def test_only_spot_machines_are_interrupted() -> None:
    estimate = estimate_of("lora")
    for candidate in estimate.candidates:
        expected = section(explain(estimate, candidate.candidate_id).sections, "interruptions").terms[1]
        assert (number(expected.value) > 0) == (candidate.offer.market == "spot")


def test_candidates_are_found_by_rank_and_id() -> None:
    estimate = estimate_of("lora")
    second = estimate.candidates[1]
    assert explain(estimate, "2").candidate == second == explain(estimate, second.candidate_id[:6]).candidate
    for wrong in ("0", "99", "c-", "c-zz"):
        with pytest.raises(UsageError, match="candidate is called"):
            explain(estimate, wrong)


def test_the_verdict_is_the_word_of_the_table() -> None:
    estimate = estimate_of("lora")
    fits, priced = estimate.candidates[0], estimate.priced[0]
    tight = fits._replace(memory=fits.memory._replace(upper_gib=fits.memory.limit_gib + 1))
    for candidate, word in ((fits, "fits"), (tight, "tight")):
        notes = {term.name: term.value for term in memory(candidate, priced).notes}
        assert notes["verdict"] == word
        shown = render_estimate(estimate._replace(candidates=(candidate,)), spec_of(), rows=1, width=200)
        assert f" {word} " in next(line for line in shown.splitlines() if line.startswith("1 "))


def test_a_checkpoint_interval_above_half_an_hour_is_explained() -> None:
    question = question_of(Overrides(nodes=2), model="meta-llama/Llama-3.1-70B", method={"kind": "full"})
    estimate = build_estimate(question, snapshot_of(offer_of("H200", 8, 30.0)))
    term = next(
        row
        for row in section(explain(estimate).sections, "interruptions").terms
        if row.name == "checkpoint interval"
    )
    save_s, share = (number(term.inputs[name]) for name in ("save s", "saving share"))
    assert number(term.value) > 1800
    assert number(term.value) == pytest.approx(save_s / share)
