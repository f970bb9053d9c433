"""Seconds of sampling answers inside a step, for grpo and ppo."""

from __future__ import annotations

from planner.hardware import GpuFacts
from planner.memory.generation import cache_bytes
from planner.memory.model_state import base_weight_bytes
from planner.memory.precision import is_sharded, widths
from planner.setup import Cluster, TrainingSetup
from planner.stacks import stack_of
from planner.throughput.collectives import collective_rate, fsdp_block_s
from planner.throughput.constants import TIME
from planner.throughput.terms import matmul_rate, step_shape
from planner.workload import samples_answers


def sampling_seconds(setup: TrainingSetup, cluster: Cluster) -> float:
    """Seconds of one optimizer step that go into sampling, 0 where nothing is sampled.

    TRL, which we launch, samples all answers of a step at once (its pull request 3283) with transformers' `generate`.
    Other stacks sample each micro-batch with an engine whose launches no host holds up. Published runs that say how
    their answers were sampled are few: the interval is wide (`planner.throughput.doubts`).
    """
    if not samples_answers(setup):
        return 0.0
    if stack_of(setup.framework).accelerate:
        return setup.generated_tokens * _generated_token_s(setup, cluster)
    return setup.grad_accum * setup.generated_tokens * _engine_token_s(setup, cluster.gpu)


def _generated_token_s(setup: TrainingSetup, cluster: Cluster) -> float:
    """Of the next token of all rows: the GPU's work, the host's launches, or the links of a model in shards.

    The three overlap, so the longest counts. In shards every token gathers the whole model anew.
    """
    gpu, parallel = cluster.gpu, setup.parallelism
    host = step_shape(setup).kernels * gpu.launch_s * TIME["generate_launch"]
    work = _forward_s(setup, gpu)
    if gpu.vendor == "cpu":
        return host + work
    links = 0.0
    if is_sharded(parallel.kind) and parallel.data > 1:
        blocks = setup.arch.layers + setup.arch.decoder_layers
        host += blocks * fsdp_block_s(setup) / 3  # of forward, backward and recomputation it is the first
        share = (parallel.data - 1) / parallel.data
        links = share * _weight_bytes(setup) / collective_rate(cluster, parallel.data)
    return max(work, host, links)


def _forward_s(setup: TrainingSetup, gpu: GpuFacts) -> float:
    """Weights are read once for all rows and unpacked if quantised; of each row's keys and values half on average."""
    shape, rows = step_shape(setup), setup.micro_batch * setup.grad_accum
    cache = cache_bytes(setup, rows, setup.sequence_tokens / 2)
    moved = _weight_bytes(setup) + TIME["dequantise"] * shape.quantised + cache
    flops = 2.0 * rows * (shape.dense + shape.expert + shape.adapter)
    return moved / gpu.memory_bytes_per_s + flops / (TIME["matmul"] * matmul_rate(setup, gpu))


def _weight_bytes(setup: TrainingSetup) -> float:
    """Of the model as it is computed with; shards of a full fine-tuning are held in fp32 and gathered in less."""
    width = widths(setup)
    held = base_weight_bytes(setup, width)
    sharded = setup.adapter is None and is_sharded(setup.parallelism.kind)
    return held * width.compute / width.weight if sharded else held


def _engine_token_s(setup: TrainingSetup, gpu: GpuFacts) -> float:
    """Weights shared out over all GPUs and read at half the memory's rate, and 0.2 ms a layer."""
    parts = setup.parallelism.gpus_total if setup.parallelism.kind != "ddp" else 1
    read = 2.0 * setup.arch.layers * setup.arch.hidden * (4 * setup.arch.hidden + 3 * setup.arch.intermediate)
    return read / parts / (0.5 * gpu.memory_bytes_per_s) + setup.arch.layers * 2e-4
