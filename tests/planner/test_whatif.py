from pathlib import Path

import pytest

from planner.estimate import build_estimate
from planner.whatif import changed_spec, other_gpus, what_if
from tests.planner.factories import offer_of, question_of, snapshot_of, spec_of

OFFERS = snapshot_of(
    offer_of("A100-80GB", 1, 2.0),
    offer_of("A100-80GB", 1, 1.0, market="spot"),
    offer_of("H100", 1, 5.0),
    offer_of("A10", 1, 0.1, region="eu-west-1"),
)


def changes_of(**sections: object) -> dict[str, float]:
    """First key of each change -> what it costs more."""
    estimate = build_estimate(question_of(**sections), OFFERS)
    rows = what_if(spec_of(**sections), Path(), OFFERS, estimate)
    best = estimate.candidates[0]
    for row in rows:
        assert row.cost_usd == row.candidate.cost_usd.p50 - best.cost_usd.p50
        assert row.wall_clock_h == row.candidate.wall_clock_h.p50 - best.wall_clock_h.p50
        assert row.memory_gib == row.candidate.memory.reserved_gib - best.memory.reserved_gib
    assert [row.cost_usd for row in rows] == sorted(row.cost_usd for row in rows)
    return {next(iter(row.changes)): row.cost_usd for row in rows}


def test_packing_spot_and_other_regions_save() -> None:
    where = {"market": ["on_demand"], "regions": ["us-east-1"]}
    found = changes_of(where=where, train={"packing": False}, data={"max_tokens_per_sample": 2000})
    assert found["train.packing"] < 0 and found["where.market"] < 0


def test_what_the_search_may_choose_itself_is_not_worse() -> None:
    found = changes_of(train={"micro_batch": 1, "gradient_checkpointing": False})
    assert found["train.gradient_checkpointing"] < 0


def test_more_machines_are_told_once_each_and_nothing_that_is_only_worse() -> None:
    sections = {"goal": {"objective": "fastest"}, "where": {"market": ["on_demand"]}}
    estimate = build_estimate(question_of(**sections), OFFERS)
    best = estimate.candidates[0]
    rows = what_if(spec_of(**sections), Path(), OFFERS, estimate)
    nodes = [row for row in rows if "where.nodes" in row.changes]
    assert len(nodes) >= 2 and len({row.candidate.candidate_id for row in nodes}) == len(nodes)
    for sections in ({}, {"goal": {"objective": "cheapest_by_deadline", "within": "3m"}}):
        estimate = build_estimate(question_of(**sections), OFFERS)
        best = estimate.candidates[0]
        for row in what_if(spec_of(**sections), Path(), OFFERS, estimate):
            chance = (row.candidate.p_finish_by_deadline or 0.0) - (best.p_finish_by_deadline or 0.0)
            assert min(row.cost_usd, row.wall_clock_h, row.memory_gib) < 0 or chance > 0


def test_what_makes_no_difference_is_not_told() -> None:
    found = changes_of(where={"regions": ["us-east-1", "eu-west-1"]})
    assert "where.regions" not in found


def test_every_weight_or_adapters() -> None:
    assert changes_of(method={"kind": "full"}, model="meta-llama/Llama-3.2-3B")["method.kind"] < 0


def test_a_gpu_without_bf16_units_is_told_and_fp16_proposed() -> None:
    """Attention on a T4 stays in fp32 in both, since packed rows of grouped heads find no fused kernel there."""
    old = snapshot_of(offer_of("T4", 1, 0.4))
    sections = {"model": "meta-llama/Llama-3.2-1B", "train": {"precision": "bf16"}}
    estimate = build_estimate(question_of(**sections), old)
    assert "T4 has no bf16 units" in dict(estimate.warnings)["emulated_bf16"]
    rows = {next(iter(row.changes)): row for row in what_if(spec_of(**sections), Path(), old, estimate)}
    faster, best = rows["train.precision"], estimate.candidates[0]
    assert faster.changes == {"train.precision": "fp16"}
    assert faster.wall_clock_h < -0.4 * best.wall_clock_h.p50 and faster.cost_usd < 0
    assert "overflow" in faster.caveat


@pytest.mark.parametrize(("gpu", "precision"), [("T4", "fp16"), ("A10", "bf16"), ("P40", "bf16")])
def test_a_gpu_that_gains_nothing_from_fp16_is_not_told(gpu: str, precision: str) -> None:
    sections = {"model": "Qwen/Qwen2.5-0.5B", "train": {"precision": precision}}
    estimate = build_estimate(question_of(**sections), snapshot_of(offer_of(gpu, 1, 0.4)))
    assert estimate.candidates and "emulated_bf16" not in dict(estimate.warnings)


@pytest.mark.parametrize(
    ("sections", "changes"),
    [
        ({"task": "dpo", "train": {"packing": False}}, {"train.packing": True}),
        ({}, {"quantization": "4bit", "method.kind": "full"}),
        ({}, {"where.market": ["reserved"]}),
    ],
)
def test_changes_that_contradict_the_spec_are_none(
    sections: dict[str, object], changes: dict[str, object]
) -> None:
    assert changed_spec(spec_of(**sections), changes) is None


def test_other_gpus_are_the_best_of_each() -> None:
    estimate = build_estimate(question_of(), OFFERS)
    rows = other_gpus(estimate)
    best = estimate.candidates[0].offer.gpu
    assert best not in {row.candidate.offer.gpu for row in rows}
    assert len({row.candidate.offer.gpu for row in rows}) == len(rows) >= 1
    for row in rows:
        first = next(c for c in estimate.candidates if c.offer.gpu == row.candidate.offer.gpu)
        assert row.candidate == first
    assert other_gpus(build_estimate(question_of(), snapshot_of(offer_of("T4", 1, 1.0)))) == ()
