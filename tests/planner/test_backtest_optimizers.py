"""Optimizers and partial fine-tuning: what they keep, against the papers' formulas and against measured runs."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from planner.architecture import load_architecture, parameter_counts
from planner.backtest import estimate_run, predict, read_run
from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.memory.optimizers import state_width
from planner.setup import Cluster, TrainingSetup

FURTHER = Path(__file__).parents[2] / "benchmarks" / "data" / "further_runs.csv"
ROW = {
    "id": "x-1", "model": "meta-llama/Llama-3.1-8B", "method": "full", "precision": "bf16-true", "gpu": "A100-80GB",
    "num_gpus": "1", "seq_len": "1024", "micro_batch": "1", "framework": "HF Trainer", "date": "2025-01-01",
    "grad_checkpointing": "true",
}  # fmt: skip
SEVEN = load_architecture("llama-2-7b")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("decoupled_lionw", "lion"), ("lion_8bit", "lion_8bit"),
        ("adamw/lion (decoupled)", "adamw"), ("SGD momentum", "sgd_momentum"),
        ("sgd", "sgd"), ("Muon + AdamW", "muon"),
        ("ademamix", "ademamix"), ("AdEMAMix 8-bit", "ademamix_8bit"), ("Adan", "adan"),
        ("prodigy", "prodigy"), ("CAME", "came"),
        ("RMSprop", "rmsprop"), ("adamw_torch_4bit", "adamw_4bit"), ("adamw_fp8", "adamw_8bit"),
        ("galore_adamw_8bit", "galore_8bit"), ("apollo_adamw", "apollo"), ("paged_lion_32bit", "paged_adamw_32bit"),
        ("adalomo", "adafactor"), ("8bit adafactor", "adafactor"),
        ("adamw_torch_fused", "adamw_fused"), ("AdamW (bf16 states)", "adamw_bf16"),
    ],
)  # fmt: skip
def test_spellings_of_optimizers(text, seen):
    assert read_run(ROW | {"optimizer": text}).setup.optimizer == seen


def test_an_optimizer_that_is_told_as_the_method():
    setup = read_run(ROW | {"method": "GaLore (rank 1024)"}).setup
    assert (setup.adapter, setup.optimizer, setup.optimizer_rank) == (None, "galore", 1024)
    assert read_run(ROW | {"method": "APOLLO-Mini"}).setup.optimizer_rank == 1
    assert read_run(ROW | {"method": "LOMO"}).setup.steps_in_backward
    assert read_run(ROW | {"optimizer": "galore_adamw_layerwise"}).setup.steps_in_backward


def test_galore_keeps_what_its_paper_tells():
    """Weights and states of its 1B model at rank 512: 4.38G instead of 7.80G (arXiv 2403.03507, table 2)."""
    one = replace(SEVEN, hidden=2048, intermediate=5461, layers=24, heads=32, kv_heads=32, head_dim=64)
    setup = TrainingSetup(one, precision="bf16", optimizer="galore", optimizer_rank=512)
    billions = parameter_counts(one).total / 2**30
    assert billions * (2 + state_width(setup, 2.0)) == pytest.approx(4.38, rel=0.04)
    assert billions * (2 + state_width(setup._replace(optimizer="adamw"), 2.0)) == pytest.approx(
        7.80, rel=0.05
    )
    apollo = state_width(setup._replace(optimizer="apollo"), 2.0)
    assert (
        state_width(setup._replace(optimizer="apollo", optimizer_rank=1), 2.0)
        < apollo
        < state_width(setup, 2.0)
    )


def test_badam_needs_two_bytes_a_weight_and_sixteen_of_its_block():
    """2M + 16M/D bytes (arXiv 2404.02827, table 1)."""
    run = estimate_run(ROW | {"method": "BAdam"})
    parts, counts = run.memory.components_bytes, parameter_counts(run.run.setup.arch)
    assert parts["weights"] == pytest.approx(2 * counts.total)
    assert parts["optimizer"] == pytest.approx(12 * counts.linear / 32, rel=1e-3)


def test_states_are_as_many_as_the_optimizer_has():
    setup = TrainingSetup(SEVEN, precision="bf16", gradient_checkpointing=True)
    held = {
        name: estimate_memory(
            setup._replace(optimizer=name), Cluster(gpu_facts("A100-80GB"))
        ).components_bytes["optimizer"]
        / parameter_counts(SEVEN).total
        for name in (
            "sgd",
            "sgd_momentum",
            "lion",
            "lion_8bit",
            "adamw",
            "adamw_4bit",
            "ademamix",
            "adan",
            "muon",
        )
    }
    assert held == pytest.approx(
        {"sgd": 0, "sgd_momentum": 2, "lion": 2, "lion_8bit": 1.02, "adamw": 4, "adamw_4bit": 1.06, "ademamix": 6,
         "adan": 8,
         "muon": 2 * (2 - 6476005376 / 6738415616)},
        rel=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("freeze", 2 / 32), ("freeze (last 4 layers)", 4 / 32),
        ("Spectrum 25%", 0.25), ("spectrum-50", 0.5), ("BAdam", 1 / 32),
        ("LISA", 2 / 32), ("lisa (4 activated layers)", 4 / 32), ("full", 1.0), ("lora", 1.0),
    ],
)  # fmt: skip
def test_share_of_the_weights_that_is_trained(method, share):
    setup = read_run(ROW | {"method": method}).setup
    counts = parameter_counts(setup.arch)
    ends = counts.embedding + counts.head if ("pectrum" in method or "lisa" in method.lower()) else 0
    blocks = 1.0 if share == 1.0 else (share * counts.linear + ends) / counts.total
    assert setup.trained_share == pytest.approx(blocks, rel=1e-3)
    told = read_run(ROW | {"method": method, "trainable_params_m": "803"}).setup.trained_share
    assert told == pytest.approx(0.1 if share < 1 else 1.0, rel=1e-3)


def test_what_is_frozen_has_no_gradients_and_is_faster():
    part, full = (estimate_run(ROW | {"method": name}) for name in ("freeze", "full"))
    for name in ("gradients", "optimizer"):
        assert part.memory.components_bytes[name] < 0.1 * full.memory.components_bytes[name]
    assert part.memory.components_bytes["weights"] == full.memory.components_bytes["weights"]
    assert 1.3 < part.step.tokens_per_s_total.p50 / full.step.tokens_per_s_total.p50 < 2
    assert part.step.spread > full.step.spread


def test_measured_runs_with_less_to_keep():
    """ms-swift's table: full 7.7B with GaLore and LISA on one A100, of rows of many lengths."""
    with FURTHER.open(encoding="utf-8", newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    for number in ("090", "091", "092"):
        row = rows[f"ms-swift-benchmark-{number}"]
        answer, measured = predict(row), float(row["mem_gib_norm"])
        assert 0.8 * measured < float(answer["predicted_allocated_gib"]) < measured
        assert measured < float(answer["predicted_reserved_gib"]) < 1.3 * measured


@pytest.mark.parametrize(
    ("change", "task"),
    [
        ({"task": "IPO"}, "dpo"), ({"task": "bco"}, "kto"),
        ({"task": "reinforce++"}, "grpo"), ({"task": "ReMax"}, "grpo"),
        ({"task": "PRM"}, "ner"), ({"task": "sentence similarity"}, "embedding"), ({"method": "DPO full"}, "dpo"),
        ({"method": "ppo"}, "ppo"), ({"method": "GRPO LoRA"}, "grpo"), ({"task": "supervised fine-tuning"}, "sft"),
        ({"task": "summarization", "method": "lora"}, "sft"),
    ],
)  # fmt: skip
def test_tasks_by_other_names(change, task):
    assert read_run(ROW | change).setup.task == task


@pytest.mark.parametrize(
    ("method", "adapted", "quantization"),
    [
        ("full-param FT", False, "none"), ("all parameters", False, "none"), ("full + 8bit optimizer", False, "none"),
        ("IA³", True, "none"), ("soft prompt", True, "none"),
        ("Houlsby adapter", True, "none"), ("ReLoRA", True, "none"),
        ("MiLoRA", True, "none"), ("QLoRA int8", True, "8bit"), ("qlora", True, "4bit"), ("LoReFT", True, "none"),
    ],
)  # fmt: skip
def test_methods_by_other_names(method, adapted, quantization):
    setup = read_run(ROW | {"method": method}).setup
    assert (setup.adapter is not None, setup.quantization) == (adapted, quantization)


def test_a_full_fine_tuning_by_another_name_is_as_sure_as_by_its_own():
    widths = {
        estimate_run(ROW | {"method": name}).step.spread
        for name in ("full", "FFT", "pretraining", "fine-tuning")
    }
    assert len(widths) == 1


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("autocast", "amp_bf16"),
        ("bf16 (fp32 master weights)", "amp_bf16"),
        ("O1", "amp_fp16"),
        ("O2", "fp16"),
    ],
)
def test_precision_by_other_words(text, seen):
    assert read_run(ROW | {"precision": text, "framework": "Megatron-LM"}).setup.precision == seen


def test_moments_may_be_in_bf16_alone():
    """Megatron's precision-aware optimizer: masters and gradients stay in fp32."""
    row = {"model": "Qwen/Qwen3-14B", "method": "full", "precision": "bf16", "gpu": "H20", "gpu_mem_gb": "96",
           "num_gpus": "8", "parallelism": "ZeRO-1 TP4 PP1 DP2", "seq_len": "8192", "micro_batch": "1",
           "framework": "Megatron-SWIFT", "grad_checkpointing": "selective", "date": "2025"}  # fmt: skip
    plain, small = (
        estimate_run(row | {"optimizer": name}).memory.components_bytes["optimizer"]
        for name in ("adamw", "adamw (bf16 states)")
    )
    assert small == pytest.approx(plain * 8 / 12)
