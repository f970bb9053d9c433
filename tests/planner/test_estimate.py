import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.answer import Limits, check, estimate_spec
from planner.architecture import load_architecture
from planner.architecture.registry import model_config
from planner.calibration import Calibration
from planner.candidate_document import candidate_document, candidate_from_document
from planner.candidates import Candidate
from planner.errors import NothingFitsError, OverBudgetError, PolicyError, SpecError
from planner.estimate import Estimate, build_estimate
from planner.hardware import gpu_facts
from planner.hazards import OwnSpell
from planner.intake import Overrides, adapter_of
from planner.job import Job
from planner.memory import estimate_memory
from planner.price_age import PriceLimit
from planner.pricing import Priced
from planner.quantiles import Quantiles
from planner.ranking import ranked
from planner.relax import explain_nothing, nearest_fits
from planner.setup import Cluster
from providers.errors import TuneplanError
from providers.offers import PriceSnapshot
from tests.planner.factories import NOW, offer_of, question_of, snapshot_of, spec_of

_A100 = snapshot_of(offer_of())


def best_of(
    snapshot: PriceSnapshot = _A100, overrides: Overrides | None = None, **sections: object
) -> Candidate:
    best = build_estimate(question_of(overrides, **sections), snapshot).recommended
    assert best is not None
    return best


def cost_usd(**sections: object) -> float:
    return best_of(**sections).cost_usd.p50


def fixed_memory_gib(**sections: object) -> float:
    """Memory with everything chosen by the caller, so that the search cannot hide a change."""
    train = {"micro_batch": 1, "gradient_checkpointing": True, "packing": False, **sections.pop("train", {})}
    return best_of(train=train, **sections).memory.reserved_gib


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"train": {"sequence_length": 512}}, {"train": {"sequence_length": 4096}}),
        ({"method": {"rank": 8}}, {"method": {"rank": 256}}),
        ({"train": {"micro_batch": 1}}, {"train": {"micro_batch": 4}}),
        ({"method": {"kind": "qlora"}}, {"method": {"kind": "lora"}}),
        ({"train": {"gradient_checkpointing": True}}, {"train": {"gradient_checkpointing": False}}),
        ({"train": {"attention": "sdpa"}}, {"train": {"attention": "eager"}}),
        ({"method": {"targets": ["q_proj"]}}, {"method": {"targets": "all-linear"}}),
        ({"train": {"optimizer": "adamw_8bit"}, "method": {"kind": "full"}},
         {"train": {"optimizer": "adamw_fused"}, "method": {"kind": "full"}}),
    ],
)  # fmt: skip
def test_memory_moves_the_right_way(less: dict[str, object], more: dict[str, object]) -> None:
    assert fixed_memory_gib(**less) < fixed_memory_gib(**more)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({"train": {"epochs": 1}}, {"train": {"epochs": 3}}),
        ({"data": {"samples": 10_000}}, {"data": {"samples": 50_000}}),
        ({"data": {"tokens_per_sample": 200}}, {"data": {"tokens_per_sample": 800}}),
        ({"train": {"packing": True}}, {"train": {"packing": False}}),
        ({"train": {"gradient_checkpointing": False}}, {"train": {"gradient_checkpointing": True}}),
        ({"method": {"kind": "lora"}}, {"method": {"kind": "qlora"}}),
        ({"train": {"steps": 100}}, {"train": {"steps": 200}}),
    ],
)
def test_cost_moves_the_right_way(less: dict[str, object], more: dict[str, object]) -> None:
    train = {"micro_batch": 1}
    both = [{**side, "train": {**train, **side.get("train", {})}} for side in (less, more)]
    assert cost_usd(**both[0]) < cost_usd(**both[1])


def test_spot_is_cheaper_and_takes_longer_at_a_third_of_the_price() -> None:
    spot = best_of(snapshot_of(offer_of(market="spot", price=0.7)))
    steady = best_of()
    assert spot.cost_usd.p50 < steady.cost_usd.p50
    assert spot.wall_clock_h.p50 > steady.wall_clock_h.p50
    assert spot.risk is not None and steady.risk is not None
    assert spot.risk.interruptions > 0 and steady.risk.interruptions == 0
    assert spot.risk.expected_cost_usd > spot.cost_usd.p50
    assert steady.risk.expected_cost_usd == pytest.approx(steady.cost_usd.p50)


def test_spot_at_nearly_the_same_price_is_not_worth_it() -> None:
    offers = snapshot_of(offer_of(price=1.16), offer_of(market="spot", price=1.15))
    assert best_of(offers).offer.market == "on_demand"


def test_losses_of_ones_own_make_a_dearer_on_demand_machine_the_cheaper_one() -> None:
    """$1.16 on demand against $0.93 on spot: the prior says spot, a zone that keeps taking machines says not."""
    question = question_of(data={"samples": 200_000})
    offers = snapshot_of(offer_of(price=1.16), offer_of(market="spot", price=0.93))
    assert _recommended(build_estimate(question, offers)).offer.market == "spot"
    taken = tuple(OwnSpell("aws", "use1-az1", "A100-80GB", 1, 0.2, True) for _ in range(20))
    taught = build_estimate(question._replace(calibration=Calibration(spells=taken)), offers)
    best, other = taught.candidates
    assert (best.offer.market, other.offer.market) == ("on_demand", "spot")
    assert best.risk is not None and other.risk is not None
    assert best.risk.expected_cost_usd < other.risk.expected_cost_usd
    assert other.risk.interruptions > 10
    said = dict(taught.warnings)["spot_passed_over"]
    assert "use1-az1 has this machine for $0.93/h on spot" in said
    assert f"${other.risk.expected_cost_usd:,.2f} on average" in said


def test_a_deadline_makes_the_dearer_machine_that_is_in_time_the_better_one() -> None:
    """$1.16 on demand beats $0.93 on spot, by the prior alone, where spot is late in over one of ten cases."""
    offers = snapshot_of(offer_of(price=1.16), offer_of(market="spot", price=0.93))
    priced = build_estimate(question_of(data={"samples": 200_000}), offers).priced
    on_demand, spot = (next(item for item in priced if item.offer.market == m) for m in ("on_demand", "spot"))
    within_h = (on_demand.finish_h.p90 * spot.finish_h.p90) ** 0.5
    goal = {"objective": "cheapest_by_deadline", "within": f"{round(within_h * 60)}m"}
    pressed = build_estimate(question_of(data={"samples": 200_000}, goal=goal), offers)
    best, other = pressed.candidates
    assert (best.offer.market, other.offer.market) == ("on_demand", "spot")
    assert best.risk is not None and other.risk is not None
    assert best.risk.expected_cost_usd > other.risk.expected_cost_usd
    assert other.p_finish_by_deadline is not None and best.p_finish_by_deadline is not None
    assert other.p_finish_by_deadline < 0.9 <= best.p_finish_by_deadline
    assert (
        f"is in time in {other.p_finish_by_deadline:.0%} of cases"
        in dict(pressed.warnings)["spot_passed_over"]
    )


def _recommended(estimate: Estimate) -> Candidate:
    assert estimate.recommended is not None
    return estimate.recommended


def test_the_whole_machine_is_billed() -> None:
    eight = best_of(snapshot_of(offer_of(count=8, price=16.0)))
    assert eight.gpus_total == 8
    lines = sum(eight.cost_tree_usd[name] or 0 for name in ("compute", "rework", "reprovision", "idle"))
    assert lines == pytest.approx(16.0 * eight.wall_clock_h.p50)


def test_more_and_faster_gpus_take_less_time() -> None:
    one, eight = best_of(), best_of(snapshot_of(offer_of(count=8, price=16.0)))
    assert eight.step_time_s.p50 < one.step_time_s.p50
    assert best_of(snapshot_of(offer_of("H100"))).step_time_s.p50 < one.step_time_s.p50


def test_without_room_for_a_copy_the_model_is_sharded() -> None:
    full = best_of(snapshot_of(offer_of("A100-80GB", 8, 16.0)), method={"kind": "full"})
    assert full.parallelism.kind == "fsdp"
    assert full.verdict != "oom"


@settings(max_examples=25, deadline=None)
@given(
    gpu=st.sampled_from(["A10G", "L4", "A100", "A100-80GB", "H100"]),
    count=st.sampled_from([1, 2, 4, 8]),
    price=st.floats(0.05, 100),
    spot=st.booleans(),
    objective=st.sampled_from(
        ["cheapest", "fastest", "best_value", "fastest_within_budget", "cheapest_by_deadline"]
    ),
)
def test_invariants_of_the_json(gpu: str, count: int, price: float, spot: bool, objective: str) -> None:
    offers = snapshot_of(offer_of(gpu, count, price, market="spot" if spot else "on_demand"))
    question = question_of(
        goal={"objective": objective, "within": "24h", "budget": 50}, where={"nodes": "1..2"}
    )
    for candidate in build_estimate(question, offers).candidates:
        document = candidate_document(candidate)
        hours, gpu_hours, cost = document["wall_clock_h"], document["gpu_hours"], document["cost_usd"]
        for name in ("p10", "p50", "p90"):
            assert gpu_hours[name] == pytest.approx(hours[name] * document["gpus_total"])
        assert float(cost["p10"]) <= float(cost["p50"]) <= float(cost["p90"])
        micro = [round(float(v) * 1e6) for v in document["cost_tree_usd"].values() if v is not None]
        assert sum(micro) == round(float(cost["p50"]) * 1e6)
        assert document["verdict"] != "oom"
        assert 0 <= document["p_finish_by_deadline"] <= 1


def test_a_candidate_survives_its_json() -> None:
    candidate = best_of(goal={"within": "24h"})
    again = candidate_from_document(candidate_document(candidate))
    assert candidate_document(again) == candidate_document(candidate)


def test_unknown_price_is_refused_not_free() -> None:
    estimate = build_estimate(question_of(), snapshot_of(offer_of(price=None)))
    assert not estimate.candidates
    assert [(row.reason_code, row.count) for row in estimate.rejected] == [("no_price", 1)]


def test_the_most_an_hour_is_for_all_machines_together() -> None:
    question = question_of(where={"max_usd_per_hour": 9, "nodes": "1..4"})
    offers = snapshot_of(
        offer_of(price=3.0),
        offer_of("H100", price=9.0),
        offer_of("H200", price=9.1),
        offer_of("B200", price=2.26),
    )
    estimate = build_estimate(question, offers)
    allowed = {(c.offer.gpu, c.nodes) for c in estimate.candidates}
    assert {n for gpu, n in allowed if gpu == "A100-80GB"} == {1, 2}  # a batch of 16 does not divide by 3
    assert {n for gpu, n in allowed if gpu == "H100"} == {1}
    assert ("B200", 2) in allowed and ("B200", 4) not in allowed
    assert [(row.reason_code, row.reason) for row in estimate.rejected] == [
        ("over_budget", "over where.max_usd_per_hour")
    ]
    alone = build_estimate(
        question_of(where={"max_usd_per_hour": 9, "nodes": 4}), snapshot_of(offer_of(price=3.0))
    )
    assert [(row.reason_code, row.reason) for row in alone.rejected] == [
        ("over_budget", "over where.max_usd_per_hour, which holds for all 4 machines together")
    ]


def test_an_unknown_gpu_is_refused_by_name() -> None:
    estimate = build_estimate(question_of(), snapshot_of(offer_of("Quantum9")))
    assert estimate.rejected[0].reason_code == "no_gpu_facts"
    assert "Quantum9" in estimate.rejected[0].reason


def test_suspect_prices_never_win() -> None:
    cheap = offer_of(price=0.2, flags=("suspect_price",))
    estimate = build_estimate(question_of(), snapshot_of(cheap, offer_of(price=2.0)))
    assert [c.offer.price_usd_per_hour for c in estimate.candidates] == [2.0, 0.2]
    assert not estimate.candidates[1].pareto


def test_nothing_fits_says_what_would() -> None:
    question = question_of(method={"kind": "full"}, where={"nodes": 1})
    snapshot = snapshot_of(offer_of("A10G", 4, 5.0))
    assert not build_estimate(question, snapshot).candidates
    tight = question_of(train={"micro_batch": 16, "gradient_checkpointing": False, "packing": False})
    snapshot = snapshot_of(offer_of("A10G"))
    assert not build_estimate(tight, snapshot).candidates
    nearest = nearest_fits(tight, snapshot)
    assert nearest and all(fit.verdict in ("fits", "borderline") for fit in nearest)
    for fit in nearest:
        assert fit.cost_usd is not None and fit.cost_usd.p50 > 0


def test_pareto_candidates_are_beaten_by_none() -> None:
    offers = [
        offer_of(g, n, p * n) for g, p in (("A10G", 1), ("A100-80GB", 2), ("H100", 4)) for n in (1, 2, 4, 8)
    ]
    estimate = build_estimate(question_of(), snapshot_of(*offers))
    frontier = [c for c in estimate.candidates if c.pareto]
    assert 1 < len(frontier) < len(estimate.candidates)
    for one in frontier:
        assert not any(
            other.cost_usd.p50 < one.cost_usd.p50 and other.wall_clock_h.p50 < one.wall_clock_h.p50
            for other in estimate.candidates
        )


def test_what_may_not_fit_is_not_on_the_frontier() -> None:
    cheap = offer_of("A100-80GB", 8, 1.0, ram_gib=8.0)
    question = question_of(model="meta-llama/Llama-3.1-70B", method={"kind": "lora", "rank": 8})
    estimate = build_estimate(question, snapshot_of(cheap, offer_of("A100-80GB", 8, 20.0, ram_gib=2000.0)))
    told = {c.offer.price_usd_per_hour: (c.may_not_fit, c.pareto) for c in estimate.candidates}
    assert told == {20.0: (False, True), 1.0: (True, False)}


def test_objectives_choose_differently() -> None:
    offers = snapshot_of(offer_of("A100-80GB", 1, 1.0), offer_of("H100", 8, 60.0))
    assert best_of(offers, goal={"objective": "cheapest"}).offer.gpu == "A100-80GB"
    assert best_of(offers, goal={"objective": "fastest"}).offer.gpu == "H100"
    within = {"objective": "fastest_within_budget", "budget": 3}
    assert best_of(offers, goal=within).offer.gpu == "A100-80GB"
    soon = {"objective": "cheapest_by_deadline", "within": "30m"}
    assert best_of(offers, goal=soon).offer.gpu == "H100"


def test_overrides_fix_the_machine() -> None:
    offers = snapshot_of(*(offer_of(g, n) for g in ("A100-80GB", "H100") for n in (1, 2)))
    estimate = build_estimate(question_of(Overrides(gpu="H100", count=2)), offers)
    assert {(c.offer.gpu, c.gpus_total) for c in estimate.candidates} == {("H100", 2)}


def test_the_number_of_gpus_says_nothing_of_the_number_of_machines() -> None:
    several = {"where": {"nodes": "2..4"}, "train": {"global_batch": 32}}
    assert question_of(Overrides(count=1), **several).nodes == (2, 4)
    assert question_of(Overrides(count=1, nodes=8), **several).nodes == (8,)
    assert question_of(Overrides(gpu="A100-80GB", count=1)).nodes == (1,)


def test_checks_end_with_their_errors(tmp_path) -> None:
    def answer(**sections):
        return estimate_spec(spec_of(**sections), tmp_path, _A100, NOW)

    with pytest.raises(NothingFitsError):
        check(answer(where={"gpus": ["H200"]}), Limits())
    with pytest.raises(OverBudgetError):
        check(answer(goal={"budget": 0.01}), Limits())
    with pytest.raises(OverBudgetError):
        check(answer(), Limits(cost_usd=0.01))
    with pytest.raises(PolicyError):
        check(answer(goal={"within": "1m"}), Limits())
    with pytest.raises(PolicyError):
        check(answer(), Limits(wall_clock_h=0.01))
    check(answer(goal={"within": "48h", "budget": 100}), Limits(cost_usd=100, wall_clock_h=48))


def test_unknown_amount_of_data_is_an_error_not_a_guess() -> None:
    with pytest.raises(SpecError, match=r"data\.samples"):
        question_of(data={"samples": None})


def test_unknown_lengths_are_an_upper_bound_and_said() -> None:
    question = question_of(data={"tokens_per_sample": None}, train={"packing": False})
    assert question.job.row_tokens == 2048
    assert [code for code, _ in question.job.warnings] == ["tokens_per_sample_unknown"]


@pytest.mark.parametrize(
    ("train", "data", "lost"),
    [
        ({}, {"tokens_per_sample": 9000}, "about 56% of the tokens lie beyond train.sequence_length (4,096)"),
        ({"packing": True, "attention": "flash"}, {"tokens_per_sample": 9000}, "about 56%"),
        ({"packing": True}, {"tokens_per_sample": 9000}, None),
        ({}, {"tokens_per_sample": 500}, None),
        ({}, {"tokens_per_sample": 4000, "max_tokens_per_sample": 4096}, None),
    ],
)
def test_what_is_cut_off_is_said(train: dict[str, object], data: dict[str, object], lost: str | None) -> None:
    job = question_of(data=data, train={"sequence_length": 4096, "packing": False, **train}).job
    told = dict(job.warnings).get("tokens_cut")
    assert told is None if lost is None else lost in str(told)


def test_rows_filled_to_the_end_hold_every_token() -> None:
    data, train = {"samples": 1000, "tokens_per_sample": 9000}, {"sequence_length": 4096, "packing": True}
    assert question_of(data=data, train=train).job.tokens_total == pytest.approx(9e6, rel=0.01)
    assert question_of(data=data, train={**train, "attention": "flash"}).job.tokens_total < 4.1e6


@pytest.mark.parametrize(("packing", "rows"), [(True, 2), (False, 40)])
def test_data_smaller_than_a_batch_counts_once_in_each_pass(packing: bool, rows: int) -> None:
    data = {"samples": 40, "tokens_per_sample": 100, "max_tokens_per_sample": 100}
    question = question_of(data=data, train={"epochs": 3, "global_batch": 128, "packing": packing})
    job = question.job
    assert job.steps == 3
    assert job.tokens_total == pytest.approx(3 * rows * (2048 if packing else 100))
    assert f"makes {rows} rows" in dict(job.warnings)["data_below_batch"]


def test_the_last_step_of_a_pass_has_what_is_left() -> None:
    data = {"samples": 130, "tokens_per_sample": 100, "max_tokens_per_sample": 100}

    def job(**train: object) -> Job:
        return question_of(data=data, train={"global_batch": 128, "packing": False, **train}).job

    assert (job(epochs=2).steps, job(epochs=2).full_steps) == (4, 260 / 128)
    assert (job(epochs=0.5).steps, job(epochs=0.5).full_steps) == (1, 1.0)
    assert (job(steps=5).steps, job(steps=5).full_steps) == (5, 260 / 128 + 1)
    assert job(epochs=2).tokens_total == pytest.approx(26_000)
    assert "data_below_batch" not in dict(job().warnings)


def test_global_batch_must_divide() -> None:
    estimate = build_estimate(question_of(), snapshot_of(offer_of(count=3)))
    assert "does not divide" in estimate.rejected[0].reason


def test_the_limit_cuts_rows_but_not_counts() -> None:
    offers = snapshot_of(*(offer_of(price=1 + n / 10, region=f"r{n}") for n in range(30)))
    estimate = build_estimate(question_of(), offers, limit=5)
    assert len(estimate.candidates) == 5 and estimate.candidates_total == 30
    assert [c.rank for c in estimate.candidates] == [1, 2, 3, 4, 5]


def test_finish_times_follow_the_clock() -> None:
    question = question_of()
    later = question._replace(goal=question.goal._replace(now=NOW.replace(year=2027)))
    assert (
        build_estimate(question, _A100).candidates[0].finish_at
        < build_estimate(later, _A100).candidates[0].finish_at
    )


def test_host_memory_that_is_too_small_is_flagged() -> None:
    assert "host_ram_short" in best_of(snapshot_of(offer_of(ram_gib=2.0))).offer.flags
    assert math.isclose(best_of().cost_usd.p50, best_of(snapshot_of(offer_of(ram_gib=2.0))).cost_usd.p50)


@pytest.mark.parametrize(
    ("train", "nodes", "proposed"),
    [
        ({"global_batch": 7, "micro_batch": 2}, 1, ["micro_batch: 1", "global_batch: 6", "global_batch: 8"]),
        ({"global_batch": 64}, 9, ["global_batch: 63", "global_batch: 72", "where.nodes: 8"]),
        ({"global_batch": 5, "micro_batch": 2, "steps": 7}, 1, ["micro_batch: 1", "global_batch: 4"]),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_the_reason_and_the_nearest_that_can_are_proposed(
    train: dict[str, int], nodes: int, proposed: list[str]
) -> None:
    question = question_of(Overrides(nodes=nodes), train=train)
    priced = [offer_of("A100-80GB", gpus, 2.0 * gpus) for gpus in (1, 2, 8)]
    snapshot = snapshot_of(*priced, offer_of(price=None), offer_of(price=None))
    estimate = build_estimate(question, snapshot)
    counts = {row.reason_code: 0 for row in estimate.rejected}
    for row in estimate.rejected:
        counts[row.reason_code] += row.count
    assert counts == {"indivisible": 3, "no_price": 2}
    said = explain_nothing(estimate)
    assert "none of 5 offers" in said and f"batch of {train['global_batch']} does not divide" in said
    assert said.endswith("(3)")
    texts = [fit.text() for fit in nearest_fits(question, snapshot)]
    assert len(texts) == len(set(texts))
    for text in proposed:
        assert any(text in found for found in texts), texts
    assert not any("micro_batch" in text and "qlora" in text for text in texts)


@pytest.mark.parametrize(("train", "steps"), [({"epochs": 2}, 64), ({"steps": 40}, 40)])
def test_another_batch_makes_as_many_passes_unless_the_steps_are_stated(
    train: dict[str, int], steps: int
) -> None:
    job = question_of(data={"samples": 1000}, train={"packing": False, "global_batch": 64, **train}).job
    assert (job.rebatched(32).steps, job.rebatched(32).global_batch) == (steps, 32)


def test_more_machines_are_proposed_as_far_as_they_are_needed() -> None:
    full = question_of(method={"kind": "full"}, model="meta-llama/Llama-3.1-70B", train={"global_batch": 64})
    nearest = nearest_fits(full, snapshot_of(offer_of("A100-80GB", 8, 16.0)))
    assert [fit.changes for fit in nearest if "where.nodes" in fit.changes] == [{"where.nodes": "1..2"}]


def test_of_offers_that_are_all_too_late_the_earliest_comes_first_and_of_equally_late_ones_the_cheapest() -> (
    None
):
    """Spot, which may be done very late, has a longer tail to both sides: that is no reason to take it."""
    question = question_of(goal={"objective": "cheapest_by_deadline", "within": "10h"})
    made = build_estimate(
        question, snapshot_of(*(offer_of(price=price) for price in (1.0, 2.0, 3.0, 4.0)))
    ).priced

    def finishing(item: Priced, *hours: float) -> Priced:
        line = item.solved.line._replace(finish_h=Quantiles(*hours))
        return item._replace(solved=item.solved._replace(line=line))

    hours = ((12.0, 206.0, 900.0), (14.0, 19.0, 28.0), (14.0, 18.9, 28.5), (8.0, 9.0, 12.0))
    late, cheap, dear, likely = map(finishing, made, *zip(*hours, strict=True))
    assert ranked((dear, late, cheap, likely), question.goal) == [likely, cheap, dear, late]


@pytest.mark.parametrize("objective", ["cheapest", "fastest", "best_value", "cheapest_by_deadline"])
def test_machines_that_state_too_little_memory_come_after_those_that_do_not(objective: str) -> None:
    short = offer_of("H100", 1, 0.1, ram_gib=16.0)
    unstated = offer_of("A100-80GB", 1, 2.0, ram_gib=None)
    question = question_of(goal={"objective": objective, "within": "100h"})
    first, second = build_estimate(question, snapshot_of(short, unstated)).candidates
    assert (first.offer.gpu, second.offer.gpu) == ("A100-80GB", "H100")
    assert ("host_ram_short" in first.offer.flags, "host_ram_short" in second.offer.flags) == (False, True)


def test_a_budget_miss_hides_neither_a_late_finish_nor_what_the_budget_pays_for(tmp_path: Path) -> None:
    offers = snapshot_of(offer_of("A100-80GB", 1, 2.0), offer_of("H100", 8, 90.0))

    def missed(kind: type[TuneplanError], limits: Limits | None = None, **goal: object) -> str:
        with pytest.raises(kind) as caught:
            check(estimate_spec(spec_of(goal=goal), tmp_path, offers, NOW), limits or Limits())
        return f"{caught.value} | {caught.value.hint}"

    both = missed(OverBudgetError, objective="cheapest_by_deadline", within="2m", budget="5usd")
    assert "over $5.00" in both and "no candidate is likely to finish by" in both
    fast = missed(OverBudgetError, objective="fastest", budget="5usd")
    assert "fastest_within_budget" in fast and "likely" not in fast
    assert "nothing costs less" in missed(OverBudgetError, objective="cheapest", budget="0.01usd")
    limited = Limits(cost_usd=0.01, wall_clock_h=0.01)
    assert "over 36 s" in missed(OverBudgetError, limited, objective="cheapest")
    past = missed(PolicyError, objective="cheapest", deadline="2026-11-01T00:00:00Z")
    assert (
        past.startswith("the deadline 2026-11-01 00:00 UTC has passed |") and "a later goal.deadline" in past
    )
    late = missed(PolicyError, objective="cheapest", within="15m")
    assert "the best candidate is not likely" in late and "plan deadline" in late


def test_an_old_price_is_warned_about_and_no_offer_where_that_is_asked() -> None:
    offers = snapshot_of(
        offer_of(as_of_at="2026-11-21T00:00:00Z"), offer_of(price=1.0, as_of_at="2026-10-23")
    )
    question = question_of()
    assert dict(build_estimate(question, offers).warnings)["old_price"].startswith(
        "the best candidate's price is 30 days old"
    )
    strict = build_estimate(question._replace(price_limit=PriceLimit(strict=True)), offers)
    assert [candidate.offer.as_of_at for candidate in strict.candidates] == ["2026-11-21T00:00:00Z"]
    assert "old_price" not in dict(strict.warnings)
    assert [(row.reason_code, row.count) for row in strict.rejected] == [("stale_price", 1)]


def test_held_out_prompts_are_answered_by_both_models() -> None:
    """As many at once as in a step of the training."""
    data = {"tokens_per_sample": 100, "format": "prompt", "eval_samples": 640}
    train = {"packing": False, "steps": 100, "global_batch": 64}
    question = question_of(task="grpo", data=data, train=train)
    solved = build_estimate(question, _A100).priced[0].solved
    assert question.job.eval_rows == 640
    sampling_s = solved.fit.step.terms_s["generation"]
    assert solved.around.evaluate_s.p50 == pytest.approx(2 * 10 * sampling_s)


def test_all_answers_of_a_step_are_held_while_they_are_sampled() -> None:
    """Whatever the micro-batch: the search's memory is that of the whole set-up."""
    data = {"tokens_per_sample": 700, "max_tokens_per_sample": 1024, "format": "prompt"}
    train = {"packing": False, "steps": 100, "global_batch": 128, "micro_batch": 2}
    fit = build_estimate(question_of(task="grpo", data=data, train=train), _A100).priced[0].solved.fit
    assert fit.setup.grad_accum == 64
    assert (
        fit.memory.allocated_bytes
        == estimate_memory(fit.setup, Cluster(gpu_facts("A100-80GB"))).allocated_bytes
    )
    assert fit.memory.components_bytes["kv_cache"] > 128 * 1024 * 128 * 1024


@pytest.mark.parametrize(("loss", "least"), [("auto", 2), ("apo_zero_unpaired", 1)])
def test_kto_has_rows_to_compare_in_every_micro_batch(loss: str, least: int) -> None:
    """However long they are, and on as many GPUs as leave it two."""
    data = {
        "tokens_per_sample": 20_000,
        "max_tokens_per_sample": 33_000,
        "format": "unpaired",
        "samples": 1000,
    }
    train = {"packing": False, "sequence_length": 33_000, "global_batch": 8}
    asked = {"task": "kto", "data": data, "train": train, "preference": {"loss": loss}}
    offers = snapshot_of(*(offer_of("H200", count) for count in (1, 4, 8)))
    estimate = build_estimate(question_of(**asked), offers)
    chosen = {priced.offer.gpus_per_node: priced.solved.fit.setup.micro_batch for priced in estimate.priced}
    assert min(chosen.values()) == least
    assert set(chosen) == ({1, 4} if least == 2 else {1, 4, 8})
    if least == 2:
        assert any("in micro-batches of 2 or more" in row.reason for row in estimate.rejected)


def test_what_changes_nothing_is_said() -> None:
    assert "without_effect" in dict(question_of(train={"fused_loss": True}).job.warnings)
    assert "without_effect" not in dict(question_of().job.warnings)


def test_what_full_training_in_bf16_rounds_is_said_for_the_way_it_is_spread() -> None:
    def said(count: int, **sections: object) -> str:
        answer = build_estimate(question_of(**sections), snapshot_of(offer_of("H100", count, 3.0 * count)))
        assert answer.candidates
        return dict(answer.warnings).get("numerics", "")

    full = {"method": {"kind": "full"}, "train": {"micro_batch": 1}}
    assert said(1, **full).startswith("best candidate: weights and optimizer states are bf16")
    assert said(2, **full).startswith("best candidate: weights and optimizer states are fp32")
    assert not said(1, method={"kind": "lora"})


def test_a_model_packed_in_four_bits_is_a_four_bit_base_whatever_the_method_is_called() -> None:
    packed, t4 = "unsloth/Meta-Llama-3.1-8B-bnb-4bit", snapshot_of(offer_of("T4", 1, 0.4))
    train = {"precision": "fp16", "packing": False, "global_batch": 4}
    lora, qlora = (
        question_of(model={"id": packed}, method={"kind": kind}, train=train) for kind in ("lora", "qlora")
    )
    best = build_estimate(lora, t4).recommended
    assert best is not None and best == build_estimate(qlora, t4).recommended
    assert "a 4-bit base" in dict(lora.job.warnings)["packed_4bit"]
    assert "packed_4bit" not in dict(qlora.job.warnings)


def test_files_packed_in_four_bits_are_downloaded_and_kept_as_what_they_are() -> None:
    """unsloth/llama-3-8b-bnb-4bit is a download of 5.70 GB; QLoRA on the model itself loads 16 bits and rounds them."""
    packed, rounded = (
        question_of(model={"id": model}, method={"kind": "qlora"})
        for model in ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "meta-llama/Llama-3.1-8B")
    )
    assert packed.stored_bytes == pytest.approx(5.70e9, rel=0.01)
    assert rounded.stored_bytes == 2 * rounded.counts.total
    less_gib = (rounded.stored_bytes - packed.stored_bytes) / 2**30
    of_packed, of_rounded = (build_estimate(one, _A100).priced[0] for one in (packed, rounded))
    assert (of_rounded.solved.disk_bytes - of_packed.solved.disk_bytes) / 2**30 == pytest.approx(less_gib)
    starts = [one.solved.around.start_parts_s["model"].p50 for one in (of_packed, of_rounded)]
    assert starts[0] < 0.4 * starts[1]


def test_a_model_here_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model_config("meta-llama/Llama-3.2-1B")))
    question = question_of(model={"id": str(tmp_path)})
    assert question.stored_bytes == 2 * question.counts.total
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    assert question_of(model={"id": str(tmp_path)}).stored_bytes == 1000


def test_a_family_whose_experts_are_all_computed_is_estimated_so_and_said_so() -> None:
    """transformers multiplies each token of Llama 4 with every expert; other families' experts see theirs alone."""
    scout, mixtral = (
        question_of(model={"id": name})
        for name in ("meta-llama/Llama-4-Scout-17B-16E", "mistralai/Mixtral-8x7B-v0.1")
    )
    told = dict(scout.job.warnings)["all_experts"]
    assert "all 16 experts" in told and "6.3 times" in told
    assert scout.flops_total > 4 * scout.job.tokens_total * scout.counts.total * 0.9 > 4 * mixtral.flops_total
    assert scout.counts.active < 0.2 * scout.counts.total
    assert "all_experts" not in dict(mixtral.job.warnings)
    assert mixtral.flops_total < 6 * mixtral.job.tokens_total * mixtral.counts.active


def test_experts_are_left_alone_or_refused_by_name() -> None:
    mixtral = {"model": {"id": "mistralai/Mixtral-8x7B-v0.1"}}
    question = question_of(method={"kind": "lora", "targets": "all-linear"}, **mixtral)
    assert "stay as they are" in dict(question.job.warnings)["experts_left"]
    attention = question_of(method={"kind": "lora", "targets": "attention"}, **mixtral)
    assert question.trainable == attention.trainable > 0
    assert "experts_left" not in dict(attention.job.warnings)
    assert "experts_left" not in dict(question_of(method={"kind": "full"}, **mixtral).job.warnings)
    with pytest.raises(SpecError) as caught:
        question_of(method={"kind": "lora", "targets": ["q_proj", "w1", "w3"]}, **mixtral)
    assert caught.value.findings[0].path == "method.targets" and "w1, w3" in str(caught.value)


def test_what_is_proposed_is_estimated_as_the_spec_that_it_makes() -> None:
    large = {"model": {"id": "meta-llama/Llama-3.1-70B"}}
    nearest = nearest_fits(question_of(method={"kind": "lora"}, **large), _A100)
    proposed = next(fit for fit in nearest if fit.changes == {"method.kind": "qlora"})
    assert proposed.cost_usd == best_of(method={"kind": "qlora"}, **large).cost_usd


def test_rows_of_grpo_are_prompts_with_their_answers() -> None:
    """Answers are sampled and learned from: they take memory and time as any token does, and no prompt is cut."""
    asked = {"task": "grpo", "train": {"packing": False, "steps": 100, "sequence_length": 256}}
    short, long = (
        question_of(
            data={"tokens_per_sample": 100, "max_tokens_per_sample": 300, "format": "prompt"},
            rollout={"completion_tokens": tokens},
            **asked,
        ).job
        for tokens in (128, 1024)
    )
    assert (short.sequence_tokens, long.sequence_tokens) == (428, 1324)
    assert long.row_tokens == pytest.approx(short.row_tokens + 896)
    assert short.data_tokens == long.data_tokens  # answers are not read from the data
    limit = next(one for one in long.assumptions if one.name == "tokens per answer")
    assert limit.value == 1024
    unknown = question_of(
        data={"samples": 10, "tokens_per_sample": None, "format": "prompt"},
        rollout={"completion_tokens": 512},
        **asked,
    )
    assert unknown.job.sequence_tokens == 513  # no room is left for a prompt of unknown length
    sections = {"data": {"tokens_per_sample": 100, "format": "prompt"}, **asked}
    costs = [cost_usd(rollout={"completion_tokens": tokens}, **sections) for tokens in (128, 1024)]
    assert costs[1] > 4 * costs[0]
    memory = [fixed_memory_gib(rollout={"completion_tokens": tokens}, **sections) for tokens in (128, 1024)]
    assert memory[1] > memory[0]


def test_the_stated_longest_row_decides_memory() -> None:
    """Even where few rows are assumed to come near it; a shorter sequence length cuts it."""
    data = {"tokens_per_sample": 100, "max_tokens_per_sample": 900}
    for length, longest in ((2048, 900), (512, 512)):
        train = {"packing": False, "sequence_length": length}
        assert question_of(data=data, train=train).job.sequence_tokens == longest


def test_dropout_of_an_adapters_input_is_estimated_where_a_kind_has_it():
    arch = load_architecture("llama-3.1-8b")
    lora, loha, usual = (
        adapter_of(spec_of(method=method), arch)
        for method in ({"kind": "lora", "dropout": 0.1}, {"kind": "loha", "dropout": 0.1}, {"kind": "lora"})
    )
    assert [adapter.dropout for adapter in (lora, loha, usual)] == [True, False, False]


def test_of_sequence_lengths_that_would_fit_the_longest_is_told() -> None:
    longest = {"sequence_length": 4_000_000, "packing": False}
    question = question_of(train=longest, data={"tokens_per_sample": 3e6})
    texts = [fit.text() for fit in nearest_fits(question, snapshot_of(offer_of("H100")))]
    lengths = [int(text.rpartition(" ")[2]) for text in texts if text.startswith("train.sequence_length")]
    assert len(lengths) == 1
