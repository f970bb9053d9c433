"""How far a predicted step time may be off: independent doubts, each a relative error with its reason.

A doubt is a standard deviation of log(actual / predicted). Doubts add in squares, on each side for itself: p90 is p50
times exp(1.28 sd) of what may make a step slower, p10 is p50 over exp(1.28 sd) of what may make it quicker. What a
formula leaves out nearly always costs time, so most doubts about something unmodelled are larger on the slow side. Of
published runs that nobody had compared before, most that lay outside their interval were slower.

Sizes come from published runs at first sight, predicted by versions that had not seen their sources
(`benchmarks/intervals.py`; ACCURACY.md): what the compared runs cover (stack, GPU, what is trained, tokens in a
micro-batch) is predicted within a fifth, the same stack elsewhere within a quarter, and what errs by more is a loop of
which nothing is known, software of before torch 2.0, launches of the host, optimizers on the host. Where no run says
anything (experts, sampling), doubts are wide on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from planner.hardware import GpuFacts
from planner.quantiles import Z90
from planner.setup import Cluster, TrainingSetup
from planner.stacks import MEGATRON
from planner.throughput.constants import COMPARED, TIME
from planner.workload import micro_batch_tokens, samples_answers

_BASE = 0.10  # version of the stack, clocks, what a spec does not say
_UNSEEN = 0.18  # no compared run had this stack, GPU and method with as many tokens
_UNMEASURED_RATE = 0.30  # nor any the GPU, whose attainable rate is estimated
_OUTSIDE = 2.0  # tokens of a micro-batch that still count as compared: half the fewest, twice the most
_FEW_TOKENS = 0.20  # more, with hardly any tokens in a micro-batch
_FEW_TOKENS_SCALE = 1500.0
_OLDER = 0.35  # before torch 2.0: kernels, launches and optimizers that are read from later versions
_OTHER_VENDOR = 0.30  # kernels of a vendor for which few runs are published
_LAUNCHES, _DEQUANTISE, _PADDING, _PCIE = 0.80, 0.20, 0.10, 0.30
_EXPERTS, _SAMPLING, _OFFLOAD, _NETWORK, _CPU = 0.45, 0.65, 0.25, 0.22, 0.50
# Times as long as said that one host in ten takes for what it decides: its rates are priors (`planner.throughput.
# offload`), and nothing is known of how many cores a container may use. Chosen with published runs in view: of nine
# sources in which the host has over a quarter of the step, five were predicted within 1.5 times, two 2.2 times too
# quick, two by more.
_HOST_SLOWER = 4.0
# Share of a doubt by which a step may be quicker, where it is not as likely as a slower one.
_MOSTLY_SLOWER = 0.3  # work on the host, kernels of another time: what is missing costs time
_RATHER_SLOWER = 0.5
_SHARDED_EXPERTS = 0.80
# All wait for the rank whose experts most tokens chose, at worst as many times as long as there are ranks, and the host
# for their number. Chosen with published runs in view: of ten set-ups six took 0.7 to 1.4 times as long as said, four
# 2.4 to 9.
_EXPERT_RANKS = 0.75
# Chips whose kernels are NVIDIA's and AMD's own before they are torch's: a B200 is said 1.1 to 1.6 times quicker than
# torchtitan's published runs on it, an H100 1.0 to 1.2 times.
_YOUNG, _YOUNG_KERNELS = frozenset({"10.0", "10.3", "gfx950"}), 0.15
_FOUR_BIT, _LINEAR, _ROTATIONS, _EIGHT_BIT, _CONTEXT = 0.20, 0.25, 0.60, 0.15, 0.20


class Doubt(NamedTuple):
    """One independent relative error.

    Attributes:
        log_sd: Standard deviation of the logarithm of actual / predicted, as far as steps are slower than predicted.
        reason: Where it comes from.
        quicker: Share of it by which they may be quicker.
    """

    log_sd: float
    reason: str
    quicker: float = 1.0


class Spread(NamedTuple):
    """What doubts come to together.

    Attributes:
        slower: p90 / p50 of a step's time.
        quicker: p50 / p10.
        reason: Doubts that matter, largest first.
    """

    slower: float
    quicker: float
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
    tokens = micro_batch_tokens(setup)
    found = [
        Doubt(_BASE, "stacks and their versions"),
        Doubt(
            _FEW_TOKENS / (1 + tokens / _FEW_TOKENS_SCALE),
            f"{tokens:,.0f} tokens in a micro-batch",
            _RATHER_SLOWER,
        ),
        Doubt(_LAUNCHES * share["launch"], "kernel launches, which the host decides", _MOSTLY_SLOWER),
        Doubt(_DEQUANTISE * share["dequantise"], "dequantisation"),
    ]
    if cluster.gpu.vendor == "cpu":
        found.append(Doubt(_CPU, "a CPU that nobody has measured"))
    elif not _is_compared(setup, cluster.gpu, tokens):
        found += _unseen(setup, cluster.gpu, tokens)
    if setup.older_torch:
        found.append(Doubt(_OLDER, "software of before torch 2.0", _MOSTLY_SLOWER))
    if setup.row_tokens is not None:
        found.append(Doubt(_PADDING, "padding of rows of different length"))
    if setup.parallelism.gpus_total > 1 and cluster.gpu.link_bytes_per_s is None:
        found.append(Doubt(_PCIE * share["collectives"], "GPUs that talk over PCIe"))
    if cluster.nodes > 1 and cluster.inter_node_log_sd:
        said = Doubt(cluster.inter_node_log_sd * share["collectives"], "rate of the network between machines")
        found.append(said)
    return [*found, *_rare(setup, cluster, share)]


def covered_by(setup: TrainingSetup, gpu: GpuFacts) -> tuple[str, str, str]:
    """Stack, GPU and what is trained, as calibration runs are grouped; trl, which we launch, is timed as hf, and so are
    axolotl's trainers and a stack that nobody knows, whose doubt is its own.
    """
    stack = "hf" if setup.framework in ("trl", "axolotl", "other") else setup.framework
    trained = "full" if setup.adapter is None else "quantised" if setup.quantization != "none" else "adapter"
    return stack, gpu.name, trained if setup.arch.kind == "decoder" else "encoder"


def _is_compared(setup: TrainingSetup, gpu: GpuFacts, tokens: float) -> bool:
    fewest, most = COMPARED.get(covered_by(setup, gpu), (math.inf, 0.0))
    return fewest / _OUTSIDE <= tokens <= most * _OUTSIDE


def _unseen(setup: TrainingSetup, gpu: GpuFacts, tokens: float) -> list[Doubt]:
    """What no compared run says: the combination, and a GPU that is in none and whose rate nobody measured."""
    stack, _, trained = covered_by(setup, gpu)
    where = f"{stack}, {trained} on {gpu.name}"
    found = [Doubt(_UNSEEN, f"no published run of {where} with {tokens:,.0f} tokens was compared")]
    measured = "published measurements" in gpu.attainable_source
    if not measured and gpu.name not in {name for _, name, _ in COMPARED}:
        found.append(Doubt(_UNMEASURED_RATE, f"attainable rate of {gpu.name} is estimated", _RATHER_SLOWER))
    if gpu.vendor != "nvidia":
        found.append(Doubt(_OTHER_VENDOR, f"few published runs on {gpu.vendor.upper()}"))
    return found


def _rare(setup: TrainingSetup, cluster: Cluster, share: Mapping[str, float]) -> list[Doubt]:
    """What few published runs cover, or where stacks differ widely."""
    kind = "" if setup.adapter is None else setup.adapter.kind
    young = cluster.gpu.capability in _YOUNG and setup.framework not in MEGATRON
    masks = setup.framework == "other" and setup.attention == "sdpa" and not setup.padded
    moe, parallel = setup.arch.is_moe, setup.parallelism
    away = share.get("offload", 0.0) + (share["optimizer"] if setup.offload != "none" else 0.0)
    rare = (
        (samples_answers(setup), _SAMPLING, "sampling answers inside the step"),
        (young, _YOUNG_KERNELS, f"kernels for {cluster.gpu.name} are young outside its maker's stack"),
        (moe, _EXPERTS, "experts: kernels differ widely between stacks"),
        (
            moe and parallel.kind == "zero3",
            _SHARDED_EXPERTS,
            "experts in shards, fetched one by one or all at once",
        ),
        (kind in ("oft", "boft"), _ROTATIONS, f"{kind} builds rotations, which are not counted"),
        (
            masks,
            _masked(share),
            "whether a loop of its own hides padding by a mask, for which sdpa has a slow kernel",
        ),
        (bool(setup.arch.linear_layers), _LINEAR, "linear attention, of which few runs are published"),
        (cluster.nodes > 1, _NETWORK, "network between machines"),
        (parallel.context > 1, _CONTEXT, "rows in parts, which stacks exchange in different ways"),
        (setup.precision.endswith("fp8"), _EIGHT_BIT, "eight-bit training"),
        (setup.precision.endswith("fp4"), _FOUR_BIT, "four-bit training"),
    )
    found = [Doubt(size, reason) for applies, size, reason in rare if applies]
    if moe and parallel.expert > 1:
        busiest = "experts on GPUs of their own, which wait for the one with most tokens"
        found.append(Doubt(_EXPERT_RANKS, busiest, _MOSTLY_SLOWER))
    if setup.offload != "none":
        found.append(Doubt(_OFFLOAD, "offload to the host", _RATHER_SLOWER))
    if away > 0:
        how = "how fast the host copies and steps, and how it shares that out"
        found.append(Doubt(math.log1p((_HOST_SLOWER - 1) * min(1.0, away)) / Z90, how, _MOSTLY_SLOWER))
    return found


def _masked(share: Mapping[str, float]) -> float:
    """Half of the logarithm of the step's time with the kernel that takes a mask and computes the whole square."""
    return 0.5 * math.log1p((2 / TIME["sdpa"] - 1) * share["attention"])


def spread_of(doubts: list[Doubt]) -> Spread:
    """Independent doubts together, each side for itself.

    >>> spread = spread_of([Doubt(0.3, "a"), Doubt(0.4, "b"), Doubt(0.01, "c", quicker=0.5)])
    >>> round(spread.slower, 3), round(spread.quicker, 3), spread.reason
    (1.898, 1.898, 'b; a')
    """
    variance = sum(doubt.log_sd**2 for doubt in doubts)
    quicker = sum((doubt.log_sd * doubt.quicker) ** 2 for doubt in doubts)
    telling = sorted((doubt for doubt in doubts if doubt.log_sd**2 > 0.15 * variance), reverse=True)
    reason = "; ".join(doubt.reason for doubt in telling)
    return Spread(math.exp(Z90 * math.sqrt(variance)), math.exp(Z90 * math.sqrt(quicker)), reason)
