"""Runs, terms and attempts for tests of the ledger and the monitor."""

from __future__ import annotations

import json
from typing import Any

from jobs.spec import CheckpointsJob, DataJob, JobSpec, ModelJob
from planner.candidate_document import candidate_document
from planner.candidates import Candidate, CandidateMemory
from planner.quantiles import Quantiles
from planner.runs import Attempt, Run, RunState, RunTerms
from planner.setup import Parallelism
from providers.offers import Offer

START = "2026-11-22T12:00:00.000Z"


def local_offer(price: float | None = 1.0) -> Offer:
    """This machine, at a price."""
    return Offer("local", "local", None, None, "CPU", 1, 16.0, 2.0, 16.0, "local", price, "test", None)


def candidate_of(price: float | None = 1.0) -> Candidate:
    """A local candidate of one hour (half an hour to two)."""
    hours = Quantiles(0.5, 1.0, 2.0)
    return Candidate(
        candidate_id="c-1",
        rank=1,
        pareto=True,
        offer=local_offer(price),
        nodes=1,
        parallelism=Parallelism(),
        micro_batch=4,
        grad_accum=2,
        gradient_checkpointing=False,
        verdict="fits",
        memory=CandidateMemory(1.0, 1.5, 2.0, 3.0, 16.0, {"weights": 1.0}),
        host_ram_gib=4.0,
        disk_gib=1.0,
        step_time_s=Quantiles(0.5, 1.0, 2.0),
        tokens_per_s_total=Quantiles(50.0, 100.0, 200.0),
        wall_clock_h=hours,
        gpu_hours=hours,
        cost_usd=hours.scaled(price or 0.0),
        cost_tree_usd=dict.fromkeys(
            ("compute", "rework", "reprovision", "storage", "requests", "egress", "controller", "idle"), 0.0
        )
        | {"compute": price or 0.0},
    )


def terms_of(**changes: Any) -> RunTerms:
    """Terms of a local run that costs 1 US dollar an hour."""
    uri = changes.get("checkpoint_uri", "file:///tmp/none")
    run_id = changes.pop("run_id", "run-1")
    job = JobSpec(run_id, "run", ModelJob("base"), DataJob("train.jsonl"), CheckpointsJob(uri, every_s=60.0))
    values: dict[str, Any] = {
        "name": "run",
        "project": "default",
        "owner": None,
        "labels": {"team": "a"},
        "infra": "local",
        "plan_hash": "sha256:" + "0" * 64,
        "candidate_id": "c-1",
        "candidate_json": json.dumps(candidate_document(candidate_of())),
        "job_json": job.to_json(),
        "checkpoint_uri": uri,
        "cap_micro_usd": None,
        "max_duration_s": None,
        "env": {"A": "1"},
        "secrets": ("TOKEN",),
        **changes,
    }
    return RunTerms(**values)


def attempt_of(number: int = 1, **changes: Any) -> Attempt:
    """The intent to start an attempt at 1 US dollar an hour."""
    offer = json.dumps(candidate_document(candidate_of())["offer"])
    values: dict[str, Any] = {"intent_at": START, "micro_usd_per_hour": 1_000_000, **changes}
    return Attempt(number, offer, **values)


def run_of(state: RunState = "running", *attempts: Attempt, **changes: Any) -> Run:
    """A run with one attempt that began at START, unless told otherwise."""
    own = attempts or (attempt_of(backend_id="77", started_at=START),)
    values: dict[str, Any] = {
        "run_id": "run-1",
        "terms": terms_of(),
        "created_at": START,
        "state": state,
        "state_reason": "",
        "state_since_at": START,
        "next_try_at": None,
        "observed_at": START,
        "revision": 1,
        "progress_json": None,
        "attempts": own,
        **changes,
    }
    return Run(**values)
