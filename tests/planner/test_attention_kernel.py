"""Torch's sdpa has no fused kernel for every chip and type; what it runs then writes scores out."""

import pytest

from planner.architecture import load_architecture
from planner.attention_kernel import dispatched
from planner.backtest.rows import read_run
from planner.estimate import build_estimate
from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.memory.activations import block_activations, score_activations
from planner.memory.block_form import BlockForm
from planner.throughput import estimate_step
from tests.planner.factories import offer_of, question_of, snapshot_of
from tests.planner.setups import cluster, lora, setup

LOOP = {"model": "Qwen/Qwen2.5-1.5B-Instruct", "method": "qlora", "quant_bits": "4", "lora_rank": "16",
        "lora_targets": "q_proj,v_proj", "precision": "bf16", "gpu": "RTX 4080", "gpu_mem_gb": "16", "num_gpus": "1",
        "parallelism": "single", "seq_len": "1024", "micro_batch": "1", "grad_accum": "1", "flash_attn": "sdpa",
        "grad_checkpointing": "false", "packing": "fixed-length dummy data", "date": "2026-07",
        "framework": "transformers 5 + peft (own loop)"}  # fmt: skip


def kernel_of(**changes):
    some = read_run(LOOP | changes).setup
    return some.attention, some.repeats_keys


@pytest.mark.parametrize(
    ("changes", "kernel"),
    [
        ({}, ("math", False)),  # prepared, no autocast: fp32
        ({"framework": "HF Trainer + peft"}, ("sdpa", False)),  # autocast
        ({"method": "lora", "quant_bits": ""}, ("sdpa", False)),
        ({"method": "lora", "quant_bits": "", "gpu": "T4", "precision": "fp16"}, ("math", False)),
        ({"gpu": "T4", "flash_attn": "sdpa, keys and values repeated"}, ("sdpa", True)),
        ({"packing": "padded"}, ("sdpa", True)),
        ({"date": "2025-06"}, ("sdpa", True)),
        ({"model": "meta-llama/Llama-2-7b-hf"}, ("sdpa", False)),  # as many keys as queries
        ({"framework": "Homegrown"}, ("sdpa", False)),
    ],
)
def test_rows_say_which_kernel_their_sdpa_ends_in(changes, kernel):
    assert kernel_of(**changes) == kernel


def test_a_window_is_told_by_a_mask():
    mistral = setup("mistralai/Mistral-7B-v0.1", sequence_tokens=8192)
    short = mistral._replace(sequence_tokens=2048)
    plain = [dispatched(some, gpu_facts("T4"), masked=False) for some in (mistral, short)]
    assert [(some.attention, some.repeats_keys) for some in plain] == [("sdpa", True), ("math", False)]


def test_what_the_math_kernel_keeps():
    """A softmax in fp32 for each head and key; three tensors of all heads in fp32 instead of the shared ones."""
    arch = load_architecture("Qwen/Qwen2.5-1.5B")
    plain, math = (
        block_activations(arch, lora(), BlockForm(2.0, 2.0, math_attention=flag)) for flag in (False, True)
    )
    assert math.saved - plain.saved == 3 * 4 * 1536 - 2 * (1536 + 2 * 256)
    scores = score_activations(arch, "math", 2.0, mixed=False)
    assert (scores.saved, scores.backward) == (4.0 * 12, 8.0 * 12)


def test_repeated_keys_are_kept_for_every_head():
    some = setup(gradient_checkpointing=False, micro_batch=2, adapter=lora())
    more = some._replace(repeats_keys=True)
    where = cluster("H200")
    added = estimate_memory(more, where).allocated_bytes - estimate_memory(some, where).allocated_bytes
    each = 2 * 4096 - 2 * 1024
    assert added == pytest.approx(2.0 * each * some.arch.layers * some.micro_batch * some.sequence_tokens)


def test_the_math_kernel_takes_its_time():
    where = cluster("T4")
    fused = setup("Qwen/Qwen2.5-1.5B", precision="fp16", adapter=lora(), sequence_tokens=4096)
    times = [
        estimate_step(fused._replace(attention=kind), where).step_time_s.p50 for kind in ("sdpa", "math")
    ]
    assert times[1] > 1.5 * times[0]


def test_what_is_launched_on_an_older_chip_writes_scores_out():
    """Packed rows have no mask; padded ones have, and transformers repeats keys and values for them."""
    model = {"model": "Qwen/Qwen2.5-1.5B", "train": {"precision": "fp16", "micro_batch": 2}}
    kernels = {}
    for gpu in ("T4", "A10"):
        for packing in (True, False):
            question = question_of(**{**model, "train": {**model["train"], "packing": packing}})
            (item,) = build_estimate(question, snapshot_of(offer_of(gpu)), limit=None).priced
            some = item.solved.fit.setup
            kernels[gpu, packing] = (some.attention, some.repeats_keys)
    assert kernels["T4", True] == ("math", False)
    assert kernels["A10", True] == ("sdpa", False)
    assert kernels["T4", False][0] == kernels["A10", False][0] == "sdpa"
