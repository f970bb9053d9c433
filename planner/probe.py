"""A probe: a few real steps of a spec, to be measured and thrown away. Pure."""

from __future__ import annotations

from typing import Any

from planner.answer import Answer
from planner.calibration_ledger import PROBE_LABEL
from planner.candidate_document import quantiles_document, usd_quantiles_document
from planner.candidates import Candidate
from planner.errors import NothingFitsError
from planner.money import usd_text_of_micro
from planner.plan import Plan
from planner.run_document import progress_of
from planner.runs import Run
from planner.spec import FineTuneSpec

#: Held-out rows that a probe evaluates: enough to time it, few enough not to wait for it.
_EVALUATED = 32
_LONGEST_NAME = 57
_WHY = "`plan estimate SPEC` shows why"


def probe_spec(spec: FineTuneSpec, steps: int, *, rented: bool = False) -> FineTuneSpec:
    """The same job cut to some steps: same model, data, rows and batch, one checkpoint, no output, no goal.

    What decides memory and the time of a step is left alone, so that the probe counts as the same job.

    Args:
        spec: The job.
        steps: Optimizer steps.
        rented: It runs elsewhere and reports through the spec's store; here it needs none.
    """
    every = {"every": f"{steps + 1} steps", "keep": 1}
    evaluate = spec.evaluate.model_copy(
        update={"samples": min(spec.evaluate.samples or _EVALUATED, _EVALUATED), "every": None}
    )
    return spec.model_copy(
        update={
            "name": f"{spec.name[:_LONGEST_NAME].rstrip('-')}-probe",
            "labels": {**spec.labels, PROBE_LABEL: spec.name},
            "train": spec.train.model_copy(update={"steps": steps, "epochs": None}),
            "evaluate": evaluate,
            "goal": type(spec.goal)(budget=spec.goal.budget, objective=spec.goal.objective),
            "checkpoints": spec.checkpoints.model_copy(update=every if rented else {**every, "uri": None}),
            "output": type(spec.output)(),
        }
    )


def probe_order(whole: Plan, probe: Plan) -> Plan:
    """The probe's plan cut to machines on which it measures the whole job: the same shape, the same micro-batch.

    First comes the very offer that the whole job would take; the others follow in the plan's order, for when it cannot
    be had.

    Args:
        whole: Plan of the job, with a recommended candidate.
        probe: Plan of its probe.

    Raises:
        NothingFitsError: No such machine is in the probe's plan.
    """
    if whole.recommended is None:
        raise NothingFitsError("the job does not fit on any machine that is allowed", hint=_WHY)
    chosen = whole.candidate(whole.recommended)
    alike = [row for row in probe.candidates if _shape(row) == _shape(chosen)]
    if not alike:
        raise NothingFitsError(f"no machine like {chosen.candidate_id} may run the probe", hint=_WHY)
    alike.sort(key=lambda row: row.offer != chosen.offer)  # stable: the rest stays in order
    return probe._replace(candidates=tuple(alike), recommended=alike[0].candidate_id)


def _shape(row: Candidate) -> tuple[object, ...]:
    offer = row.offer
    machine = (offer.gpu, offer.gpus_per_node, row.nodes)
    return *machine, row.micro_batch, row.grad_accum, row.gradient_checkpointing, row.parallelism


def probe_document(run: Run, steps: int, before: Answer, after: Answer) -> dict[str, Any]:
    """The `tuneplan/probe` document below its common first keys."""
    progress = progress_of(run)
    times = None if progress is None else progress.step_time_s
    rate = None if progress is None else progress.tokens_per_s_total
    peak = None if progress is None else progress.peak_memory_gib
    return {
        "run_id": run.run_id,
        "infra": run.terms.infra,
        "steps": steps,
        "cost_usd": None if run.cost_micro_usd is None else usd_text_of_micro(run.cost_micro_usd),
        "measured": {
            "step_time_s": None if times is None else {"p10": times.p10, "p50": times.p50, "p90": times.p90},
            "tokens_per_s_total": rate,
            "memory_reserved_gib": None if peak is None else peak.reserved,
            "stage_seconds": {} if progress is None else dict(progress.stage_seconds),
        },
        "before": _promise(before),
        "after": _promise(after),
    }


def _promise(answer: Answer) -> dict[str, Any] | None:
    best = answer.estimate.recommended
    if best is None:
        return None
    return {
        "candidate_id": best.candidate_id,
        "step_time_s": quantiles_document(best.step_time_s),
        "tokens_per_s_total": quantiles_document(best.tokens_per_s_total),
        "wall_clock_h": quantiles_document(best.wall_clock_h),
        "memory_reserved_gib": best.memory.reserved_gib,
        "cost_usd": usd_quantiles_document(best.cost_usd),
    }
