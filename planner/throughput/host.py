"""Seconds that the host spends on one micro-batch launching kernels, hidden pass by pass by the GPU's work."""

from __future__ import annotations

from collections.abc import Mapping

from planner.architecture import parameter_counts
from planner.hardware import GpuFacts
from planner.recomputation import recomputed
from planner.setup import TrainingSetup
from planner.stacks import stack_of
from planner.throughput.constants import TIME
from planner.throughput.terms import hooks_megatron, loops_over_experts, soft_maximum, step_shape

_KEPT_PARAMETERS = 1e5  # as many or fewer stay on each GPU (DeepSpeed's `stage3_param_persistence_threshold`)


def host_seconds(setup: TrainingSetup, gpu: GpuFacts) -> tuple[float, float]:
    """Of the forward and of the backward pass, before they overlap with the GPU's work.

    Modules in Python launch the forward pass and what is recomputed, the autograd engine in C++ most of the backward
    pass: a block of Llama takes transformers about 0.9 ms forward on the host, whatever its tokens.
    """
    shape = step_shape(setup)
    launch_s = shape.kernels * gpu.launch_s * stack_of(setup.framework).host_slowdown
    if setup.precision.startswith("amp_"):
        launch_s *= TIME["autocast_launches"]
    again, hook_s = recomputed(setup), _hooks_s(setup)
    forward = launch_s * TIME["launch_forward"] + hook_s
    repeated = max(again.elementwise, TIME["attention_launches"] * again.attention)
    backward = launch_s * TIME["launch_backward"] + hook_s + repeated * forward
    calls, calls_backward = _tensor_calls(setup)
    forward += calls * TIME["collective_call_s"]
    backward += (calls_backward + again.elementwise * calls) * TIME["collective_call_s"]
    stages = setup.parallelism.stages_at_once
    return forward * shape.forwards / stages, backward / stages


def _tensor_calls(setup: TrainingSetup) -> tuple[float, float]:
    """Collectives of tensor-parallel ranks that a forward and a backward pass launch.

    Two sums a block each way; where the ranks share out the sequence a gather and a scatter for each, and backward what
    enters the products is gathered again (Korthikanti et al. 2022, section 4.2.2).
    """
    if setup.parallelism.tensor == 1:
        return 0.0, 0.0
    blocks = float(setup.arch.layers + setup.arch.decoder_layers)
    return (4 * blocks, 6 * blocks) if setup.shares_sequence else (2 * blocks, 2 * blocks)


def _hooks_s(setup: TrainingSetup) -> float:
    """Host time of ZeRO-3 for one pass: Python around every module fetches and releases its weights, one by one
    (`fetch_sub_module` in DeepSpeed 0.11's partitioned_param_coordinator.py).

    It is spent by one GPU alone as well, and by the thread that launches kernels. So is that of Megatron-FSDP
    (`_register_fsdp_hooks`), which is what shards gradients or weights under Megatron.
    """
    arch = setup.arch
    if hooks_megatron(setup):
        return (arch.layers + arch.decoder_layers) * TIME["megatron_fsdp_layer_pass_s"]
    if setup.parallelism.kind != "zero3":
        return 0.0
    shapes = parameter_counts(arch, setup.task, setup.labels).shapes
    dense = (s for s in shapes if s.role not in ("expert", "router"))
    gathered = sum(s.count for s in dense if s.inputs * s.outputs > _KEPT_PARAMETERS)
    if arch.is_moe:  # a module for each product of each expert, or two tensors of all
        gathered += arch.moe_layers * (3 * arch.experts if loops_over_experts(setup) else 2)
    return gathered * TIME["zero3_weight_pass_s"]


def compute_seconds(
    setup: TrainingSetup, terms: Mapping[str, float], host_s: tuple[float, float], gpu: GpuFacts
) -> float:
    """Of forward and backward pass, each a soft maximum of what the GPU computes and what the host launches.

    They are not added up before: trainers read the loss after each micro-batch, so that the host cannot use the time
    in which the GPU catches up in the backward pass to launch the next forward pass.
    """
    work = terms["matmul"] + terms["attention"] + terms["elementwise"] + terms["dequantise"]
    if gpu.vendor == "cpu":  # it computes what it launches itself: nothing overlaps
        return work + sum(host_s)
    ahead = step_shape(setup).forwards / step_shape(setup).passes_matmul
    forward_s, backward_s = host_s
    seconds = soft_maximum(work * ahead, forward_s) + soft_maximum(work * (1.0 - ahead), backward_s)
    return seconds + (TIME["scaler"] * sum(host_s) if setup.precision == "amp_fp16" else 0.0)
