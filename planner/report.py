"""What was promised and what came: one run's estimate against its actual time, memory and money."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from jobs.committed import read_head, read_manifest
from jobs.history import FILE_NAME as HISTORY
from jobs.history import History
from jobs.manifest import BLOBS
from jobs.progress import Progress
from jobs.spec import JobSpec
from planner.candidate_document import candidate_from_document, quantiles_document, usd_quantiles_document
from planner.candidates import Candidate
from planner.money import usd_text
from planner.monitor import lost_steps
from planner.on_demand import on_demand_cost_usd
from planner.quantiles import Quantiles
from planner.run_document import has_regressed, micro_text, progress_of
from planner.runs import Run, seconds_between
from providers.offers import Offer
from providers.stores import open_store

_MEMORY = ("allocated", "reserved", "nvml")


def read_history(run: Run) -> History | None:
    """Losses and evaluations up to the newest checkpoint, or of the finished model; None before the first.

    Raises:
        StorageError: The run's store cannot be read, or what lies there is damaged.
    """
    store = open_store(run.terms.checkpoint_uri)
    head = read_head(store)
    pointer = None if head is None else head.output or head.newest
    if pointer is None:
        return None
    files = {one.path: one.sha256 for one in read_manifest(store, pointer).files}
    body = store.get(BLOBS + files[HISTORY]) if HISTORY in files else None
    return None if body is None else History.parse(body[0])


def report_document(
    run: Run,
    history: History | None = None,
    *,
    offers: Iterable[Offer] = (),
    paid_ahead_usd: str | None = None,
) -> dict[str, Any]:
    """The `tuneplan/report` document below its common first keys.

    Actual hours, GPU-hours and cost are known once the run has succeeded; speed and memory are of its last attempt.

    Args:
        run: The run.
        history: Its losses and evaluations.
        offers: Prices by which to say what it would have cost on demand.
        paid_ahead_usd: What was paid for capacity that was reserved for it.
    """
    progress = progress_of(run) or Progress(run.run_id, 0)
    candidate = candidate_from_document(json.loads(run.terms.candidate_json))
    output_uri = None if has_regressed(run) else JobSpec.from_json(run.terms.job_json).output.uri
    actual = _actual(run, candidate, progress)
    lost = lost_steps(run)
    on_demand = on_demand_cost_usd(run, lost, progress, offers)
    return {
        "run_id": run.run_id,
        "state": run.state,
        "comparison": [_compare(name, value, actual[name]) for name, value in _predicted(candidate).items()],
        "metrics": [asdict(metric) for metric in progress.metrics],
        "guard": None if progress.guard is None else asdict(progress.guard),
        "history": None if history is None else _curves(history),
        "output_step": progress.output_step,
        "stage_seconds": dict(progress.stage_seconds),
        "lost_steps": lost,
        "recoveries": len(run.attempts) - 1,
        "cost_usd": micro_text(run.cost_micro_usd),
        "paid_ahead_usd": paid_ahead_usd,
        "on_demand_cost_usd": None if on_demand is None else usd_text(on_demand),
        "artifact_uri": output_uri or run.terms.checkpoint_uri,
        "artifact_manifest_sha256": progress.output_manifest_sha256,
    }


def _curves(history: History) -> dict[str, Any]:
    return {
        "losses": [asdict(one) for one in history.losses],
        "evaluations": [asdict(one) for one in history.evaluations],
    }


def wall_clock_s(run: Run) -> float:
    """Seconds from machine start to release, summed over the attempts that have ended."""
    return sum(
        seconds_between(attempt.started_at, attempt.ended_at)
        for attempt in run.attempts
        if attempt.started_at is not None and attempt.ended_at is not None
    )


def _predicted(candidate: Candidate) -> dict[str, Quantiles]:
    memory = candidate.memory
    spread = memory.upper_gib / memory.nvml_gib if memory.nvml_gib > 0 else 1.0
    values = {"allocated": memory.allocated_gib, "reserved": memory.reserved_gib, "nvml": memory.nvml_gib}
    return {
        "step_time_s": candidate.step_time_s,
        "tokens_per_s_total": candidate.tokens_per_s_total,
        "wall_clock_h": candidate.wall_clock_h,
        "gpu_hours": candidate.gpu_hours,
        "cost_usd": candidate.cost_usd,
        # the estimate gives one upper bound: the same factor downwards makes an interval of it
        **{
            f"memory_{name}_gib": Quantiles(value / spread, value, value * spread)
            for name, value in values.items()
        },
    }


def _actual(run: Run, candidate: Candidate, progress: Progress) -> Mapping[str, float | None]:
    done = run.state == "succeeded"
    hours = wall_clock_s(run) / 3600 if done else None
    cost = run.cost_micro_usd
    peak = asdict(progress.peak_memory_gib)
    return {
        "step_time_s": None if progress.step_time_s is None else progress.step_time_s.p50,
        "tokens_per_s_total": _tokens_per_s(progress),
        "wall_clock_h": hours,
        "gpu_hours": None if hours is None else hours * candidate.gpus_total,
        "cost_usd": cost / 1e6 if done and cost is not None else None,
        **{f"memory_{name}_gib": peak[name] for name in _MEMORY},
    }


def _tokens_per_s(progress: Progress) -> float | None:
    """Real tokens a second over the last attempt's training, None if it did not train."""
    seconds = progress.stage_seconds.get("train", 0.0)
    return progress.tokens_trained / seconds if seconds > 0 and progress.tokens_trained else None


def _compare(quantity: str, predicted: Quantiles, actual: float | None) -> dict[str, Any]:
    money = quantity == "cost_usd"
    shown = usd_text(actual) if money else actual
    return {
        "quantity": quantity,
        "predicted": usd_quantiles_document(predicted) if money else quantiles_document(predicted),
        "actual": shown,
        "error": predicted.p50 / actual - 1 if actual else None,
        "inside_interval": None if actual is None else predicted.p10 <= actual <= predicted.p90,
    }
