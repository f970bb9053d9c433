"""`train.offload`: what it makes fit, what the host needs for it, where it makes no sense, and what is launched."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from jobs.spec import JobSpec
from planner.candidates import HOST_RAM_SHORT
from planner.errors import SpecError
from planner.estimate import build_estimate
from planner.explain import explain
from planner.job_document import job_document
from planner.memory import MemoryEstimate, estimate_memory
from planner.relax import nearest_fits
from planner.setup import Parallelism, TrainingSetup
from planner.specfile import load_spec
from planner.support import unsupported, unsupported_spread
from providers.errors import UsageError
from providers.offers import Offer
from tests.planner.factories import offer_of, question_of, snapshot_of, spec_of
from tests.planner.setups import cluster

FULL: dict[str, Any] = {"model": "llama-2-7b", "method": "full"}
ON_HOST = FULL | {"train": {"offload": "parameters"}}
GIB = 2.0**30


def small(ram_gib: float | None = 512.0, count: int = 1) -> Offer:
    return offer_of("A10", count, 0.8, ram_gib=ram_gib)


def test_a_full_fine_tuning_of_7b_fits_24_gb_with_its_state_on_the_host() -> None:
    offers = snapshot_of(small())
    assert build_estimate(question_of(**FULL), offers).recommended is None
    best = build_estimate(question_of(**ON_HOST), offers).recommended
    assert best is not None
    assert (best.verdict, best.parallelism.kind, best.processes) == ("fits", "fsdp", 1)
    assert best.memory.components_gib["weights"] == best.memory.components_gib["optimizer"] == 0.0
    large = build_estimate(question_of(**FULL), snapshot_of(offer_of("H200", 1, 4.0))).recommended
    assert large is not None
    assert best.step_time_s.p50 > 2 * large.step_time_s.p50


def test_a_host_with_too_little_memory_is_told_and_one_that_says_nothing_is_not() -> None:
    for ram_gib, short in ((128.0, True), (None, False), (512.0, False)):
        best = build_estimate(question_of(**ON_HOST), snapshot_of(small(ram_gib))).recommended
        assert best is not None
        assert (HOST_RAM_SHORT in best.offer.flags) == short
        assert best.host_ram_gib > 16 * 6.74e9 / GIB


def memory(base: TrainingSetup, gpus: int = 1) -> MemoryEstimate:
    spread = base._replace(parallelism=Parallelism("fsdp", data=gpus))
    return estimate_memory(spread, cluster("A10", gpus))


def test_what_is_on_the_host_is_shared_by_its_gpus_and_pinned_in_powers_of_two() -> None:
    base = question_of(**ON_HOST).base
    one, four = (memory(base, gpus).host_parts_bytes for gpus in (1, 4))
    parameters = 6_738_415_616
    for parts in (one, four):
        state = (parts["weights"], parts["gradients"], parts["optimizer"])
        assert state == pytest.approx((4.0 * parameters, 4.0 * parameters, 8.0 * parameters))
        # 4096 x 4096 and 32000 x 4096 are nearly powers of two, 4096 x 11008 becomes 4096 x 16384
        mlp = 3 * 32 * 4096 * (16384 - 11008) + 2 * 4096 * (32768 - 32000)
        assert parts["rounding"] == pytest.approx(2 * 4.0 * mlp, rel=0.01)
    # what is on its way, and a layer gathered: less of each on more GPUs
    assert memory(base, 4).components_bytes["comm_buffers"] < memory(base).components_bytes["comm_buffers"]


def test_gradients_do_not_wait_on_the_gpu() -> None:
    """The worker reduces each micro-batch's; accelerate would else keep them whole until the last."""
    base = question_of(**ON_HOST).base
    assert base.reduces_each_micro_batch
    kept = memory(base._replace(grad_accum=8, reduces_each_micro_batch=False))
    assert kept.allocated_bytes - memory(base._replace(grad_accum=8)).allocated_bytes > 2 * 6e9


def test_a_reference_model_is_on_the_host_too() -> None:
    question = question_of(**ON_HOST | {"task": "dpo", "train": {"offload": "parameters", "packing": False}})
    found = memory(question.base)
    assert found.components_bytes["reference_models"] == 0.0
    assert found.host_parts_bytes["reference models"] == pytest.approx(2.0 * 6_738_415_616)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_every_total_is_the_sum_of_its_terms(kind: str) -> None:
    sections = ON_HOST | {"method": kind}
    estimate = build_estimate(question_of(**sections), snapshot_of(small(), small(count=4)))
    for candidate in estimate.candidates:
        parts = {part.key: part for part in explain(estimate, candidate.candidate_id).sections}
        for part in parts.values():
            if part.total is not None:
                assert math.fsum(term.value or 0.0 for term in part.terms) == pytest.approx(part.total.value)  # type: ignore[misc]
        assert {term.name for term in parts["host_memory"].terms} >= {"weights", "optimizer", "rounding"}
        assert parts["host_memory"].notes[0].value == 512.0
        step = {term.name: term for term in parts["step"].terms}
        assert step["offload"].value > 0  # type: ignore[operator]
        assert (
            step["offload"].inputs["on the host"] == step["optimizer"].inputs["on the host"] == "parameters"
        )


def test_where_nothing_fits_the_host_is_the_last_proposal_and_only_if_it_has_room() -> None:
    where = FULL | {"where": {"nodes": 1}}
    texts = [fit.text() for fit in nearest_fits(question_of(**where), snapshot_of(small()))]
    assert texts[-1] == "train.offload: parameters"
    for sections, ram_gib in (
        (where, 128.0),
        (where | {"train": {"optimizer": "lion"}}, 512.0),
        (ON_HOST, 128.0),
    ):
        found = nearest_fits(question_of(**sections), snapshot_of(small(ram_gib)))
        assert not any("offload" in fit.text() for fit in found)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("train: {offload: parameters}\ntask: grpo", [(3, "train.offload", "for each token")]),
        (
            "train:\n  offload: parameters\nquantization: 4bit",
            [(4, "train.offload", "a 4bit base stays on the GPU")],
        ),
        (
            "train:\n  offload: parameters\n  optimizer: paged_adamw_8bit",
            [(5, "train.optimizer", "steps on a GPU")],
        ),
        ("train: {offload: optimizer}", [(3, "train.offload", "none")]),
        ("train: {offload: parameters, optimizer: sgd}", []),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(
    tmp_path: Path, lines: str, said: list[tuple[int, str, str]]
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"name: x\nmodel: a/b\n{lines}\n")
    found: list[Any] = []
    try:
        load_spec(path)
    except SpecError as error:
        found = list(error.findings)
    assert [(one.line, one.path) for one in found] == [(line, key) for line, key, _ in said]
    for finding, (_, _, words) in zip(found, said, strict=True):
        assert words in f"{finding.message} {finding.hint}"


def test_what_the_worker_cannot_do_yet_is_told_by_its_key() -> None:
    def refused(**sections: Any) -> list[str | None]:
        spec = spec_of(**ON_HOST | sections)
        return [
            one.path for one in (*unsupported(spec, for_launch=True), *unsupported_spread(spec, "fsdp", 1))
        ]

    assert refused() == refused(method="lora") == []
    assert refused(method="ia3") == ["method.kind"]
    assert refused(train={"offload": "parameters", "precision": "fp16"}) == ["train.precision"]
    assert refused(train={"offload": "parameters", "optimizer": "adafactor"}) == ["train.optimizer"]


def test_the_worker_is_told_on_a_gpu_and_not_where_there_is_none() -> None:
    spec = spec_of(**ON_HOST | {"data": {"train": "train.jsonl"}})
    told = []
    for offer in (small(), offer_of("CPU", 1, 0.1, ram_gib=4096.0)):
        best = build_estimate(question_of(**ON_HOST), snapshot_of(offer)).recommended
        assert best is not None
        told.append(job_document(spec, Path(), best, "run", "file:///x").train)
    assert [(train.sharding, train.offload) for train in told] == [("fsdp", "parameters"), ("none", "none")]
    assert [train.is_spread(1) for train in told] == [True, False]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('"sharding":"none"', "needs train.sharding fsdp"),
        ('"precision":"fp16"', "goes with train.precision"),
    ],
)
def test_a_document_that_no_worker_could_run_is_refused(change: str, said: str) -> None:
    spec = spec_of(**ON_HOST | {"data": {"train": "train.jsonl"}})
    best = build_estimate(question_of(**ON_HOST), snapshot_of(small())).recommended
    assert best is not None
    text = job_document(spec, Path(), best, "run", "file:///x").to_json().replace(" ", "")
    key = change.partition(":")[0]
    before = next(
        part for part in text.replace("}", ",").split(",") if part.strip().endswith(key) or key in part
    )
    with pytest.raises(UsageError, match=said):
        JobSpec.from_json(text.replace(before[before.index(key) :], change))
