"""Runs as the JSON that outside tools rely on: RUN of the JSON interface, and the answer of `plan launch`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobs.progress import PeakMemory, Progress
from planner.costs import cost_now
from planner.money import usd_text_of_micro
from planner.runs import Attempt, Run, RunEvent, utc_text

if TYPE_CHECKING:
    from planner.avoidance import Avoided


#: Kinds of events that a person should know of while the run is not over.
TROUBLE = ("cap_warning", "deadline", "move_refused", "moved_badly", "not_released")


def progress_of(run: Run) -> Progress | None:
    """What the worker last said."""
    return None if run.progress_json is None else Progress.from_json(run.progress_json)


def has_regressed(run: Run) -> bool:
    """Whether it was trained to its end, but is worse on the general hold-out than its guard allows."""
    progress = progress_of(run)
    return run.state == "failed" and progress is not None and progress.state == "regressed"


def run_document(
    run: Run,
    *,
    now: datetime,
    pids: tuple[int, ...] = (),
    attempts: bool = True,
    avoided: Sequence[Avoided] = (),
) -> dict[str, Any]:
    """RUN of the JSON interface.

    Args:
        run: As the ledger has it.
        now: UTC.
        pids: Local processes that live, worker first.
        attempts: Leave them out in lists.
        avoided: Places that are tried last; told with the attempts only.
    """
    progress = progress_of(run) or Progress(run.run_id, 0)
    terms, cost = run.terms, cost_now(run, utc_text(now))
    document: dict[str, Any] = {
        "run_id": run.run_id,
        "name": terms.name,
        "project": terms.project,
        "owner": terms.owner,
        "labels": terms.labels,
        "infra": terms.infra,
        "created_at": run.created_at,
        "state": run.state,
        "state_reason": run.state_reason,
        "state_since_at": run.state_since_at,
        "next_try_at": run.next_try_at,
        "step": progress.step,
        "max_steps": progress.max_steps,
        "loss": progress.loss,
        "tokens_per_s_total": progress.tokens_per_s_total,
        "peak_memory_gib_per_gpu": _memory(progress.peak_memory_gib),
        "eta_at": eta_at(run, progress),
        "cost_usd": micro_text(run.cost_micro_usd),
        "cap_usd": micro_text(terms.cap_micro_usd),
        "cost_is_final": run.final,
        "cost_is_current": cost is None or cost.is_current,
        "cost_as_of_at": None if cost is None else cost.as_of_at,
        "cost_at_most_usd": micro_text(run.cost_micro_usd if cost is None else cost.at_most_micro_usd),
        "recoveries": len(run.attempts) - 1,
        "last_checkpoint": _checkpoint(progress),
        "heartbeat_at": progress.heartbeat_at,
        "observed_at": run.observed_at,
        "worker_exit_code": run.current.exit_code,
        "pids": list(pids),
    }
    if attempts:
        document["attempts"] = [attempt_document(attempt) for attempt in run.attempts]
        document["avoided"] = [_avoided_document(row) for row in avoided]
    return document


def _avoided_document(row: Avoided) -> dict[str, str]:
    return {
        "place": row.place.text(),
        "until_at": utc_text(row.until),
        "reason": row.reason,
        "basis": row.basis,
    }


def attempt_document(attempt: Attempt) -> dict[str, Any]:
    """One attempt."""
    return {
        "attempt": attempt.attempt,
        "offer": json.loads(attempt.offer_json),
        "backend_id": attempt.backend_id,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "outcome": attempt.outcome,
        "first_step": attempt.first_step,
        "last_step": attempt.last_step,
        "exit_code": attempt.exit_code,
        "cost_usd": micro_text(attempt.cost_micro_usd),
    }


def launch_document(run: Run, *, created: bool) -> dict[str, Any]:
    """The answer of `plan launch`."""
    terms = run.terms
    candidate = json.loads(terms.candidate_json)
    return {
        "run_id": run.run_id,
        "created": created,
        "state": run.state,
        "infra": terms.infra,
        "plan_hash": terms.plan_hash,
        "candidate_id": terms.candidate_id,
        "offer": json.loads(run.current.offer_json),
        "cap_usd": micro_text(terms.cap_micro_usd),
        "max_duration_h": None if terms.max_duration_s is None else terms.max_duration_s / 3600,
        "estimate": {"cost_usd": candidate["cost_usd"], "wall_clock_h": candidate["wall_clock_h"]},
        "checkpoint_uri": terms.checkpoint_uri,
        "dry_run": False,
        "backend_document": None,
        "blockers": [],
        "warnings": [],
    }


def warnings_of(run: Run, events: Sequence[RunEvent]) -> list[RunEvent]:
    """What a person should know of a run that is not over: the newest note of each kind of trouble."""
    newest = {event.kind: event for event in events if event.kind in TROUBLE}
    return [] if run.final else sorted(newest.values(), key=lambda event: event.at)


def warning_document(event: RunEvent) -> dict[str, str]:
    """One of them."""
    return {"at": event.at, "kind": event.kind, "text": event.reason}


def micro_text(micro: int | None) -> str | None:
    """Decimal string of whole micro-dollars, None stays None."""
    return None if micro is None else usd_text_of_micro(micro)


def eta_at(run: Run, progress: Progress) -> str | None:
    """When training should be done at the present speed, None unless it is training."""
    if run.state != "running" or progress.step_time_s is None or progress.max_steps is None:
        return None
    left_s = (progress.max_steps - progress.step) * progress.step_time_s.p50
    base = datetime.fromisoformat(progress.heartbeat_at or run.observed_at)
    return utc_text(base.astimezone(UTC) + timedelta(seconds=left_s))


def _memory(peak: PeakMemory) -> dict[str, float | None]:
    return {"allocated": peak.allocated, "reserved": peak.reserved, "nvml": peak.nvml}


def _checkpoint(progress: Progress) -> dict[str, Any] | None:
    last = progress.last_checkpoint
    if last is None:
        return None
    return {
        "step": last.step,
        "committed_at": last.committed_at,
        "uri": last.uri,
        "bytes": last.bytes,
        "manifest_sha256": last.manifest_sha256,
    }
