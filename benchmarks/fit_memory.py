"""Fit the allocator's numbers of the memory model; everything else in it follows from the operations.

A coordinate search on the macro-average over sources of runs that measured reserved or NVML memory, pulled towards
round priors: what the caching allocator holds beyond tensors is a small share of each kind of tensor, the CUDA
context about half a GiB.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from planner.backtest import OUTCOME_COLUMNS, Run, UnsupportedRunError, read_run
from planner.memory import estimate_memory
from planner.memory.constants import CONSTANTS

GIB = 2**30
PRIORS = {
    "slack_activations": 0.10, "slack_logits": 0.25, "slack_step": 0.15, "slack_comm": 0.8, "slack_base": 0.25,
    "context": 0.5, "nccl": 0.8,
}  # fmt: skip
PULL = 0.01
Case = tuple[str, str, Run, float]


def metric_of(text: str) -> str:
    """allocated, reserved or nvml, from how a source names what it measured."""
    text = text.lower()
    if any(part in text for part in ("nvml", "smi", "wandb")):
        return "nvml"
    allocated = ("alloc" in text and "reserved" not in text) or "active" in text or text == "torch_max_memory"
    return "allocated" if allocated else "reserved"


def memory_cases(rows: list[dict[str, str]]) -> list[Case]:
    """Rows with a measured peak, as (source, metric, run, GiB)."""
    found = []
    for row in rows:
        if not row["mem_gib_norm"]:
            continue
        try:
            run = read_run({k: v for k, v in row.items() if k not in OUTCOME_COLUMNS})
        except UnsupportedRunError:
            continue
        found.append((row["source"], metric_of(row["mem_metric"]), run, float(row["mem_gib_norm"])))
    return found


def predicted_gib(metric: str, run: Run) -> float:
    memory = estimate_memory(run.setup, run.cluster)
    size: float = getattr(memory, f"{metric}_bytes")
    return size / GIB


def objective(data: list[Case]) -> float:
    by_source = defaultdict(list)
    for source, metric, run, truth in data:
        by_source[source].append(min(abs(math.log(predicted_gib(metric, run) / truth)), 0.7))
    moved = sum(abs(math.log(CONSTANTS[name] / prior)) for name, prior in PRIORS.items())
    return statistics.mean(statistics.mean(errors) for errors in by_source.values()) + PULL * moved / 4


def fit_memory(data: list[Case]) -> dict[str, float]:
    """Set and return the constants; allocated peaks do not depend on them and are left out."""
    data = [case for case in data if case[1] != "allocated"]
    CONSTANTS.update(PRIORS)
    best = objective(data)
    for scale in (1.5, 1.15):
        for name in PRIORS:
            for factor in (scale, 1 / scale):
                while True:
                    old = CONSTANTS[name]
                    CONSTANTS[name] = old * factor
                    score = objective(data)
                    if score >= best - 1e-5:
                        CONSTANTS[name] = old
                        break
                    best = score
    return {name: CONSTANTS[name] for name in PRIORS}
