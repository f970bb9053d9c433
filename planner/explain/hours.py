"""The hours of the whole run around its steps, interruptions included."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from planner.artifacts import machine_share
from planner.candidates import Candidate
from planner.explain.terms import Section, Term, Value, corrected_by, correction_of
from planner.hazards import PRIOR_SOURCE
from planner.overheads import (
    ASSUMED_SOURCE,
    DOWNLOAD_BYTES_PER_S,
    LOAD_BYTES_PER_S,
    SAVE_BYTES_PER_S,
    TOKENISE_TOKENS_PER_S,
)
from planner.place_hazards import lean_of, place_hazards
from planner.price_age import age_text
from planner.pricing import Priced
from planner.quantiles import Quantiles
from planner.question import Question
from planner.risk import MOST_SAVING
from planner.spot_signals import LARGEST_LEAN
from planner.spot_sizes import sizes

_MIB, _GIB = 2.0**20, 2.0**30

_START_FORMULAS = {
    "boot": "from the bill's first second to a shell",
    "environment": "installing the worker's packages",
    "imports": "Python imports of torch and transformers",
    "model": "weights / download rate + weights / load rate",
}


def hours(question: Question, candidate: Candidate, priced: Priced) -> Section:
    """Billed hours from a machine's start to its release."""
    line = priced.solved.line
    terms = (
        _training(question, candidate),
        *_overheads(question, priced),
        _checkpoints(priced),
        Term("rework", line.rework_h, "h", "median losses x half a checkpoint interval", source=PRIOR_SOURCE),
        Term("reprovision", line.reprovision_h, "h", "median losses x a new start", source=PRIOR_SOURCE),
    )
    total = Term("billed", candidate.wall_clock_h.p50, "h", "sum", interval=candidate.wall_clock_h)
    gpus: dict[str, Value] = {"GPUs": candidate.gpus_total}
    spread = candidate.gpu_hours
    gpu_hours = Term("GPU-hours", spread.p50, "h", "billed x GPUs", gpus, interval=spread)
    return Section("hours", "hours", ASSUMED_SOURCE, terms, total, (gpu_hours,))


def _training(question: Question, candidate: Candidate) -> Term:
    steps, step = question.job.full_steps, candidate.step_time_s
    inputs: dict[str, Value] = {"full steps": steps, "step": step.p50}
    spread = step.scaled(steps / 3600)
    formula, source = "full steps x step / 3600", "the step above"
    return Term("training", spread.p50, "h", formula, inputs, source=source, interval=spread)


def _overheads(question: Question, priced: Priced) -> Iterator[Term]:
    around, weights = priced.solved.around, question.stored_bytes
    rates: dict[str, Value] = {
        "weights GiB": weights / _GIB,
        "download MiB/s": DOWNLOAD_BYTES_PER_S / _MIB,
        "load MiB/s": LOAD_BYTES_PER_S / _MIB,
    }
    for name, seconds in around.start_parts_s.items():
        inputs = rates if name == "model" else {}
        yield _part(priced, "start", f"start: {name}", seconds, _START_FORMULAS[name], inputs)
    rows: tuple[tuple[str, Quantiles, str, dict[str, Value]], ...] = (
        ("prepare", around.prepare_s, "tokens / tokenising rate", {"tokens/s": TOKENISE_TOKENS_PER_S}),
        (
            "evaluate",
            around.evaluate_s,
            "2/3 of a step's time for each row",
            {"rows": question.job.eval_rows},
        ),
        (
            "finish",
            around.finish_s,
            "result / write and upload rates",
            {"write MiB/s": SAVE_BYTES_PER_S / _MIB},
        ),
        ("idle", around.idle_s, "between the job's end and the machine's release", {}),
    )
    for name, seconds, formula, given in rows:
        yield _part(priced, name, name, seconds, formula, given)


def _part(
    priced: Priced, quantity: str, name: str, seconds: Quantiles, formula: str, inputs: Mapping[str, Value]
) -> Term:
    spread, learned = seconds.scaled(1 / 3600), correction_of(priced, quantity)
    if learned.runs:
        formula, inputs = f"{formula}, corrected", {**inputs, "factor": learned.factor}
    return Term(name, spread.p50, "h", formula, inputs, source=corrected_by(learned), interval=spread)


def _checkpoints(priced: Priced) -> Term:
    lost = priced.solved.line.interruptions
    share = machine_share(priced.solved.fit.setup, priced.nodes)
    inputs: dict[str, Value] = {
        "save s": priced.solved.around.save_s,
        "interval s": lost.checkpoint_interval_s,
        "GiB": priced.solved.checkpoint_bytes / _GIB,
        **({"share of a machine": share} if share < 1 else {}),
    }
    return Term("checkpoints", lost.checkpoint_h, "h", "training x save / interval", inputs)


def interruptions(question: Question, priced: Priced) -> Section:
    """How often a spot machine is expected to be lost, and what follows."""
    lost = priced.solved.line.interruptions
    on_spot = priced.offer.market == "spot"
    source = _source(question, priced) if on_spot else "market"
    error = "a factor of two on another zone" if on_spot else "other failures are not counted"
    inputs: dict[str, Value] = {"market": priced.offer.market, "machines": priced.nodes}
    terms = (
        Term(
            "interruptions an hour",
            lost.per_h.p50,
            "1/h",
            "by kind of zone, falling with the age of the spell" if on_spot else "none off the spot market",
            inputs,
            error=error,
            interval=lost.per_h,
        ),
        Term(
            "expected interruptions",
            lost.expected,
            "",
            "renewal equation of spells; the mean, its interval beside it",
            interval=lost.count,
        ),
        Term(
            "checkpoint interval",
            lost.checkpoint_interval_s,
            "s",
            "sqrt(2 x save time / rate), at most 30 min, or save time / saving share if that is longer (Young 1974)",
            {"save s": priced.solved.around.save_s, "saving share": MOST_SAVING},
        ),
        Term("expected rework and restarts", lost.billed_mean_h, "h", "mean, which ranks the candidates"),
        Term(
            "waiting for a machine",
            lost.wait_h.p50,
            "h",
            "until the same zone has one again, not billed",
            interval=lost.wait_h,
        ),
    )
    notes = tuple(_leanings(question, priced)) if on_spot else ()
    return Section("interruptions", "interruptions", source, terms, notes=notes)


def _leanings(question: Question, priced: Priced) -> Iterator[Term]:
    """What the size of the machines and the cloud's signals make of the prior's rate, before any own run."""
    offer, known = priced.offer, sizes()
    doubt = math.exp(abs(math.log(max(offer.gpus_per_node, 1) / known.gpus_reference)) * known.gpus_sd)
    yield Term(
        "size of machines and group",
        known.factor(priced.nodes, offer.gpus_per_node),
        "x",
        "on the rate at an age: (GPUs / GPUs on record)^a x machines^b, up to 8 GPUs and 16 machines",
        {"GPUs": offer.gpus_per_node, "GPUs on record": known.gpus_reference, "a": known.gpus, "machines": priced.nodes,
         "b": known.machines},
        source="the same zones on public record: see spot_sizes.py",
        error=f"a factor of {doubt:.1f}, of few campaigns",
    )  # fmt: skip
    lean = lean_of(question, offer, priced.nodes)
    for part in lean.parts:
        age = age_text(part.said.as_of_at, question.goal.now)
        yield Term(
            part.said.kind.replace("_", " "),
            part.factor,
            "x",
            "on the rate at an age; its order alone, shrunk, as the relation is weak",
            {"says": part.said.value, "unit": part.said.unit, "age": age},
            source=part.said.source,
            error="over eight tenths of the variance of places stay open: see spot_signals.py",
        )
    if not lean.parts:
        yield Term(
            "signals of the cloud",
            None,
            "x",
            "none is known of this machine: the prior stays (`plan prices refresh`, `plan find`)",
        )
    elif len(lean.parts) > 1:
        yield Term(
            "signals together", lean.factor, "x", f"their product, at most {LARGEST_LEAN:g} either way"
        )


def _source(question: Question, priced: Priced) -> str:
    return place_hazards(question, priced.offer, priced.nodes).source  # signals have terms of their own
