"""Time of attention against what its kernels are published to reach."""

import pytest

from planner.architecture import load_architecture
from planner.hardware import gpu_facts
from planner.setup import Parallelism
from planner.throughput.attention import attention_seconds
from planner.throughput.estimate import estimate_step
from planner.workload import attention_flops_per_token, scored_keys
from tests.planner.setups import cluster, setup


def tflops(gpu, length, framework="hf", **changes):
    """Of forward and backward together, as FlashAttention's benchmarks count them."""
    some = setup(attention="flash", gradient_checkpointing=False, framework=framework, **changes)
    facts = gpu_facts(gpu)
    took = attention_seconds(some, facts.attainable_flops_per_s, facts, length, length)
    return 3.5 * attention_flops_per_token(some.arch, length, causal=True) * length / took / 1e12


@pytest.mark.parametrize(
    ("length", "published"), [(512, 99), (1024, 133), (2048, 155), (4096, 173), (8192, 182), (16384, 189)]
)
def test_flash_attention_2_on_an_a100(length, published):
    """Dao 2023, figure 4: causal, heads of 128."""
    assert tflops("A100-80GB", length) == pytest.approx(published, rel=0.1)


def test_flash_attention_2_on_hopper_uses_old_instructions():
    """Up to 335 TFLOP/s on an H100, as its authors say; kernels of Megatron use the new ones."""
    assert 270 < tflops("H100", 16384) < 350
    assert tflops("H100", 16384, framework="megatron") > 1.4 * tflops("H100", 16384)


def test_softmax_costs_little_where_vector_units_are_fast():
    """An H20 has a third of its matrix rate in vectors, an RTX 4090 half, an A100 a sixteenth."""
    reached = {name: tflops(name, 16384) / (gpu_facts(name).attainable_flops_per_s / 1e12) for name in
               ("H20", "RTX4090", "A100-80GB", "H100")}  # fmt: skip
    assert min(reached["H20"], reached["RTX4090"]) > 0.8 > reached["A100-80GB"] > reached["H100"]


def test_the_first_flash_attention_was_slower():
    assert tflops("A100-80GB", 8192, framework="llm-foundry") < 0.7 * tflops("A100-80GB", 8192)


def test_long_rows_on_eight_a100():
    """InternLM/xtuner, docs: Llama-2-7B, ZeRO-3, rows of 32 768 tokens: 2234 tokens/s and GPU."""
    long = setup(
        attention="flash",
        micro_batch=1,
        sequence_tokens=32768,
        parallelism=Parallelism("zero3", 8),
        framework="hf",
    )
    assert estimate_step(long, cluster("A100-80GB", 8)).tokens_per_s_total.p50 == pytest.approx(
        17874, rel=0.15
    )


def windowed(model, length, attention, framework="hf", **fields):
    some = setup(model, attention=attention, gradient_checkpointing=False, framework=framework, **fields)
    gpu = gpu_facts("H100")
    return attention_seconds(some, gpu.attainable_flops_per_s, gpu, length, length)


def test_a_window_holds_in_some_blocks_of_some_families():
    """Each second block of Gemma 2 sees all 32,768 tokens, each sixth of Gemma 3, none of Mistral 7B v0.1."""
    gemma2, gemma3, mistral = (
        load_architecture(name)
        for name in ("google/gemma-2-9b", "google/gemma-3-12b-pt", "mistralai/Mistral-7B-v0.1")
    )
    assert scored_keys(gemma2, 32768, True) == (16384 + 4096) / 2
    assert scored_keys(gemma3, 32768, True) == pytest.approx((16384 + 5 * 1024) / 6)
    assert scored_keys(mistral, 32768, True) == 4096
    assert scored_keys(gemma2, 4096, True) == 2048


def test_transformers_tells_sdpa_of_a_window_by_a_mask():
    """The kernel that takes one computes the whole square; flash attention does not, and short rows need no mask."""
    for model in ("mistralai/Mistral-7B-v0.1", "google/gemma-3-12b-pt"):
        assert windowed(model, 16384, "sdpa") > 2 * windowed(model, 16384, "flash")
    assert windowed("mistralai/Mistral-7B-v0.1", 4096, "sdpa") == windowed(
        "mistralai/Mistral-7B-v0.1", 4096, "flash"
    )
    own = {"framework": "megatron"}
    assert windowed("google/gemma-3-12b-pt", 16384, "sdpa", **own) == windowed(
        "google/gemma-3-12b-pt", 16384, "flash", **own
    )


def test_the_kernel_that_takes_a_mask_is_slow():
    """Llama-3.1-8B, two padded rows of 8,192 tokens, recomputed, in a loop over Hugging Face's models: what published
    steps on an H100 and an A100 have beyond products and the rest.
    """
    for gpu, took_s in (("H100", 2.7), ("A100-80GB", 4.7)):
        some = setup(attention="sdpa", framework="other", padded=True, micro_batch=2, sequence_tokens=8192)
        facts = gpu_facts(gpu)
        masked = attention_seconds(some, facts.attainable_flops_per_s, facts, 8192, 16384)
        assert masked == pytest.approx(took_s, rel=0.25)
        flash = some._replace(attention="flash")
        assert masked > 5 * attention_seconds(flash, facts.attainable_flops_per_s, facts, 8192, 16384)


def test_who_may_hide_padding_by_a_mask_is_doubted():
    known, own = (setup(framework=name, sequence_tokens=8192, micro_batch=2) for name in ("hf", "other"))
    doubts = [
        estimate_step(some, cluster("A100-80GB")).spread for some in (known, own, own._replace(padded=True))
    ]
    assert doubts[1] > 1.2 * doubts[0]
    assert doubts[2] == pytest.approx(doubts[0], rel=0.01)
