"""Memory of the machine itself: each moment by what is on the host then, whatever holds it."""

import pytest
from hypothesis import given

from planner.architecture import parameter_counts
from planner.hardware import cpu_facts
from planner.host_memory import Data, host_memory_parts
from planner.memory import estimate_memory
from planner.setup import Cluster, Parallelism
from tests.planner.setups import cluster, lora, setup, setups

GIB = 2.0**30
NONE = Data(0.0, 0.0)


def host_bytes(some, *, gpus=1, nodes=1, stored=2.0, data=NONE):
    """With files of so many bytes a parameter."""
    where = cluster("H100", gpus, nodes)
    total = parameter_counts(some.arch, some.task, some.labels).total
    memory = estimate_memory(some, where)
    return sum(host_memory_parts(some, where, memory, stored_bytes=stored * total, data=data).values())


def over(kind, gpus, **fields):
    return setup(parallelism=Parallelism(kind, gpus), **fields)


@given(setups)
def test_every_process_takes_some(some):
    assert host_bytes(some, gpus=8) - host_bytes(some) >= 7 * 2.5 * GIB - 1  # sums of floats


def test_files_are_mapped_once_and_copied_by_each_process_that_takes_another_type():
    total = parameter_counts(setup().arch).total
    copies = over("ddp", 8, adapter=lora())
    alike = host_bytes(copies, gpus=8)
    assert alike == pytest.approx(2.0 * total + 24 * GIB, rel=0.01)
    widened = host_bytes(copies._replace(precision="fp32"), gpus=8)
    assert widened - alike == pytest.approx(8 * 4.0 * total, rel=0.01)
    narrowed = host_bytes(copies, gpus=8, stored=4.0)
    assert narrowed - alike == pytest.approx(2.0 * total + 8 * 2.0 * total, rel=0.01)
    assert host_bytes(copies._replace(precision="fp32"), gpus=8, stored=4.0) < widened / 5


def test_every_process_holds_the_data():
    """Rows as they are read, and tokens; 100 million of them on eight GPUs are tens of GiB."""
    some, data = over("ddp", 8, adapter=lora()), Data(1e8, 4e8)
    each = host_bytes(some, data=data) - host_bytes(some)
    assert each == pytest.approx(6.2e9, rel=0.02)
    assert host_bytes(some, gpus=8, data=data) - host_bytes(some, gpus=8) == pytest.approx(8 * each)


def test_the_leading_process_alone_widens_a_model_in_shards():
    """Full training in bf16 keeps fp32 weights where it is sharded: beside the mapped file, not in eight processes."""
    total = parameter_counts(setup().arch).total
    eight = host_bytes(over("fsdp", 8), gpus=8)
    assert eight == pytest.approx((2.0 + 4.0) * total + 24 * GIB, rel=0.01)
    assert eight - host_bytes(over("fsdp", 4), gpus=4) == pytest.approx(4 * 2.5 * GIB)


def test_shards_are_written_in_small_files():
    """Three times a file of a GiB in each process, however much there is to save."""
    large = setup("meta-llama/Meta-Llama-3-70B", parallelism=Parallelism("fsdp", 64))
    total = parameter_counts(large.arch).total
    assert host_bytes(large, gpus=8, nodes=8) == pytest.approx((2.0 + 4.0) * total + 24 * GIB, rel=0.01)


def test_one_process_reads_the_optimizer_to_the_host():
    total = parameter_counts(setup().arch).total
    assert host_bytes(setup()) == pytest.approx(4.0 * total + 6.5 * GIB, rel=0.01)
    assert host_bytes(over("ddp", 8), gpus=8) == pytest.approx(2.0 * total + 24 * GIB, rel=0.01)


def test_a_base_that_is_packed_on_its_way_to_the_gpu_needs_little_memory_of_the_machine():
    """A Llama-3 of 70B in 4 bits is loaded on machines with less memory than its files have bytes."""
    large = setup("meta-llama/Meta-Llama-3-70B", adapter=lora())
    assert host_bytes(large) > 2 * parameter_counts(large.arch).total
    assert host_bytes(large._replace(quantization="4bit")) < host_bytes(large) / 3


def test_what_is_offloaded_lies_on_the_host():
    base = setup(framework="hf", parallelism=Parallelism("zero3", 4))
    assert host_bytes(base._replace(offload="parameters")) > host_bytes(base)


def test_on_a_cpu_it_is_what_training_takes():
    some, where = setup("qwen2.5-0.5b"), Cluster(cpu_facts(4, 16.0))
    memory = estimate_memory(some, where)
    parts = host_memory_parts(some, where, memory, stored_bytes=1e9, data=NONE)
    assert sum(parts.values()) == memory.nvml_bytes
