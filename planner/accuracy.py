"""How good the estimates of the user's own finished runs were: error and coverage by GPU and method. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from jobs.spec import JobSpec
from planner.calibration_ledger import had_its_machine, is_probe
from planner.candidate_document import basis_from_document
from planner.report import report_document
from planner.runs import Run

#: Share of actual values that an interval from p10 to p90 should hold.
EXPECTED_COVERAGE = 0.8
QUANTITIES = ("step_time_s", "wall_clock_h", "memory_reserved_gib", "cost_usd")


@dataclass(frozen=True, slots=True)
class Compared:
    """One quantity of one run.

    Attributes:
        gpu: Canonical name.
        method: As in "lora" or "lora 4bit".
        error: p50 / actual - 1.
        inside: The actual value lies between p10 and p90.
        formula_error: The same error of the formula before learning, None where that was not kept.
    """

    run_id: str
    quantity: str
    gpu: str
    method: str
    error: float
    inside: bool
    formula_error: float | None


def compared(runs: Iterable[Run]) -> Iterator[Compared]:
    """Everything that can be compared, of runs that are over, were no probes and had what they were planned for."""
    for run in runs:
        if run.final and not is_probe(run) and had_its_machine(run):
            yield from _of_run(run)


def _of_run(run: Run) -> Iterator[Compared]:
    job = JobSpec.from_json(run.terms.job_json)
    method = job.method.kind + ("" if job.quantization == "none" else f" {job.quantization}")
    gpu = json.loads(run.current.offer_json)["gpu"]
    for row in report_document(run)["comparison"]:
        if row["quantity"] in QUANTITIES and row["error"] is not None:
            formula = _formula_error(run, row)
            yield Compared(
                run.run_id, row["quantity"], gpu, method, row["error"], row["inside_interval"], formula
            )


def _formula_error(run: Run, row: dict[str, Any]) -> float | None:
    basis = basis_from_document(json.loads(run.terms.candidate_json))
    name = {"step_time_s": "step_time", "memory_reserved_gib": "memory"}.get(row["quantity"])
    if basis is None or name is None or name not in basis.priors:
        return None
    return float(basis.priors[name] / row["actual"] - 1)


def accuracy_document(runs: Iterable[Run]) -> dict[str, Any]:
    """The `tuneplan/accuracy` document below its common first keys; rows without GPU and method are of all runs."""
    found = list(compared(runs))
    kinds = sorted({(one.gpu, one.method) for one in found})
    rows = [_row(found, quantity, None, None) for quantity in QUANTITIES]
    rows += [_row(found, quantity, gpu, method) for gpu, method in kinds for quantity in QUANTITIES]
    return {
        "expected_coverage": EXPECTED_COVERAGE,
        "run_ids": list(dict.fromkeys(one.run_id for one in found)),
        "rows": [row for row in rows if row is not None],
    }


def _row(found: list[Compared], quantity: str, gpu: str | None, method: str | None) -> dict[str, Any] | None:
    chosen = [
        one
        for one in found
        if one.quantity == quantity and gpu in (None, one.gpu) and method in (None, one.method)
    ]
    if not chosen:
        return None
    formula = [abs(one.formula_error) for one in chosen if one.formula_error is not None]
    return {
        "quantity": quantity,
        "gpu": gpu,
        "method": method,
        "runs": len(chosen),
        "median_error": median(one.error for one in chosen),
        "median_abs_error": median(abs(one.error) for one in chosen),
        "largest_abs_error": max(abs(one.error) for one in chosen),
        "inside_interval": fmean(one.inside for one in chosen),
        "formula_median_abs_error": median(formula) if formula else None,
    }
