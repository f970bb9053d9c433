"""What the calibration runs cover, and how unsure a row of another stack is."""

import math
import statistics
from pathlib import Path

import pytest

from planner.backtest import estimate_run
from planner.backtest.rows import read_run
from planner.throughput.constants import COMPARED
from tests.planner.test_backtest import ROW


def test_the_groups_are_those_of_the_compared_runs(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from fit_throughput import COMPARED_TABLES, cases
    from leave_one_out import compared

    spans = compared(cases(COMPARED_TABLES))
    assert set(spans) == set(COMPARED)
    for group, (fewest, most) in COMPARED.items():
        assert spans[group] == pytest.approx((fewest, most), abs=1)


def spread(**changes):
    return estimate_run(ROW | changes).step.spread


@pytest.mark.parametrize("name", ["a-trainer", "a-trainer (PyTorch, HF models)", "our CUDA trainer"])
def test_a_stack_that_nobody_knows_may_be_half_again_as_fast_or_slow(name):
    wide = spread(framework=name)
    assert wide > 1.5
    assert wide > 1.15 * spread(framework="trl (HF Trainer)")


def test_most_intervals_of_other_combinations_are_neither_vague_nor_sure():
    chips, stacks = (
        ("H100-80GB", "H200", "RTX 4090", "L40S", "A100-40GB"),
        ("torchtune", "axolotl", "unsloth"),
    )
    wide = [spread(gpu=gpu, gpu_mem_gb="", framework=stack) ** 2 for gpu in chips for stack in stacks]
    assert 1.8 < statistics.median(wide) < 2.5
    assert max(wide) < math.exp(1.3)


def test_torchtitan_compiles_where_it_says_so():
    eager, compiled = (
        read_run(ROW | {"framework": name, "method": "full", "lora_rank": "", "lora_targets": ""}).setup
        for name in ("torchtitan", "torchtitan (compile)")
    )
    assert compiled.compiled
    assert not eager.compiled


@pytest.mark.parametrize(
    ("framework", "fp32"), [("NeMo AutoModel", False), ("fsdp_qlora train.py", False), ("trl", True)]
)
def test_some_stacks_keep_adapters_in_the_bases_type(framework, fp32):
    """NeMo's own modules; AnswerDotAI/fsdp_qlora's train.py autocasts only where its precision is named so."""
    assert read_run(ROW | {"framework": framework}).setup.adapter.fp32 is fp32


def test_a_stack_that_nobody_knows_is_doubted_once():
    """Its own doubt says it; what it runs on is compared or not as of transformers."""
    step = estimate_run(ROW | {"framework": "a-trainer", "micro_batch": "8"}).step
    assert "nothing is known of a-trainer" in step.spread_reason
    assert "no published run" not in step.spread_reason
