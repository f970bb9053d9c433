"""Sums of what runs have cost."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from planner.costs import CostNow, CostRow, by_month, cost_now, sum_costs, total
from planner.offer_document import offer_from_document
from planner.runs import Run
from planner.try_book import Try
from tests.planner.run_factories import START, attempt_of, run_of, terms_of


def paid(number: int, month: int, cost: int | None, hours: int = 1) -> Any:
    start, end = f"2026-{month:02}-01T00:00:00.000Z", f"2026-{month:02}-01T{hours:02}:00:00.000Z"
    return attempt_of(number, started_at=start, ended_at=end, cost_micro_usd=cost)


def named(run_id: str, *attempts: Any, **terms: Any) -> Run:
    return replace(run_of("succeeded", *attempts), run_id=run_id, terms=terms_of(**terms))


RUNS = [
    named("a", paid(1, 1, 100), paid(2, 2, 50), project="p", owner="ann"),
    named("b", paid(1, 2, 1000, hours=3), project="p"),
    named("c", attempt_of(1), project="q"),
]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("run", [CostRow("b", 1, 3.0, 1000), CostRow("a", 2, 2.0, 150)]),
        ("project", [CostRow("p", 3, 5.0, 1150)]),
        ("owner", [CostRow(None, 1, 3.0, 1000), CostRow("ann", 2, 2.0, 150)]),
        ("month", [CostRow("2026-02", 2, 4.0, 1050), CostRow("2026-01", 1, 1.0, 100)]),
    ],
)
def test_attempts_are_summed_and_what_never_started_costs_nothing(by: Any, expected: list[CostRow]) -> None:
    rows = sum_costs(RUNS, by)
    assert rows == expected
    assert total(rows) == CostRow("total", 3, 5.0, 1150)


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    rows = sum_costs([*RUNS, named("d", paid(1, 1, None), project="p")], "project")
    assert rows == [CostRow("p", 4, 6.0, None)]
    assert total(rows).cost_micro_usd is None


def test_tries_cost_too_and_an_open_one_is_unknown() -> None:
    offer = offer_from_document(json.loads(attempt_of(1).offer_json))
    asked, end = "2026-02-01T00:00:00.000Z", "2026-02-01T00:30:00.000Z"
    gone = Try("t-1", "p", offer, 1, 10, 600.0, "released", "", asked, asked, end, 5)
    refused = replace(gone, try_id="t-2", state="stock_out", cost_micro_usd=0)
    rows = {row.key: row for row in sum_costs(RUNS, "run", [gone, refused])}
    assert rows["t-1"] == CostRow("t-1", 1, 0.5, 5)
    assert "t-2" not in rows
    (whole,) = [row for row in sum_costs(RUNS, "project", [gone]) if row.key == "p"]
    assert whole.cost_micro_usd == 1155
    unsure = replace(gone, state="asked", ended_at=None, cost_micro_usd=None)
    assert total(sum_costs(RUNS, "month", [unsure])).cost_micro_usd is None


def test_an_attempt_over_a_month_s_end_is_parted_there() -> None:
    start, end = "2026-11-30T23:00:00.000Z", "2027-01-01T01:00:00.000Z"
    run = named("a", attempt_of(1, started_at=start, ended_at=end, cost_micro_usd=746_000_001))
    rows = {row.key: row for row in sum_costs([run], "month")}
    assert {key: (row.attempts, row.hours) for key, row in rows.items()} == {
        "2026-11": (1, 1.0), "2026-12": (0, 744.0), "2027-01": (0, 1.0),
    }  # fmt: skip
    assert by_month(run) == {"2026-11": 1_000_000, "2026-12": 744_000_001, "2027-01": 1_000_000}
    assert by_month(named("b", attempt_of(1, started_at=start, ended_at=end))) is None


LATER = "2026-11-22T14:00:00.000Z"


def test_what_nobody_has_counted_lately_is_a_bound_that_grows() -> None:
    half_an_hour = attempt_of(started_at=START, cost_micro_usd=500_000)
    silent = run_of("unknown", half_an_hour, observed_at=LATER)  # asked just now, without an answer
    known = cost_now(silent, LATER)
    assert known == CostNow("2026-11-22T12:30:00.000Z", False, 2_000_000)
    assert cost_now(silent, "2026-11-22T12:31:00.000Z") == CostNow("2026-11-22T12:30:00.000Z", True, 516_667)
    gone = replace(half_an_hour, ended_at="2026-11-22T12:30:00.000Z")
    assert cost_now(run_of("preempted", gone), LATER) is None
    assert cost_now(run_of("capped", half_an_hour), LATER) is None
    unpriced = attempt_of(started_at=START, micro_usd_per_hour=None)
    assert cost_now(run_of("running", unpriced), LATER) == CostNow(START, False, None)
    free = attempt_of(started_at=START, micro_usd_per_hour=0, cost_micro_usd=0)
    assert cost_now(run_of("running", free), LATER) == CostNow(START, True, 0)
