"""Peak memory of one GPU: what a step's tensors take against what a process can get there."""

from __future__ import annotations

from typing import NamedTuple

from planner.memory.constants import CONSTANTS
from planner.memory.host import offloaded_parts
from planner.memory.peak import Tensors, peak_tensors
from planner.memory.verdict import Verdict, limit_bytes, verdict_of
from planner.setup import Cluster, TrainingSetup


class MemoryEstimate(NamedTuple):
    """Predicted peak of the busiest GPU.

    Attributes:
        allocated_bytes: Tensors (`torch.cuda.max_memory_allocated`).
        reserved_bytes: What the allocator holds (`max_memory_reserved`).
        nvml_bytes: What nvidia-smi shows: reserved and the CUDA context.
        upper_bytes: Exceeded by at most one run in twenty, of whatever of the three is meant.
        limit_bytes: What a process can get on this GPU.
        components_bytes: Parts at the peak; they sum to nvml_bytes.
        verdict: fits, borderline or oom.
        peak_phase: loading, generation, loss, backward or optimizer_step.
        host_parts_bytes: What is offloaded to one machine, by what it is.
        save_peak_bytes: GPU memory while saving a checkpoint.
        log_sd: How far the tensors may be off: standard deviation of the logarithm of actual / predicted.
    """

    allocated_bytes: float
    reserved_bytes: float
    nvml_bytes: float
    upper_bytes: float
    limit_bytes: float
    components_bytes: dict[str, float]
    verdict: Verdict
    peak_phase: str
    host_parts_bytes: dict[str, float]
    save_peak_bytes: float
    log_sd: float


def estimate_memory(setup: TrainingSetup, cluster: Cluster, tensors: Tensors | None = None) -> MemoryEstimate:
    """The peak of `planner.memory.peak` on a GPU, with a verdict.

    Args:
        setup: The training.
        cluster: Where it runs.
        tensors: What `peak_tensors` says of the set-up, where it has been asked already.
    """
    if tensors is None:
        tensors = peak_tensors(setup, on_cpu=cluster.gpu.vendor == "cpu")
    allocated, in_step, context = tensors.allocated_bytes, tensors.in_step_bytes, tensors.context_bytes
    limit = limit_bytes(cluster)
    least = CONSTANTS["slack_least"]
    # Near the limit the allocator gives cached blocks back before it fails.
    slack = min(tensors.unused_bytes, max(least * in_step, limit - context - in_step))
    if tensors.phase == "loading":
        slack = max(least * allocated, slack + in_step - allocated)
    components = {**tensors.components_bytes, "fragmentation": slack, "context": context}
    reserved = allocated + slack
    doubt = CONSTANTS["wide"] if tensors.is_uncertain else 1.0
    unused = CONSTANTS["upper_lengths"] * tensors.passing_bytes if setup.varied_lengths else 0.0
    return MemoryEstimate(
        allocated_bytes=allocated,
        reserved_bytes=reserved,
        nvml_bytes=reserved + context,
        upper_bytes=(reserved + context) * (1 + (CONSTANTS["upper"] - 1) * doubt) + unused,
        limit_bytes=limit,
        components_bytes=components,
        verdict=_verdict(setup, tensors, limit),
        peak_phase=tensors.phase,
        host_parts_bytes=offloaded_parts(setup, tensors.state, tensors.width, cluster),
        save_peak_bytes=tensors.save_peak_bytes,
        log_sd=tensors.log_sd,
    )


def _verdict(setup: TrainingSetup, tensors: Tensors, limit: float) -> Verdict:
    """Nothing makes weights smaller, nor an unknown stack hold less than them and its optimizer."""
    components, context = tensors.components_bytes, tensors.context_bytes
    certain = components["weights"]
    return verdict_of(
        tensors.allocated_bytes,
        context,
        limit,
        tensors.log_sd,
        certain=certain,
        unknown=setup.framework == "other" and certain + components["optimizer"] + context <= limit,
    )
