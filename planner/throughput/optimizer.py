"""Seconds of the optimizer's step: bytes it moves, and the kernels of an older one."""

from __future__ import annotations

from planner.architecture import adapter_targets, linear_shapes
from planner.memory.precision import widths
from planner.setup import Cluster, TrainingSetup
from planner.throughput.constants import TIME
from planner.throughput.offload import host_step_seconds
from planner.throughput.terms import soft_maximum, step_shape

_REACHED = 0.75  # of the memory's rate
# Kernels for each tensor before torch 2.0: AdamW's of transformers or of torch (decay, two averages, root, epsilon,
# quotient: 8), its norm and its scaling for clipping, and zeroing its gradient.
_KERNELS_PER_TENSOR = 11
_UNSCALED = 8.0  # bytes of a gradient in fp32 that the gradient scaler reads and writes


def optimizer_seconds(setup: TrainingSetup, cluster: Cluster) -> float:
    """The optimizer's step reads and writes weights, gradients and states once.

    Before torch 2.0 it took one tensor at a time, after clipping or the gradient scaler had waited for the GPU: with
    tensors as small as BERT's its launches take longer than what they move.
    """
    width, gpu = widths(setup), cluster.gpu
    kind = setup.parallelism.kind
    shards = setup.shards if kind in ("fsdp", "zero1", "zero2", "zero3", "mixed") else 1
    mine = step_shape(setup).trained / setup.parallelism.tensor / setup.parallelism.pipeline / shards
    temporary = width.weight if setup.older_torch else width.step  # one parameter's at a time moves as much
    moved = 2 * (width.weight + width.state + width.master) + 2 * width.gradient
    moved += width.step if width.master else 3 * temporary
    if setup.precision == "amp_fp16":
        moved += _UNSCALED
    if setup.offload != "none":
        return host_step_seconds(setup, cluster, moved)
    moving = mine * moved / (_REACHED * gpu.memory_bytes_per_s)
    launching = _tensors(setup) * _KERNELS_PER_TENSOR * gpu.launch_s * TIME["launch"]
    return soft_maximum(moving, launching)


def _tensors(setup: TrainingSetup) -> int:
    """Tensors that are stepped on one by one; 0 where a few kernels take all (Apex, DeepSpeed, Megatron, torch 2)."""
    apart = setup.older_torch and setup.framework == "hf" and setup.optimizer == "adamw"
    if not apart or setup.parallelism.kind not in ("single", "ddp"):
        return 0
    if setup.adapter is not None:
        return sum(2 * shape.count for shape in adapter_targets(setup.arch, setup.adapter))
    arch = setup.arch
    norms = (arch.layers + arch.decoder_layers) * arch.norms_per_layer * (2 if arch.norm == "layer" else 1)
    return norms + sum(shape.count * (1 + shape.bias) for shape in linear_shapes(arch))
