"""What sharding holds beside the shards, stack by stack."""

import pytest

from planner.architecture import parameter_counts
from planner.memory import estimate_memory, model_state
from planner.memory.collectives import buffers
from planner.memory.precision import widths
from planner.setup import Parallelism
from tests.planner.setups import cluster, setup

NODE = cluster("H100", 8)
SHARDED = setup(parallelism=Parallelism("fsdp", 8), gradient_checkpointing=True, sequence_tokens=4096)


def held(some):
    return buffers(some, widths(some), 16e9, 8e9, 4e9)


def test_embedding_and_head_of_torchtitan_are_gathered_when_they_are_used():
    """Elsewhere the root holds both, gathered, through the whole backward pass."""
    titan, other = held(SHARDED._replace(framework="torchtitan")), held(SHARDED._replace(framework="hf"))
    head = SHARDED.arch.vocab * SHARDED.arch.hidden
    assert titan.backward < other.backward - 2 * 2.0 * head
    assert titan.loss == pytest.approx(head * (2 + 2 + 4))  # with its gradient, and that to be reduced


def test_waiting_gradients_are_no_gathers():
    """Gradients that wait unsharded lie in the usual pool, which leaves less unused than those of the gathers."""
    once = SHARDED._replace(framework="hf", grad_accum=1)
    first, second = (
        estimate_memory(some, NODE).components_bytes for some in (once, once._replace(grad_accum=8))
    )
    more = second["comm_buffers"] - first["comm_buffers"]
    assert more > parameter_counts(SHARDED.arch).total  # in two bytes each, less those of the last block
    assert second["fragmentation"] - first["fragmentation"] < 0.2 * more


def test_zero_casts_the_gradients_of_its_partition_to_fp32():
    """DeepSpeed's step holds them flat in two bytes and again in four, beside those that were reduced."""
    zero2 = SHARDED._replace(parallelism=Parallelism("zero2", 4), framework="deepspeed", sequence_tokens=256)
    memory = estimate_memory(zero2, NODE)
    mine = parameter_counts(zero2.arch).total / 4
    assert memory.peak_phase == "optimizer_step"
    assert memory.components_bytes["optimizer_step_temporary"] == pytest.approx(6 * mine)
    zero3 = zero2._replace(parallelism=Parallelism("zero3", 4))
    assert model_state(zero3).step == pytest.approx(6e9)  # a sub-group of 1e9 parameters at a time


def test_megatron_adds_gradients_up_in_fp32():
    """18 bytes a parameter, or 6 and 12 over the data-parallel ranks (its theoretical_memory_usage.py)."""
    state = model_state(SHARDED._replace(parallelism=Parallelism("mixed", 8), framework="megatron"))
    total = parameter_counts(SHARDED.arch).total
    assert state.weights + state.gradients + state.optimizer == pytest.approx((6 + 12 / 8) * total)


def test_deepspeed_alone_keeps_what_zero3_gathered_until_the_backward_pass():
    """Without `zero.Init` torch's own linear holds on to the weights; recomputed blocks have one block of them."""
    alone, trainer = (
        SHARDED._replace(
            parallelism=Parallelism("zero3", 8), gradient_checkpointing=False, framework=framework
        )
        for framework in ("deepspeed", "hf")
    )
    linear = parameter_counts(SHARDED.arch).linear
    assert held(alone).loss - held(trainer).loss == pytest.approx(2.0 * (linear - 1e9))
    assert held(alone).end == held(trainer).end
    assert held(alone._replace(gradient_checkpointing=True)) == held(
        trainer._replace(gradient_checkpointing=True)
    )


@pytest.mark.parametrize(("sequence_tokens", "micro_batch", "published_gib"), [(4096, 1, 57), (2048, 3, 70)])
def test_zero3_without_zero_init_meets_published_memory(sequence_tokens, micro_batch, published_gib):
    """Llama-2-7B on eight A800 with DeepSpeed 0.11.1 (FlagPerf, training/benchmarks/llama2_7b/deepspeed)."""
    run = setup(
        "meta-llama/Llama-2-7b-hf",
        framework="deepspeed",
        parallelism=Parallelism("zero3", 8),
        gradient_checkpointing=False,
        attention="flash",
        sequence_tokens=sequence_tokens,
        micro_batch=micro_batch,
    )
    predicted = estimate_memory(run, cluster("A100-80GB", 8)).nvml_bytes / 2**30
    assert predicted == pytest.approx(published_gib, rel=0.1)


def test_paddles_trainer_keeps_masters_beside_and_casts_in_its_step():
    """PaddleNLP's O2: 2 bytes a weight and a gradient, masters and moments in fp32, no temporary of the step."""
    state = model_state(SHARDED._replace(parallelism=Parallelism("zero2", 4), framework="paddle"))
    total = parameter_counts(SHARDED.arch).total
    assert state.weights + state.gradients + state.optimizer == pytest.approx((2 + 14 / 4) * total)
    assert state.step == 0.0


def test_paddles_split_products_keep_an_input_each():
    """`_c_identity` copies it: queries, keys and values one each, and both of the MLP's, not one for all of them."""
    fields = {"gradient_checkpointing": False, "sequence_tokens": 4096, "micro_batch": 1, "grad_accum": 1}
    kept = {
        name: estimate_memory(
            setup(framework=name, parallelism=Parallelism("zero2", 4, 2), **fields), NODE
        ).components_bytes["activations"]
        for name in ("paddle", "other")
    }
    arch = SHARDED.arch
    norms = arch.layers * 2 * 4.0 * arch.hidden * 4096  # fused ones keep two bytes of their input, not six
    copies = arch.layers * 3 * 2.0 * arch.hidden * 4096
    assert kept["paddle"] == pytest.approx(kept["other"] + copies - norms, rel=0.01)
