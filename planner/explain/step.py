"""Seconds of one optimizer step, term by term."""

from __future__ import annotations

from planner.architecture import parameter_counts
from planner.candidates import Candidate
from planner.explain.terms import Section, Term, Value, corrected_by, correction_of
from planner.pricing import Priced, offered_cluster, offered_network
from planner.setup import TrainingSetup
from planner.throughput.collectives import group_bytes_per_s
from planner.throughput.offload import pinned_bytes_per_s
from planner.throughput.terms import matmul_rate

_STEP_SOURCE = "planner/throughput: roofline, fitted to published runs (ACCURACY.md)"

_FORMULAS = {
    "matmul": "FLOPs of matrix products / rate that they reach, slower where narrow or few",
    "attention": "FLOPs of scores and values / rate that they reach",
    "elementwise": "bytes of memory-bound work / memory bandwidth",
    "dequantise": "bytes read and written to unpack the base / memory bandwidth",
    "launch": "kernels x host time of a launch; overlaps with the GPU's work",
    "collectives": "bytes between GPUs / link rate; hides behind compute in part",
    "offload": "bytes between GPU and host / PCIe rate; hides behind compute in part where memory is pinned",
    "optimizer": "bytes of weights, gradients and states / memory bandwidth, once a step; on the host by its CPU",
    "generation": "tokens of an answer x the longest of reading the model, launches and links",
}


def step(candidate: Candidate, priced: Priced) -> Section:
    """Parts of one optimizer step; what overlaps is taken off again."""
    fit = priced.solved.fit
    shared = _machine(priced)
    terms = [
        Term(name, seconds, "s", _FORMULAS.get(name, ""), shared.get(name, {}))
        for name, seconds in fit.step.terms_s.items()
    ]
    learned = correction_of(priced, "step_time")
    by_formula = candidate.step_time_s.p50 / learned.factor
    hidden = by_formula - sum(fit.step.terms_s.values())
    how = "(GPU^4 + launch^4)^(1/4); the longer of compute and collectives + 0.5 x the shorter"
    terms.append(Term("overlap", hidden, "s", how))
    if learned.runs:
        taught = candidate.step_time_s.p50 - by_formula
        factor: dict[str, Value] = {"factor": learned.factor}
        terms.append(
            Term("correction", taught, "s", "formula x (factor - 1)", factor, source=corrected_by(learned))
        )
    spread: dict[str, Value] = {
        "slower": fit.step.spread,
        "quicker": fit.step.quicker,
        "because": fit.step.spread_reason,
    }
    total = Term(
        "step",
        candidate.step_time_s.p50,
        "s",
        "sum; p90 = p50 x slower, p10 = p50 / quicker",
        spread,
        error="80 % of runs inside the interval",
        interval=candidate.step_time_s,
    )
    tokens = Term(
        "throughput",
        candidate.tokens_per_s_total.p50,
        "tokens/s",
        "tokens a step / step",
        interval=candidate.tokens_per_s_total,
    )
    mfu = Term(
        "model FLOPs utilisation", fit.step.mfu, "", "model FLOPs / what the GPUs could, recomputation free"
    )
    return Section("step", "one optimizer step", _STEP_SOURCE, tuple(terms), total, (tokens, mfu))


def _on_host(setup: TrainingSetup) -> dict[str, Value]:
    return {} if setup.offload == "none" else {"on the host": setup.offload}


def _machine(priced: Priced) -> dict[str, dict[str, Value]]:
    """Inputs of the step's terms."""
    setup = priced.solved.fit.setup
    total = parameter_counts(setup.arch, setup.task, setup.labels).total
    cluster = offered_cluster(priced.offer, priced.nodes, total)
    if cluster is None:  # a fit without facts does not exist
        return {}
    gpu = cluster.gpu
    tokens = setup.micro_batch * (setup.row_tokens or float(setup.sequence_tokens))
    rate: dict[str, Value] = {
        "attainable TFLOP/s": matmul_rate(setup, gpu) / 1e12,
        "from": gpu.attainable_source,
    }
    width: dict[str, Value] = {"GB/s": gpu.memory_bytes_per_s / 1e9, "from": gpu.source}
    ranks = setup.parallelism.gpus_total
    network = offered_network(priced.offer, priced.nodes)
    between: dict[str, Value] = {} if ranks == 1 else {"link GB/s": group_bytes_per_s(cluster, ranks) / 1e9}
    if network is not None:
        between |= {"network Gbit/s": network.gbit_per_s, "from": network.source}
    return {
        "matmul": {"tokens a micro-batch": tokens, "micro-batches": setup.grad_accum, **rate},
        "attention": {
            "kernel": setup.attention,
            "checkpointing": "on" if setup.gradient_checkpointing else "off",
            **({} if setup.attended_tokens is None else {"samples of": setup.attended_tokens}),
        },
        "elementwise": width,
        "launch": {"us a launch": gpu.launch_s * 1e6},
        "collectives": {
            "parallelism": setup.parallelism.kind,
            "ranks": ranks,
            **between,
        },
        "optimizer": {"optimizer": setup.optimizer, **_on_host(setup)},
        "offload": {"GB/s of one GPU": pinned_bytes_per_s(cluster) / 1e9, **_on_host(setup)},
    }
