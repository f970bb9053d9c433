"""Seconds of a step, and the hours of the whole run around them."""

from __future__ import annotations

from planner.candidates import Candidate
from planner.explain.terms import Section, Term, Value
from planner.overheads import (
    ASSUMED_SOURCE,
    DOWNLOAD_BYTES_PER_S,
    LOAD_BYTES_PER_S,
    SAVE_BYTES_PER_S,
    TOKENISE_TOKENS_PER_S,
)
from planner.pricing import Priced, offered_gpu
from planner.quantiles import Quantiles
from planner.question import Question
from planner.risk import PRIOR_SOURCE, WAIT_AFTER_PREEMPTION_H
from planner.throughput.terms import matmul_rate

_MIB = 2.0**20
_STEP_SOURCE = "planner/throughput: roofline, fitted to published runs (ACCURACY.md)"

_FORMULAS = {
    "matmul": "FLOPs of matrix products / rate that they reach, slower where narrow or few",
    "attention": "FLOPs of scores and values / rate that they reach",
    "elementwise": "bytes of memory-bound work / memory bandwidth",
    "dequantise": "bytes read and written to unpack the base / memory bandwidth",
    "launch": "kernels x host time of a launch; overlaps with the GPU's work",
    "collectives": "bytes between GPUs / link rate; hides behind compute in part",
    "optimizer": "bytes of weights, gradients and states / memory bandwidth, once a step",
    "generation": "sampling answers inside the step",
}


def step(candidate: Candidate, priced: Priced) -> Section:
    """Parts of one optimizer step; what overlaps is taken off again."""
    fit = priced.solved.fit
    shared = _machine(priced)
    terms = [
        Term(name, seconds, "s", _FORMULAS.get(name, ""), shared.get(name, {}))
        for name, seconds in fit.step.terms_s.items()
    ]
    hidden = candidate.step_time_s.p50 - sum(fit.step.terms_s.values())
    how = "(GPU^4 + launch^4)^(1/4); the longer of compute and collectives + 0.5 x the shorter"
    terms.append(Term("overlap", hidden, "s", how))
    spread: dict[str, Value] = {"spread": fit.step.spread, "because": fit.step.spread_reason}
    total = Term(
        "step",
        candidate.step_time_s.p50,
        "s",
        "sum; p90 = p50 x spread, p10 = p50 / spread",
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


def _machine(priced: Priced) -> dict[str, dict[str, Value]]:
    """Inputs of the step's terms."""
    setup, gpu = priced.solved.fit.setup, offered_gpu(priced.offer)
    if gpu is None:  # a fit without facts does not exist
        return {}
    tokens = setup.micro_batch * (setup.row_tokens or float(setup.sequence_tokens))
    rate: dict[str, Value] = {
        "attainable TFLOP/s": matmul_rate(setup, gpu) / 1e12,
        "from": gpu.attainable_source,
    }
    width: dict[str, Value] = {"GB/s": gpu.memory_bytes_per_s / 1e9, "from": gpu.source}
    link = gpu.link_bytes_per_s
    return {
        "matmul": {"tokens a micro-batch": tokens, "micro-batches": setup.grad_accum, **rate},
        "attention": {
            "kernel": setup.attention,
            "checkpointing": "on" if setup.gradient_checkpointing else "off",
        },
        "elementwise": width,
        "launch": {"us a launch": gpu.launch_s * 1e6},
        "collectives": {
            "parallelism": setup.parallelism.kind,
            "ranks": setup.parallelism.gpus_total,
            "link GB/s": None if link is None else link / 1e9,
        },
        "optimizer": {"optimizer": setup.optimizer},
    }


def hours(question: Question, candidate: Candidate, priced: Priced) -> Section:
    """Billed hours from a machine's start to its release."""
    line, around = priced.solved.line, priced.solved.around
    training = candidate.step_time_s.scaled(question.job.steps / 3600)
    inputs: dict[str, Value] = {"steps": question.job.steps, "step": candidate.step_time_s.p50}
    terms = (
        Term(
            "training",
            training.p50,
            "h",
            "steps x step / 3600",
            inputs,
            source="the step above",
            interval=training,
        ),
        *(_start(name, value, question) for name, value in around.start_parts_s.items()),
        _hours("prepare", around.prepare_s, "tokens / tokenising rate", {"tokens/s": TOKENISE_TOKENS_PER_S}),
        _hours(
            "evaluate",
            around.evaluate_s,
            "2/3 of a step's time for each row",
            {"rows": question.job.eval_rows},
        ),
        _hours(
            "finish", around.finish_s, "result / write and upload rates", {"MiB/s": SAVE_BYTES_PER_S / _MIB}
        ),
        _checkpoints(priced),
        Term("rework", line.rework_h, "h", "interruptions x half a checkpoint interval", source=PRIOR_SOURCE),
        Term("reprovision", line.reprovision_h, "h", "interruptions x a new start", source=PRIOR_SOURCE),
        _hours("idle", around.idle_s, "between the job's end and the machine's release", {}),
    )
    total = Term("billed", candidate.wall_clock_h.p50, "h", "sum", interval=candidate.wall_clock_h)
    gpu_hours = Term(
        "GPU-hours",
        candidate.gpu_hours.p50,
        "h",
        "billed x GPUs",
        {"GPUs": candidate.gpus_total},
        interval=candidate.gpu_hours,
    )
    return Section("hours", "hours", ASSUMED_SOURCE, terms, total, (gpu_hours,))


def _hours(name: str, seconds: Quantiles, formula: str, inputs: dict[str, Value]) -> Term:
    spread = seconds.scaled(1 / 3600)
    return Term(name, spread.p50, "h", formula, inputs, interval=spread)


def _start(name: str, seconds: Quantiles, question: Question) -> Term:
    formulas = {
        "boot": "from the bill's first second to a shell",
        "environment": "installing the worker's packages",
        "imports": "Python imports of torch and transformers",
        "model": "weights / download rate + weights / load rate",
    }
    inputs: dict[str, Value] = {}
    if name == "model":
        inputs = {
            "weights GiB": 2.0 * question.counts.total / 2.0**30,
            "download MiB/s": DOWNLOAD_BYTES_PER_S / _MIB,
            "load MiB/s": LOAD_BYTES_PER_S / _MIB,
        }
    return _hours(f"start: {name}", seconds, formulas[name], inputs)


def _checkpoints(priced: Priced) -> Term:
    lost = priced.solved.line.interruptions
    inputs: dict[str, Value] = {
        "save s": priced.solved.around.save_s,
        "interval s": lost.checkpoint_interval_s,
        "GiB": priced.solved.checkpoint_bytes / 2.0**30,
    }
    return Term("checkpoints", lost.checkpoint_h, "h", "training x save / interval", inputs)


def interruptions(priced: Priced) -> Section:
    """How often a spot machine is expected to be lost, and what follows."""
    lost = priced.solved.line.interruptions
    on_spot = priced.offer.market == "spot"
    error = "a factor of three on another zone" if on_spot else "other failures are not counted"
    inputs: dict[str, Value] = {"market": priced.offer.market, "machines": priced.nodes}
    terms = (
        Term(
            "interruptions an hour",
            lost.hazard_per_h.p50,
            "1/h",
            "prior x sqrt(machines)" if on_spot else "none off the spot market",
            inputs,
            error=error,
            interval=lost.hazard_per_h,
        ),
        Term(
            "expected interruptions",
            lost.count.p50,
            "",
            "training x rate / share of useful time",
            interval=lost.count,
        ),
        Term(
            "checkpoint interval",
            lost.checkpoint_interval_s,
            "s",
            "sqrt(2 x save time / rate), at most 30 min (Young 1974)",
        ),
        Term(
            "waiting for a machine",
            lost.wait_h.p50,
            "h",
            "interruptions x wait, not billed",
            {"wait h": WAIT_AFTER_PREEMPTION_H.p50},
            interval=lost.wait_h,
        ),
    )
    return Section("interruptions", "interruptions", PRIOR_SOURCE if on_spot else "market", terms)
