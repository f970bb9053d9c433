"""`plan find`: what can be had now of a plan's machines, in the order to try; nothing is rented."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.offer_document import offer_document, offer_from_document
from planner.places import Places
from planner.runs import utc_text
from planner.store import Store
from planner.try_book import Try, TryBook
from tests.planner.run_factories import attempt_of, terms_of
from tests.providers.advisers import Advisers, advisers

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
SPEC = f"""\
spec_version: 1
name: goat
model: {{id: {GOAT / "base"}}}
data: {{train: {GOAT / "train.jsonl"}, format: prompt_completion}}
train: {{steps: 100, sequence_length: 32}}
where: {{clouds: [lambda], gpus: [A10, H100-PCIe, A100]}}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person with a key of Lambda."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAMBDA_API_KEY", "hush")
    monkeypatch.setattr("providers.web._WAITS_S", ())
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def seller() -> Iterator[Advisers]:
    with advisers() as served:
        yield served


def answer(run_plan: RunPlan, *words: object) -> dict[str, Any]:
    result = run_plan("find", *words, "-o", "json")
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("find"))).validate(document)
    return document


def test_each_machine_has_what_the_seller_says_with_source_and_time(
    spec: Path, seller: Advisers, run_plan: RunPlan
) -> None:
    first = answer(run_plan, spec, "--offline")["machines"][0]["offer"]
    there = {"instance_type": {}, "regions_with_capacity_available": [{"name": first["region"]}]}
    seller.answers = {"/": (200, {"data": {first["instance_type"]: there}})}
    document = answer(run_plan, spec, "--limit", "3", "--url", f"lambda-capacity={seller.url}")
    assert [row["status"] for row in document["sources"]] == ["ok"]
    same = [row for row in document["machines"] if row["offer"]["instance_type"] == first["instance_type"]]
    for row in same:
        (signal,) = row["signals"]
        here = row["offer"]["region"] == first["region"]
        assert (signal["enough"], signal["source"], bool(row["against"])) == (here, "Lambda", not here)
        assert signal["as_of_at"] == document["generated_at"]
    assert document["logins"] == [
        {"cloud": "lambda", "found": ["LAMBDA_API_KEY"], "hint": document["logins"][0]["hint"]}
    ]
    text = run_plan("find", spec, "--limit", "3", "--url", f"lambda-capacity={seller.url}").stdout
    assert "can be had now [Lambda, now]" in text and "queue time       unknown: never tried" in text
    assert "hush" not in text + json.dumps(document)


def test_who_cannot_be_asked_is_unknown_and_says_what_to_do(
    spec: Path, run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAMBDA_API_KEY")
    result = run_plan("find", spec, "--limit", "2")
    assert result.exit_code == 0
    assert (
        "unknown: regions with capacity of lambda: there is no API key of Lambda here; export"
        in result.stdout
    )
    assert "no login for lambda here: put the API key in" in result.stdout
    document = answer(run_plan, spec, "--offline")
    assert (document["sources"], document["not_asked"]) == (
        [], [{"cloud": "lambda", "reason": "not asked (--offline)"}],
    )  # fmt: skip


def test_what_was_seen_here_moves_a_place_back_and_says_until_when(
    spec: Path, run_plan: RunPlan, plan_home: Path
) -> None:
    before = answer(run_plan, spec, "--offline", "--limit", "4")["machines"]
    assert all(row["avoided"] is row["seen"] is row["queue"] is None for row in before)
    offer = offer_from_document(before[0]["offer"])
    now = datetime.now(UTC)
    start, end = utc_text(now - timedelta(hours=2)), utc_text(now - timedelta(minutes=3))
    ledger = Places(plan_home / "state").ledger
    with Store(ledger) as store, TryBook(ledger) as book:
        lost = replace(
            attempt_of(started_at=start, ended_at=end, outcome="preempted"),
            offer_json=json.dumps(offer_document(offer)),
        )
        store.create("run-1", terms_of(infra="skypilot"), lost)
        book.record(Try("try-1", "herd", offer, 1, None, 600.0, "asked", "", start))
    after = answer(run_plan, spec, "--offline", "--limit", "4")
    moved = [row for row in after["machines"] if row["avoided"]]
    assert moved and moved == after["machines"][-len(moved) :]
    assert moved[0]["offer"] == before[0]["offer"]
    assert moved[0]["avoided"]["reason"] == "preempted 3 min ago"
    assert (moved[0]["seen"]["had"], moved[0]["seen"]["preemptions"]) == (1, 1)
    assert after["open_tries"] == ["try-1"]
    text = run_plan("find", spec, "--offline", "--limit", "4").stdout
    assert "until" in text and "preempted 3 min ago; half of such outages are over after" in text


def test_an_estimate_tells_the_queue_time_of_its_best_machine_if_it_was_tried(
    spec: Path, run_plan: RunPlan, plan_home: Path
) -> None:
    def estimated() -> dict[str, Any]:
        document: dict[str, Any] = json.loads(run_plan("estimate", spec, "-o", "json").stdout)
        jsonschema.Draft7Validator(json.loads(schema_text("estimate"))).validate(document)
        return document

    before = estimated()
    assert before["queue"] is None
    best = next(row for row in before["candidates"] if row["id"] == before["recommended"])
    start, had = "2026-11-25T12:00:00.000Z", "2026-11-25T12:01:40.000Z"
    one = Try("try-1", "herd", offer_from_document(best["offer"]), 1, 1, 600.0, "asked", "", start)
    with TryBook(Places(plan_home / "state").ledger) as book:
        book.record(one)
        book.update(replace(one, state="released", answered_at=had, ended_at=had, cost_micro_usd=1))
    assert estimated()["queue"] == {"tries": 1, "had": 1, "p50_s": 100.0, "p90_s": 100.0}
    assert (
        "from your own tries: p50 100 s, p90 100 s; had in 1 of 1 tries" in run_plan("estimate", spec).stdout
    )


def test_wrong_words_are_one_error(spec: Path, run_plan: RunPlan) -> None:
    assert run_plan("find", spec, "--url", "moon=http://127.0.0.1").exit_code == 2
    none = run_plan("find", spec, "--cloud", "gcp")
    assert (none.exit_code, none.stdout) == (3, "")


def test_ending_tries_asks_for_nothing_else_and_leaves_those_of_another_search(
    run_plan: RunPlan, plan_home: Path
) -> None:
    ended = run_plan("find", "no-such-spec.yaml", "--end-tries")
    assert ended.exit_code == 0 and "no try was cut off" in ended.stderr
    with (plan_home / "state" / "tries.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = run_plan("find", "--end-tries")
    assert refused.exit_code == 2 and "is under way" in refused.stderr
    assert run_plan("find", "--end-tries").exit_code == 0
