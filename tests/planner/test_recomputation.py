"""Selective recomputation: what is kept, and what is computed again."""

import pytest

from planner.architecture import load_architecture
from planner.backtest import predict, read_run
from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.recomputation import kept_values, recomputed
from planner.setup import Cluster, Parallelism, TrainingSetup
from planner.throughput.terms import compute_terms

LLAMA = load_architecture("llama-3.1-8b")
SETUP = TrainingSetup(
    LLAMA, task="pretrain", framework="torchtitan", parallelism=Parallelism("fsdp", 8), sequence_tokens=8192
)
NODE = Cluster(gpu_facts("H100"), 8)
ROW = {
    "model": "meta-llama/Llama-3.1-8B", "method": "full", "precision": "bf16", "gpu": "H100-80GB", "num_gpus": "8",
    "parallelism": "FSDP", "seq_len": "8192", "micro_batch": "1", "framework": "torchtitan", "task": "pretrain",
    "date": "2025-03",
}  # fmt: skip
BY_OPERATION = SETUP._replace(keeps_products=True)
EVERY_SECOND = SETUP._replace(recomputed_blocks=0.5)
NOTHING = SETUP._replace(gradient_checkpointing=False)


def test_every_second_product_and_attention_are_kept():
    """torchtitan's policy on a Llama block keeps wq, wv, w1, w2 and attention of wq, wk, wv, wo, w1, w3, w2."""
    assert kept_values(LLAMA) == 4096 + 1024 + 14336 + 4096 + 4096


@pytest.mark.parametrize(("setup", "low", "high"), [(BY_OPERATION, 0.30, 0.40), (EVERY_SECOND, 0.45, 0.55)])
def test_activations_lie_between_all_and_none(setup, low, high):
    whole, chosen, none = (
        estimate_memory(each, NODE).components_bytes["activations"] for each in (SETUP, setup, NOTHING)
    )
    assert low < (chosen - whole) / (none - whole) < high


def test_only_what_is_not_kept_is_computed_again():
    assert recomputed(NOTHING) == (0.0, 0.0, 0.0)
    assert recomputed(EVERY_SECOND) == (0.5, 0.5, 0.5)
    again = recomputed(BY_OPERATION)
    assert 0.3 < again.products < 0.4 and again.attention == 0.0 and again.elementwise == 1.0
    seconds = [
        compute_terms(each, NODE.gpu)["matmul"] for each in (NOTHING, BY_OPERATION, EVERY_SECOND, SETUP)
    ]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("text", "framework", "read"),
    [
        ("selective", "torchtitan", (True, 1.0, True)),
        ("selective every 2nd layer", "torchtitan", (True, 0.5, False)),
        ("selective 2", "torchtune", (True, 0.5, False)),
        ("selective (1/3)", "fms-fsdp", (True, 1 / 3, False)),
        ("selective", "Megatron-LM", (False, 1.0, True)),  # scores alone, which a fused kernel never keeps
        ("true", "torchtitan", (True, 1.0, False)),
        ("false", "torchtitan", (False, 1.0, False)),
    ],
)
def test_selective_is_read_as_the_stack_means_it(text, framework, read):
    setup = read_run(ROW | {"grad_checkpointing": text, "framework": framework}).setup
    assert (setup.gradient_checkpointing, setup.recomputed_blocks, setup.keeps_products) == read


def test_where_a_row_only_says_selective_the_bound_is_that_of_none():
    bounds = [
        float(predict(ROW | {"grad_checkpointing": text})["memory_upper_gib"])
        for text in ("selective", "false")
    ]
    assert bounds[0] == pytest.approx(bounds[1], rel=0.03)


def test_stacks_that_repeat_keys_keep_them_for_every_head():
    """A Llama of 8 key heads keeps 2 x (4096 - 1024) values more in litgpt; one of 32 the product of all three,
    and each of its two norms what it normed in fp32."""
    titan, plain = (
        estimate_memory(NOTHING._replace(framework=name, loss_bytes=8.0), NODE).components_bytes[
            "activations"
        ]
        for name in ("torchtitan", "megatron")
    )
    assert titan > plain + 32 * 8192 * 2 * 2 * (4096 - 1024)
    all_heads = NOTHING._replace(arch=load_architecture("llama-2-7b"), parallelism=Parallelism())
    litgpt, hf = (
        estimate_memory(all_heads._replace(framework=name), NODE).components_bytes["activations"]
        for name in ("litgpt", "hf")
    )
    product, normed = 2 * 2 * 4096, 2 * (4 - 2) * 4096
    assert litgpt - hf == pytest.approx(32 * 8192 * (product + normed), rel=0.01)
