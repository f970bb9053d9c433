"""Seconds of an optimizer step with an interval, from the terms of `planner.throughput.terms`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from planner.quantiles import Quantiles
from planner.setup import Cluster, TrainingSetup
from planner.stacks import stack_of
from planner.throughput.collectives import exchange
from planner.throughput.constants import TIME
from planner.throughput.doubts import Doubt, doubts_of, spread_of
from planner.throughput.host import compute_seconds, host_seconds
from planner.throughput.offload import offload_seconds
from planner.throughput.optimizer import optimizer_seconds
from planner.throughput.sampling import sampling_seconds
from planner.throughput.terms import compute_terms, matmul_rate
from planner.workload import flops_per_token, rows_of


class StepEstimate(NamedTuple):
    """One optimizer step on the whole cluster.

    Attributes:
        step_time_s: Of one step, with an 80 % interval.
        tokens_per_s_total: Over all GPUs, padding not counted.
        terms_s: p50 seconds of each part; parts overlap, so they may sum to more than the step.
        mfu: Model FLOPs (no recomputation) against what the GPUs could at their attainable rate.
        spread: p90 / p50 of the step's time.
        quicker: p50 / p10, mostly less: what is not modelled costs time.
        spread_reason: Why the interval is as wide as it is, the widest doubt first.
    """

    step_time_s: Quantiles
    tokens_per_s_total: Quantiles
    terms_s: dict[str, float]
    mfu: float
    spread: float
    quicker: float
    spread_reason: str


def _bubble(setup: TrainingSetup) -> float:
    """Micro-batches' time in which a pipeline fills and empties.

    Interleaved stages fill it part by part (Narayanan et al. 2021, section 2.2.2). Megatron's recipes interleave in as
    many parts as makes it a small one; other trainers cut a batch in more pieces than they tell.
    """
    behind = setup.parallelism.stages_at_once - 1
    if setup.virtual_stages:
        return behind / setup.virtual_stages
    return float(behind) if stack_of(setup.framework).fills_pipeline else 0.0


def estimate_step(setup: TrainingSetup, cluster: Cluster, unstated: Iterable[Doubt] = ()) -> StepEstimate:
    """Predict a step.

    GPU work and kernel launches overlap pass by pass; collectives hide behind compute in part; the optimizer runs
    once a step.

    Args:
        setup: The training.
        cluster: Where it runs.
        unstated: Doubts about the set-up itself, where its source leaves something open.
    """
    terms = compute_terms(setup, cluster.gpu)
    host_s = host_seconds(setup, cluster.gpu)
    terms["launch"] = sum(host_s)
    compute = compute_seconds(setup, terms, host_s, cluster.gpu)
    talk, host = exchange(setup, cluster), offload_seconds(setup, cluster)
    optimizer, generation = optimizer_seconds(setup, cluster), sampling_seconds(setup, cluster)
    beside = max(talk.beside_s + host.queued, host.copied)
    micro = max(compute, beside) + TIME["overlap"] * min(compute, beside)
    micro = max(micro, host.behind) + host.waited + talk.waiting_s
    accumulated, once = setup.grad_accum, talk.once_s + host.once
    step = (accumulated + _bubble(setup)) * micro + generation + once + optimizer
    step *= stack_of(setup.framework).slowdown
    collectives = (talk.beside_s + talk.waiting_s) * accumulated + talk.once_s
    terms |= {"collectives": collectives, "optimizer": optimizer, "generation": generation}
    copied = (host.queued + host.copied + host.behind + host.waited) * accumulated + host.once
    terms |= {"offload": copied} if copied else {}
    for name in ("matmul", "attention", "elementwise", "dequantise", "launch"):
        terms[name] *= accumulated
    tokens: float = accumulated * setup.micro_batch * rows_of(setup.task) * setup.parallelism.data
    tokens *= (setup.row_tokens or setup.sequence_tokens) * setup.real_tokens_share
    spread = spread_of([*doubts_of(setup, cluster, terms), *unstated])
    rate = tokens / step
    peak = matmul_rate(setup, cluster.gpu) * setup.parallelism.gpus_total
    return StepEstimate(
        step_time_s=Quantiles(step / spread.quicker, step, step * spread.slower),
        tokens_per_s_total=Quantiles(rate / spread.slower, rate, rate * spread.quicker),
        terms_s=terms,
        mfu=rate * flops_per_token(setup) / peak,
        spread=spread.slower,
        quicker=spread.quicker,
        spread_reason=spread.reason,
    )
