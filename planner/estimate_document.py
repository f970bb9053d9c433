"""The estimate as the JSON that outside tools rely on (`tuneplan/estimate`)."""

from __future__ import annotations

from typing import Any

from planner.candidate_document import candidate_document, usd_quantiles_document
from planner.estimate import Estimate, Rejection
from planner.money import usd_text
from planner.offer_document import offer_document
from planner.ranking import SURE_ENOUGH
from planner.relax import NearestFit


def estimate_document(
    estimate: Estimate,
    *,
    model_id: str,
    spec_hash: str,
    plan_hash: str,
    nearest: tuple[NearestFit, ...] = (),
) -> dict[str, Any]:
    """Everything below the common first keys of a `tuneplan/estimate` document."""
    question = estimate.question
    recommended = estimate.recommended
    published = question.publication
    return {
        "spec_hash": spec_hash,
        "plan_hash": plan_hash,
        "prices": _prices(estimate),
        "model": {
            "id": model_id,
            "counted_as": question.arch.id,
            "revision": question.arch.revision,
            "license": None if published is None else published.license,
            "gate": None if published is None else published.gate,
            "source": question.arch.source,
            "params_total": question.counts.total,
            "params_active": question.counts.active,
            "params_trainable": question.trainable,
        },
        "workload": _workload(estimate),
        "goal": _goal(estimate),
        "recommended": None if recommended is None else recommended.candidate_id,
        "candidates": [candidate_document(candidate) for candidate in estimate.candidates],
        "candidates_total": estimate.candidates_total,
        "rejected": [_rejection(row) for row in estimate.rejected],
        "nearest_fits": [_nearest(row) for row in nearest],
        "assumptions": [row._asdict() for row in estimate.assumptions],
        "warnings": [{"code": code, "message": message} for code, message in estimate.warnings],
    }


def _prices(estimate: Estimate) -> dict[str, Any]:
    oldest, newest = estimate.as_of_at
    return {
        "snapshot_id": estimate.snapshot_id,
        "oldest_as_of_at": oldest,
        "newest_as_of_at": newest,
        "live": estimate.live,
        "coverage": [
            {"cloud": cover.cloud, "rows": cover.rows, "complete": cover.complete}
            for cover in estimate.coverage
        ],
    }


def _workload(estimate: Estimate) -> dict[str, Any]:
    job = estimate.question.job
    return {
        "tokens_total": round(job.tokens_total),
        "tokens_per_step": round(job.tokens_per_step),
        "steps": job.steps,
        "flops_total": estimate.question.flops_total,
    }


def _goal(estimate: Estimate) -> dict[str, Any]:
    goal = estimate.question.goal
    return {
        "objective": goal.objective,
        "deadline_at": None if goal.deadline is None else goal.deadline.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "budget_usd": usd_text(goal.budget_usd),
        "met": goal_met(estimate),
    }


def goal_met(estimate: Estimate) -> bool | None:
    """Whether the recommended candidate keeps deadline and budget; None if neither is set."""
    goal, best = estimate.question.goal, estimate.recommended
    if goal.deadline is None and goal.budget_usd is None:
        return None
    if best is None:
        return False
    in_budget = goal.budget_usd is None or best.cost_usd.p50 <= goal.budget_usd
    in_time = best.p_finish_by_deadline is None or best.p_finish_by_deadline >= SURE_ENOUGH
    return in_budget and in_time


def _rejection(row: Rejection) -> dict[str, Any]:
    return {
        "reason_code": row.reason_code,
        "reason": row.reason,
        "count": row.count,
        "example_offer": offer_document(row.example_offer),
    }


def _nearest(row: NearestFit) -> dict[str, Any]:
    return {
        "set": row.changes,
        "verdict": row.verdict,
        "cost_usd": None if row.cost_usd is None else usd_quantiles_document(row.cost_usd),
    }
