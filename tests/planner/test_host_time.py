"""What the host spends on a micro-batch, and how the GPU's work hides it pass by pass."""

from __future__ import annotations

import pytest

from planner.setup import Parallelism
from planner.stacks import STACKS
from planner.throughput.host import compute_seconds, host_seconds
from planner.throughput.terms import compute_terms
from tests.planner.setups import cluster, lora, setup

GPU = cluster().gpu


def compute(some):
    return compute_seconds(some, compute_terms(some, GPU), host_seconds(some, GPU), GPU)


def test_modules_in_python_launch_forward_and_what_is_recomputed():
    plain = setup(gradient_checkpointing=False)
    forward, backward = host_seconds(plain, GPU)
    assert backward < forward  # twice the kernels, launched by the engine
    again = host_seconds(plain._replace(gradient_checkpointing=True), GPU)
    assert again == (forward, pytest.approx(backward + forward))


def test_each_pass_waits_for_the_slower_of_host_and_gpu():
    """Between the two bounds: a host that is never in the way, and one that computes nothing meanwhile."""
    for tokens in (64, 512, 1024, 4096, 65536):
        some = setup(micro_batch=1, sequence_tokens=tokens, gradient_checkpointing=False)
        terms, host_s = compute_terms(some, GPU), host_seconds(some, GPU)
        work = sum(terms.values())
        assert max(work, sum(host_s)) <= compute(some) <= work + sum(host_s)
    few = setup("llama-3.2-1b", micro_batch=1, sequence_tokens=512, gradient_checkpointing=False)
    work, host_s = sum(compute_terms(few, GPU).values()), host_seconds(few, GPU)
    assert (
        host_s[0] > work / 3
    )  # the forward pass waits for the host though the step as a whole would not have to
    assert compute(few) > 1.02 * (work**4 + sum(host_s) ** 4) ** 0.25


def test_a_reference_model_is_one_more_forward_pass():
    alone = setup(task="dpo", adapter=lora(), reference=False)
    both = alone._replace(reference=True)
    assert host_seconds(both, GPU)[0] == pytest.approx(2 * host_seconds(alone, GPU)[0])
    assert host_seconds(both, GPU)[1] == pytest.approx(host_seconds(alone, GPU)[1])


def test_transformer_engine_is_slow_to_launch():
    """Qwen3-4B, 1,024 tokens of full precision on an H200: 103 ms a micro-batch, where its FLOPs would take 55."""
    engine = setup("Qwen/Qwen3-4B", framework="megatron", micro_batch=1, sequence_tokens=1024)._replace(
        gradient_checkpointing=False
    )
    where = cluster("H200", 1).gpu
    host_s = host_seconds(engine, where)
    assert 0.085 < compute_seconds(engine, compute_terms(engine, where), host_s, where) < 0.12
    assert STACKS["megatron"].host_slowdown == 2.0
    older = engine._replace(framework="megatron-local")  # before it, modules were torch's
    assert sum(host_seconds(older, where)) == pytest.approx(sum(host_s) / 2)


def test_pipeline_stages_share_a_micro_batchs_blocks():
    whole = setup(framework="megatron")
    half = whole._replace(parallelism=Parallelism("ddp", 1, pipeline=2))
    assert sum(host_seconds(half, GPU)) == pytest.approx(sum(host_seconds(whole, GPU)) / 2)


@pytest.mark.parametrize(
    ("model", "framework", "weights"),
    [
        ("huggyllama/llama-7b", "deepspeed", 7),
        ("bigscience/bloom-7b1", "deepspeed", 4),
        ("Qwen/Qwen-7B", "deepspeed", 5),
        ("Qwen/Qwen3-30B-A3B", "deepspeed", 6),  # experts as two tensors of all
        ("Qwen/Qwen3-30B-A3B", "hf", 4 + 3 * 128),  # experts in modules of their own
    ],
)
def test_zero_3_takes_the_hosts_time_for_each_weight_that_it_gathers(model, framework, weights):
    """Norms, biases and routers stay on each GPU. With seven weights a block, gdGPT's Llama-7B takes 0.5 s for 256
    tokens on eight A100.
    """
    plain, sharded = (
        setup(model, framework=framework, experts_quantised=True, parallelism=Parallelism(kind, 8))
        for kind in ("ddp", "zero3")
    )
    each_s = sum(host_seconds(sharded, GPU)) - sum(host_seconds(plain, GPU))
    passes = 3  # forward, backward, and again what is recomputed
    assert each_s / plain.arch.layers / passes == pytest.approx(weights * 0.0006)
