"""The closed form against steps of litgpt's and torchtune's own code, traced once: `python -m benchmarks.stack_traces`
with litgpt 0.5.13, lightning 2.6.6, torchtune 0.6.1 and torch 2.13, on 1 December 2026.
"""

import pytest

from benchmarks.stack_cases import CASES, closed_form
from planner.backtest import read_run
from planner.memory import estimate_memory
from planner.setup import Parallelism
from tests.planner.setups import cluster, lora, setup

#: Megabytes at the peak of three blocks.
TRACED = {
    "litgpt Llama-3.1-8B full bf16 kept 4x1024 a1": 19_521.3,
    "litgpt Llama-3.1-8B full amp_bf16 recomputed 4x1024 a1": 36_202.7,
    "litgpt Llama-3.1-8B lora-qv bf16 kept 4x1024 a1": 10_791.0,
    "litgpt Llama-3.1-8B lora-qv amp_bf16 recomputed 4x1024 a1": 20_752.2,
    "litgpt Llama-3.1-8B lora-all fp32 kept 4x1024 a1": 16_767.7,
    "litgpt Llama-2-7b-hf full bf16 kept 4x1024 a1": 9_651.5,
    "litgpt Llama-2-7b-hf lora-qv bf16 recomputed 4x1024 a1": 3_395.4,
    "litgpt Llama-2-7b-hf lora-all bf16 recomputed 4x1024 a1": 3_611.1,
    "litgpt Llama-2-7b-hf lora-qv fp32 kept 4x1024 a1": 8_536.2,
    "litgpt Llama-2-7b-hf qlora-all bf16 recomputed 4x1024 a1": 2_811.2,
    "litgpt Llama-3.1-8B qlora-qv bf16 recomputed 1x1024 a1": 4_610.2,
    "litgpt pythia-410m lora-all amp_bf16 kept 4x1024 a1": 4_075.0,
    "litgpt pythia-410m full fp32 kept 4x1024 a1": 5_051.9,
    "litgpt phi-2 full bf16 kept 4x1024 a1": 6_555.6,
    "litgpt phi-2 lora-qv bf16 kept 4x1024 a1": 3_915.4,
    "litgpt falcon-7b lora-all bf16 kept 4x1024 a1": 7_243.9,
    "litgpt Gemma-2-2b lora-qv bf16 kept 4x1024 a1": 17_653.2,
    "torchtune llama3_1.llama3_1_8b full bf16 kept 4x1024 a2": 20_043.5,
    "torchtune llama3_1.lora_llama3_1_8b lora-all bf16 recomputed 4x1024 a1": 7_070.8,
    "torchtune llama2.lora_llama2_7b lora-qv bf16 kept 4x1024 a1": 4_319.0,
    "torchtune qwen2_5.lora_qwen2_5_7b_base lora-all bf16 recomputed 4x1024 a1": 8_188.9,
    "torchtune mistral.lora_mistral_7b lora-all bf16 recomputed 4x1024 a1": 3_070.0,
}
BY_LABEL = {case.label: case for case in CASES}


@pytest.mark.parametrize("label", TRACED)
def test_closed_form_equals_what_their_code_was_traced_to(label):
    closed = closed_form(BY_LABEL[label]).allocated_bytes / 1e6
    assert closed == pytest.approx(TRACED[label], rel=0.025)


def test_gradients_of_frozen_weights_that_share_a_flat_parameter_with_adapters():
    """Two real processes of litgpt's LoRA model under FSDP, a unit a block (litgpt until March 2025): each block's flat
    parameter, 199,936 values with 2,048 of them adapters', had a sharded gradient of half as many, and a frozen weight
    in it needed a gradient in the forward pass.
    """
    sharded = setup("llama-2-7b", framework="litgpt-2023", adapter=lora(fp32=False), precision="bf16")
    sharded = sharded._replace(parallelism=Parallelism("fsdp", 2), gradient_checkpointing=True)
    mixed, apart = (
        estimate_memory(one, cluster()).components_bytes
        for one in (sharded, sharded._replace(newer_fsdp=True))
    )
    blocks = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert mixed["gradients"] - apart["gradients"] > 0.9 * blocks * 2.0 / 2
    assert mixed["activations"] > apart["activations"]


def test_a_tied_head_of_litgpt_is_weights_of_its_own():
    tied = BY_LABEL["litgpt Gemma-2b lora-qv bf16 recomputed 1x1024 a1"]
    embedding = 2.0 * 256_000 * 2048
    own, shared = (
        closed_form(tied._replace(stack=name)).components_bytes["weights"] for name in ("litgpt", "hf")
    )
    assert own - shared == pytest.approx(embedding, rel=0.001)


ROW = {
    "model": "meta-llama/Llama-2-7b-hf", "method": "lora", "precision": "bf16-mixed", "gpu": "A100-80GB",
    "gpu_mem_gb": "80", "num_gpus": "2", "parallelism": "FSDP", "seq_len": "1024", "micro_batch": "1",
    "framework": "litgpt", "task": "sft",
}  # fmt: skip


def _read(**changes):
    return read_run(ROW | changes).setup


def test_mixed_precision_of_fabric_leaves_a_frozen_base_in_fp32():
    mixed, pure = _read(), _read(precision="bf16-true")
    assert (mixed.precision, mixed.frozen_fp32, mixed.adapter.fp32) == ("amp_bf16", True, True)
    assert (pure.precision, pure.frozen_fp32, pure.adapter.fp32) == ("bf16", False, False)


def test_litgpt_has_changed():
    older, now = _read(date="2024-05"), _read(date="2025-09")
    assert (older.framework, older.shards_parameters) == ("litgpt-2023", False)
    assert (now.framework, now.shards_parameters) == ("litgpt", True)
    assert not _read(method="full", date="2025-09").shards_parameters
    assert older.gradient_checkpointing and not _read(method="full", task="pretrain").gradient_checkpointing
    assert _read(model="google/gemma-2-2b").attention == "eager"


def test_a_chunk_of_a_compiled_loss_keeps_what_it_is_given():
    plain, compiled = (
        _read(framework=name, precision="bf16") for name in ("torchtune", "torchtune (compile)")
    )
    assert (plain.loss_bytes, compiled.loss_bytes) == (None, 2.25)


def test_lightnings_benchmark_holds_logits_in_bf16_through_the_step():
    run = _read(framework="lightning-thunder", method="full", precision="bf16", num_gpus="1", parallelism="")
    memory = estimate_memory(run, cluster())
    assert run.framework == "thunder"
    assert memory.peak_phase == "backward"
    assert memory.components_bytes["logits_loss"] == 2.0 * 32_000 * 1024
