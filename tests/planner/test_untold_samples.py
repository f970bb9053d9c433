"""Lengths of samples that decide a step's time: in packed rows that keep them apart, and in padded micro-batches."""

import math

import pytest

from planner.backtest import estimate_run
from planner.backtest.predict import wall_clock_h
from planner.backtest.samples import keeps_samples_apart
from planner.quantiles import Z90
from planner.throughput import estimate_step
from planner.workload import flops_per_token
from tests.planner.factories import question_of
from tests.planner.setups import cluster, setup

LONG = {
    "id": "x-1", "model": "Qwen/QwQ-32B", "method": "lora", "lora_rank": "8", "lora_targets": "all-linear",
    "precision": "bf16", "gpu": "A100-80GB", "gpu_mem_gb": "80", "num_gpus": "8", "num_nodes": "1", "task": "sft",
    "parallelism": "ZeRO-3 SP8 offload", "seq_len": "512000", "micro_batch": "1", "grad_accum": "2",
    "grad_checkpointing": "true", "flash_attn": "true", "liger_fused": "liger", "framework": "ms-swift",
    "date": "2025", "packing": "true",
}  # fmt: skip


def test_attention_takes_the_time_of_the_samples():
    row = setup(sequence_tokens=65536, attention="flash")
    where = cluster("H100", 1)
    whole, apart = (
        estimate_step(row._replace(attended_tokens=tokens), where).terms_s for tokens in (None, 1024.0)
    )
    assert apart["attention"] < 0.1 * whole["attention"]
    assert apart["matmul"] == whole["matmul"]
    longer = estimate_step(row._replace(attended_tokens=1e9), where).terms_s  # none is longer than its row
    assert longer["attention"] == whole["attention"]
    assert flops_per_token(row._replace(attended_tokens=1024.0)) < flops_per_token(row)


def test_what_we_launch_packs_samples_that_do_not_see_each_other_under_flash_attention_alone():
    """TRL's best-fit packing needs its kernel; joined text is seen whole."""
    known = {"tokens_per_sample": 500, "max_tokens_per_sample": 2000}
    flash, sdpa, unpacked = (
        question_of(data=known, train={"sequence_length": 32768, **how})
        for how in ({"attention": "flash"}, {"attention": "sdpa"}, {"attention": "flash", "packing": False})
    )
    assert 500 < flash.job.attended_tokens < 2000
    assert sdpa.job.attended_tokens is None
    assert unpacked.job.attended_tokens is None
    assert flash.flops_total / flash.job.tokens_total < 0.9 * sdpa.flops_total / sdpa.job.tokens_total


def test_half_a_million_tokens_of_samples_are_quicker_than_the_attention_of_one_row():
    """150 s a step are published of ms-swift's example, packed from samples of 16,000 tokens and less; attention over
    whole rows would take four times as long at all that eight A100 can do.
    """
    step = estimate_run(LONG).step
    assert 100 < step.step_time_s.p50 < 200
    assert step.step_time_s.p10 < 150 < step.step_time_s.p90
    whole = estimate_run(LONG | {"task": "pretrain"}).step
    assert whole.step_time_s.p50 > 5 * step.step_time_s.p50


@pytest.mark.parametrize(
    ("framework", "attention", "more", "apart"),
    [
        ("ms-swift", "flash", {}, True),
        ("ms-swift", "sdpa", {}, False),
        ("ms-swift", "flash", {"date": "2024-06"}, False),
        ("axolotl", "flash", {}, True),
        ("LLaMA-Factory", "flash", {}, False),
        ("LLaMA-Factory", "flash", {"packing": "neat"}, True),
        ("TRL SFTTrainer", "flash", {"date": "2026-01"}, True),
        ("TRL SFTTrainer", "flash", {"date": "2025-03"}, False),
        ("TRL SFTTrainer", "flash", {"date": "2026-01", "dataset": "Gutenberg English"}, False),
        ("mistral-finetune", "sdpa", {"date": "2024-05"}, True),
        ("xtuner", "flash", {}, False),
        ("ms-swift", "flash", {"packing": "false"}, False),
        ("ms-swift", "flash", {"packing": "padded to longest of batch"}, False),
    ],
)
def test_which_stacks_keep_samples_apart(framework, attention, more, apart):
    row = LONG | {"framework": framework} | more
    assert keeps_samples_apart(row, "hf", attention) == apart


def test_untold_lengths_of_samples_widen_the_interval():
    """A tenth of all lengths are below its short end, and a tenth above its long one."""
    row = LONG | {"seq_len": "32768", "parallelism": "ZeRO-3", "model": "Qwen/Qwen2.5-7B"}
    doubts = [d for d in estimate_run(row).run.doubts if "packed samples" in d.reason]
    assert len(doubts) == 1
    run = estimate_run(row).run
    longest = run.setup._replace(attended_tokens=100 * 327.68**0.9)
    factor = (
        estimate_step(longest, run.cluster).step_time_s.p50
        / estimate_step(run.setup, run.cluster).step_time_s.p50
    )
    assert math.exp(Z90 * doubts[0].log_sd) == pytest.approx(factor)
    assert 0 < doubts[0].quicker < 1
    told = estimate_run(row | {"packing": "fixed-length dummy data"}).run
    assert not [d for d in told.doubts if "packed samples" in d.reason]


NOTEBOOK = {
    "id": "x-1", "model": "meta-llama/Llama-3.1-8B", "method": "qlora", "quant_bits": "4", "lora_rank": "16",
    "lora_targets": "q,k,v,o,gate,up,down", "precision": "fp16", "gpu": "T4", "gpu_mem_gb": "16", "num_gpus": "1",
    "seq_len": "2048", "micro_batch": "2", "grad_accum": "4", "steps": "60", "framework": "unsloth", "date": "2025",
}  # fmt: skip


def test_samples_padded_to_the_longest_of_a_batch_are_not_taken_for_as_long_as_they_may_be():
    """Unsloth's notebooks took a third of what 60 steps of full rows would, some a sixth; nobody tells the lengths."""
    longest = NOTEBOOK | {"packing": "padded to longest of batch"}
    full, untold = (
        wall_clock_h(estimate.run, estimate.step)
        for estimate in (estimate_run(NOTEBOOK | {"packing": "padded"}), estimate_run(longest))
    )
    assert untold.p50 < 0.5 * full.p50
    assert untold.p90 > 0.8 * full.p50  # rows may be as long as they are allowed to be
    assert untold.p10 < 0.2 * full.p50
    assert "samples that are padded" in estimate_run(longest).step.spread_reason
    told = estimate_run(longest | {"dataset_tokens": "480000", "global_batch": "8"})
    assert told.run.setup.row_tokens == pytest.approx(1000 * 1.23, rel=0.01)
    assert "samples that are padded" not in told.step.spread_reason


def test_memory_is_of_the_longest_batch_whatever_the_samples():
    longest, padded = (
        estimate_run(NOTEBOOK | {"packing": text}).memory.allocated_bytes
        for text in ("padded to longest of batch", "padded")
    )
    assert longest == padded
