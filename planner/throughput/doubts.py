"""How far a predicted step time may be off: independent doubts, each a relative error with its reason.

A doubt is a standard deviation of log(actual / predicted). Doubts add in squares, and the 80 % interval is p50 times
and divided by exp(1.28 sd). Sizes come from published runs with their source left out of the fit (ACCURACY.md), group
by group: a stack and a GPU that other sources ran, with thousands of tokens in a micro-batch, is predicted within
a fifth; a stack or a GPU that none of them ran, a rate that nobody measured, GPUs over PCIe and a few hundred tokens
err by up to three times as much. Where no run says anything (offload, experts, sampling), they are wide on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from planner.hardware import GpuFacts
from planner.quantiles import Z90
from planner.setup import Cluster, TrainingSetup
from planner.throughput.constants import COMPARED
from planner.workload import rows_of

_BASE = 0.12  # version of the stack, clocks, what a spec does not say
_UNSEEN_STACK = 0.15  # none of the runs that the formula was compared with used it
_UNSEEN_GPU = 0.12  # the same of the GPU, whose attainable rate was measured
_FEW_TOKENS = 0.20  # more, with hardly any tokens in a micro-batch
_FEW_TOKENS_SCALE = 1500.0
_UNMEASURED_RATE = 0.15  # of a GPU whose attainable rate is estimated
_OTHER_VENDOR = 0.20  # kernels of a vendor for which few runs are published
_LAUNCHES, _DEQUANTISE, _PADDING, _PCIE = 0.25, 0.20, 0.10, 0.30
_EXPERTS, _SAMPLING, _OFFLOAD, _NETWORK, _CPU = 0.45, 0.65, 0.40, 0.22, 0.50
_FOUR_BIT, _LINEAR, _ROTATIONS = 0.20, 0.25, 0.60


class Doubt(NamedTuple):
    """One independent relative error.

    Attributes:
        log_sd: Standard deviation of the logarithm of actual / predicted.
        reason: Where it comes from.
    """

    log_sd: float
    reason: str


def doubts_of(setup: TrainingSetup, cluster: Cluster, terms_s: Mapping[str, float]) -> list[Doubt]:
    """Doubts of one step; those of a term weigh as much as its share of the time.

    Args:
        setup: The training.
        cluster: Where it runs.
        terms_s: Seconds of each part of the step.
    """
    total = sum(terms_s.values()) or 1.0
    share = {name: seconds / total for name, seconds in terms_s.items()}
    length = setup.row_tokens or float(setup.sequence_tokens)
    tokens = setup.micro_batch * length * rows_of(setup.task) / setup.parallelism.context
    found = [
        Doubt(_BASE, "stacks and their versions"),
        Doubt(_FEW_TOKENS / (1 + tokens / _FEW_TOKENS_SCALE), f"{tokens:,.0f} tokens in a micro-batch"),
        Doubt(_LAUNCHES * share["launch"], "kernel launches, which the host decides"),
        Doubt(_DEQUANTISE * share["dequantise"], "dequantisation"),
        *_hardware(cluster.gpu),
    ]
    if setup.framework not in COMPARED["stacks"]:
        found.append(Doubt(_UNSEEN_STACK, f"no published run of {setup.framework} was compared"))
    if setup.row_tokens is not None:
        found.append(Doubt(_PADDING, "padding of rows of different length"))
    if setup.parallelism.gpus_total > 1 and cluster.gpu.link_bytes_per_s is None:
        found.append(Doubt(_PCIE * share["collectives"], "GPUs that talk over PCIe"))
    if cluster.nodes > 1 and cluster.inter_node_log_sd:
        said = Doubt(cluster.inter_node_log_sd * share["collectives"], "rate of the network between machines")
        found.append(said)
    return [*found, *_rare(setup, cluster)]


def _hardware(gpu: GpuFacts) -> list[Doubt]:
    if gpu.vendor == "cpu":
        return [Doubt(_CPU, "a CPU that nobody has measured")]
    found = []
    if "published measurements" not in gpu.attainable_source:
        found.append(Doubt(_UNMEASURED_RATE, f"attainable rate of {gpu.name} is estimated"))
    elif gpu.name not in COMPARED["gpus"]:
        found.append(Doubt(_UNSEEN_GPU, f"no published run on {gpu.name} was compared"))
    if gpu.vendor != "nvidia":
        found.append(Doubt(_OTHER_VENDOR, f"few published runs on {gpu.vendor.upper()}"))
    return found


def _rare(setup: TrainingSetup, cluster: Cluster) -> list[Doubt]:
    """What few published runs cover, or where stacks differ widely."""
    found = []
    if setup.task in ("grpo", "ppo"):
        found.append(Doubt(_SAMPLING, "sampling answers inside the step"))
    if setup.arch.is_moe:
        found.append(Doubt(_EXPERTS, "experts: kernels differ widely between stacks"))
    if setup.adapter is not None and setup.adapter.kind in ("oft", "boft"):
        found.append(Doubt(_ROTATIONS, f"{setup.adapter.kind} builds rotations, which are not counted"))
    if setup.arch.linear_layers:
        found.append(Doubt(_LINEAR, "linear attention, of which few runs are published"))
    if setup.offload in ("optimizer", "parameters"):
        found.append(Doubt(_OFFLOAD, "offload to the host"))
    if cluster.nodes > 1:
        found.append(Doubt(_NETWORK, "network between machines"))
    if setup.precision.endswith("fp4"):
        found.append(Doubt(_FOUR_BIT, "four-bit training"))
    return found


def spread_of(doubts: list[Doubt]) -> tuple[float, str]:
    """p90 / p50 of independent doubts together, and the reasons that matter, largest first.

    >>> spread, reason = spread_of([Doubt(0.3, "a"), Doubt(0.4, "b"), Doubt(0.01, "c")])
    >>> round(spread, 3), reason
    (1.898, 'b; a')
    """
    variance = sum(doubt.log_sd**2 for doubt in doubts)
    telling = sorted((doubt for doubt in doubts if doubt.log_sd**2 > 0.15 * variance), reverse=True)
    return math.exp(Z90 * math.sqrt(variance)), "; ".join(doubt.reason for doubt in telling)
