"""What sharding holds beside the shards, stack by stack."""

import pytest

from planner.architecture import parameter_counts
from planner.memory import estimate_memory
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
