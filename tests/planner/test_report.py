"""The report: what was promised against what came."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from jobs.history import Evaluation, History, Loss
from jobs.progress import MetricResult, PeakMemory, Progress, StepTimes
from planner.cli.report_page import render_page
from planner.cli.report_text import render_report
from planner.offer_document import offer_document
from planner.report import report_document, wall_clock_s
from providers.offers import Offer
from tests.planner.run_factories import attempt_of, run_of


def finished(state: Any = "succeeded", **said: Any) -> Any:
    progress = Progress(
        "run-1",
        2,
        state="done",
        step_time_s=StepTimes(0.9, 1.25, 1.5),
        tokens_trained=9000,
        stage_seconds={"train": 60.0},
        peak_memory_gib=PeakMemory(1.25, 1.5, None),
        metrics=(MetricResult("exact_match", "eval", 200, 0.01, 0.985, True),),
        output_manifest_sha256="ab" * 32,
        **said,
    )
    attempts = (
        attempt_of(
            1,
            started_at="2026-01-01T00:00:00Z",
            ended_at="2026-01-01T00:30:00Z",
            first_step=0,
            last_step=50,
            cost_micro_usd=500_000,
            outcome="preempted",
        ),
        attempt_of(
            2,
            started_at="2026-01-01T01:00:00Z",
            ended_at="2026-01-01T02:00:00Z",
            first_step=40,
            last_step=100,
            cost_micro_usd=1_000_000,
            outcome="done",
        ),
    )
    return run_of(state, *attempts, progress_json=progress.to_json())


def by_quantity(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["quantity"]: row for row in document["comparison"]}


def test_actual_values_are_measured_against_the_interval() -> None:
    document = report_document(finished())
    rows = by_quantity(document)
    assert len(rows) == 8
    assert rows["step_time_s"]["actual"] == 1.25
    assert rows["step_time_s"]["error"] == pytest.approx(1.0 / 1.25 - 1)
    assert rows["tokens_per_s_total"]["actual"] == pytest.approx(150.0)
    assert rows["wall_clock_h"]["actual"] == pytest.approx(1.5)
    assert rows["gpu_hours"]["actual"] == pytest.approx(1.5)
    assert rows["cost_usd"] == {
        "quantity": "cost_usd",
        "predicted": {"p10": "0.5", "p50": "1", "p90": "2"},
        "actual": "1.5",
        "error": pytest.approx(1 / 1.5 - 1),
        "inside_interval": True,
    }
    assert rows["memory_nvml_gib"]["actual"] is None
    assert rows["memory_nvml_gib"]["inside_interval"] is None
    assert rows["memory_reserved_gib"]["inside_interval"] is True
    assert (document["lost_steps"], document["recoveries"], document["cost_usd"]) == (10, 1, "1.5")
    assert document["artifact_manifest_sha256"] == "ab" * 32


def test_a_run_that_is_not_done_has_no_final_hours_or_cost() -> None:
    rows = by_quantity(report_document(finished("preempted")))
    assert rows["wall_clock_h"]["actual"] is rows["cost_usd"]["actual"] is rows["gpu_hours"]["actual"] is None
    assert rows["step_time_s"]["actual"] == 1.25


def test_a_run_that_said_nothing_has_no_actual_at_all() -> None:
    document = report_document(run_of("queued", attempt_of()))
    assert all(row["actual"] is row["error"] is None for row in document["comparison"])
    assert document["metrics"] == []


def test_a_model_that_its_guard_rejected_is_where_its_checkpoints_are() -> None:
    run = finished("failed")
    terms = run.terms
    job = json.loads(terms.job_json) | {"output": {"uri": "file:///served"}}
    run = replace(run, terms=replace(terms, job_json=json.dumps(job)))
    assert report_document(run)["artifact_uri"] == "file:///served"
    progress = json.loads(run.progress_json) | {"state": "regressed"}
    rejected = replace(run, progress_json=json.dumps(progress))
    assert report_document(rejected)["artifact_uri"] == terms.checkpoint_uri


def test_time_between_attempts_is_not_billed() -> None:
    assert wall_clock_s(finished()) == 5400.0


def test_the_text_names_what_was_not_measured() -> None:
    text = render_report(report_document(finished()))
    assert "not measured here: GiB seen by NVML" in text
    assert "exact_match" in text and "0.985" in text
    assert "steps computed twice 10" in text
    assert "metrics yet" in render_report(report_document(run_of("queued", attempt_of())))


def spot(price: float, market: Any = "spot") -> Offer:
    return Offer("aws", "r-1", "z", "g5", "A10G", 1, 24.0, 8.0, 32.0, market, price, "test", None)


def on_spot(run: Any) -> Any:
    offer_json = json.dumps(offer_document(spot(1.0)))
    return replace(run, attempts=tuple(replace(row, offer_json=offer_json) for row in run.attempts))


def test_the_same_machine_on_demand_costs_the_hours_without_what_was_done_twice() -> None:
    elsewhere = spot(0.1, "on_demand")._replace(region="r-2")
    offers = (spot(2.0), elsewhere, spot(4.0, "on_demand"), spot(3.6, "on_demand")._replace(zone=None))
    document = report_document(on_spot(finished()), offers=offers)
    undisturbed_s = 5400 - 10 * 1.25  # ten steps twice; its start-up was not measured
    assert float(document["on_demand_cost_usd"]) == pytest.approx(3.6 * undisturbed_s / 3600)
    assert document["paid_ahead_usd"] is None
    text = render_report(document)
    assert (
        f"cost        $1.5; on demand about ${document['on_demand_cost_usd']} at today's prices: $3.89 saved"
        in text
    )


def test_what_was_paid_ahead_is_what_the_savings_are_reckoned_from() -> None:
    offers = (spot(3.6, "on_demand"),)
    text = render_report(report_document(on_spot(finished()), offers=offers, paid_ahead_usd="6"))
    assert (
        "cost        $1.5, of $6 paid ahead for reserved capacity" in text and "$0.61 more than that" in text
    )


def test_without_a_price_nothing_is_said_of_on_demand() -> None:
    document = report_document(on_spot(finished()), offers=(spot(2.0),))
    assert document["on_demand_cost_usd"] is None
    assert "cost        $1.5\n" in render_report(document)


HOSTILE = "<script>alert(1)</script>"


def test_a_page_holds_it_all_and_fetches_nothing() -> None:
    losses = tuple(Loss(step, 2.0 / step) for step in (10, 20, 30))
    history = History(losses, (Evaluation(30, 200, {"exact_match": 0.985}),))
    run = replace(finished(), state_reason=HOSTILE)
    page = render_page(report_document(run, history), run, made_at="2026-01-01T00:00:00Z")
    for text in ("exact_match", "0.985", "1.25", "estimate p50", "preempted", "$0.5", "$1.5", "ab" * 32):
        assert text in page
    assert HOSTILE not in page and "&lt;script&gt;" in page
    assert "<svg" in page and "training loss" in page
    assert not re.search(r"(src|href)=[\"'](?!#)", page)
    assert "<script" not in page and "@import" not in page


def test_large_values_are_written_alike() -> None:
    document = report_document(finished())
    values = {"base": 1264123456.7, "tuned": 307241707.2}
    document["metrics"] = [
        {"name": "perplexity", "split": "eval", "n": 4, "higher_is_better": False, **values}
    ]
    for told in (render_report(document), render_page(document, finished(), made_at="now")):
        assert "1,264,123,457" in told and "307,241,707" in told
        assert "e+" not in told
    lines = render_report(document).splitlines()
    heading, row = (next(line for line in lines if word in line) for word in ("better is", "perplexity"))
    assert heading.index("better") == row.index("lower")


def test_a_page_of_a_run_that_has_said_nothing_yet() -> None:
    run = run_of("provisioning")
    page = render_page(report_document(run), run, made_at="2026-01-01T00:00:00Z")
    for text in ("No metrics yet", "Nothing was timed yet", "not committed yet", "?-?"):
        assert text in page
    assert "<svg" not in page and "None" not in page
