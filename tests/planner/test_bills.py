"""A bill against the ledger: every dollar is explained or listed."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from planner.bills import RunOnBill, read_bill, reconcile
from planner.focus import COLUMNS, focus_csv
from planner.runs import Run
from planner.try_book import Try
from providers.errors import UsageError
from providers.offers import Offer
from tests.planner.run_factories import attempt_of, run_of, terms_of

USD = 1_000_000


def paid(run_id: str, micro: int | None, day: str = "2026-11-05", **terms: Any) -> Run:
    attempt = attempt_of(
        1,
        started_at=f"{day}T10:00:00.000Z",
        ended_at=f"{day}T12:00:00.000Z",
        cost_micro_usd=micro,
        outcome="done",
    )
    own = {"infra": "skypilot", **terms}
    return replace(run_of("succeeded", attempt), run_id=run_id, terms=terms_of(**own))


def focus(*rows: tuple[str, str, str]) -> list[str]:
    header = "BilledCost,BillingCurrency,ChargePeriodStart,ChargeDescription,Tags"
    return [header, *(f'{cost},USD,{day}T00:00:00Z,machine,"{tags}"' for cost, day, tags in rows)]


def tag(run: str) -> str:
    return f'{{""tuneplan-run"": ""{run}""}}'


RUNS = [
    paid("Goat.1", 2 * USD),  # clouds keep tags in lower case and without dots
    paid("dear", 2 * USD),
    paid("unbilled", 3 * USD),
    paid("unknown", None),
    paid("last-month", USD, day="2026-10-05"),
    paid("here", 9 * USD, infra="local"),
]
BILL = focus(
    ("1.5", "2026-11-05", tag("goat-1")),
    ("0.55", "2026-11-06", tag("goat-1")),
    ("2.5", "2026-11-05", tag("dear")),
    ("4", "2026-11-05", tag("unknown")),
    ("7.25", "2026-11-05", tag("somebody-s")),
    ("100", "2026-11-05", ""),
    ("0", "2026-11-01", ""),
)


def test_every_dollar_is_explained_or_listed() -> None:
    found = reconcile(RUNS, read_bill(BILL, "bill.csv"))
    assert {row.run_id for row in found.runs} == {"Goat.1", "dear", "unbilled", "unknown"}
    assert found.unexplained == (
        RunOnBill("unknown", None, 4 * USD),
        RunOnBill("unbilled", 3 * USD, 0),
        RunOnBill("dear", 2 * USD, 2_500_000),
    )
    assert [row.difference_micro_usd for row in found.unexplained] == [None, -3 * USD, 500_000]
    (stranger,) = found.strangers
    assert (stranger.run, stranger.micro_usd, stranger.line) == ("somebody-s", 7_250_000, 6)
    assert (found.untagged_rows, found.untagged_micro_usd) == (1, 100 * USD)
    assert len(reconcile(RUNS, read_bill(BILL, "b"), tolerance=0.3).unexplained) == 2


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        (
            "lineItem/UnblendedCost,lineItem/UsageStartDate,lineItem/CurrencyCode,resourceTags/user:tuneplan-run",
            "goat-1",
        ),
        (
            "line_item_unblended_cost,line_item_usage_start_date,line_item_currency_code,resource_tags",
            '"{""user_tuneplan_run"": ""goat-1""}"',
        ),
    ],
)
def test_both_reports_of_aws_are_read(header: str, tags: str) -> None:
    (row,) = read_bill([header, f"2.0000000001,2026-11-05T10:00:00Z,USD,{tags}"], "cur.csv")
    assert (row.run, row.day, row.micro_usd) == ("goat-1", "2026-11-05", 2 * USD)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b", "1,2"], "no bill that is known"),
        ([], "no bill that is known"),
        (["BilledCost,ChargePeriodStart", "many,2026-11-05"], "b.csv:2: 'many' is not an amount"),
        (["ChargePeriodStart,BilledCost", "2026-11-05"], "b.csv:2: the line ends before its cost"),
        (["BilledCost,ChargePeriodStart,BillingCurrency", "1,2026-11-05,EUR"], "b.csv:2: the bill is in EUR"),
        (["BilledCost,ChargePeriodStart,Tags", "1,2026-11-05,{"], "b.csv:2: the tags are no JSON"),
    ],
)
def test_what_is_no_bill_is_refused_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(read_bill(lines, "b.csv"))


def test_the_ledger_s_own_focus_rows_reconcile_with_it() -> None:
    text = focus_csv(RUNS[:3])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["ResourceName"], row["EffectiveCost"]) for row in rows] == [
        ("Goat.1", "2"),
        ("dear", "2"),
        ("unbilled", "3"),
    ]
    assert rows[0]["ConsumedQuantity"] == "2.000000"
    assert rows[0]["BillingPeriodEnd"] == "2026-12-01T00:00:00Z"
    found = reconcile(RUNS[:3], read_bill(text.splitlines(), "own"))
    assert (found.unexplained, found.strangers, found.untagged_rows) == ((), (), 0)


def test_a_try_is_a_row_too_and_a_bill_below_what_it_may_cost_is_explained() -> None:
    offer = Offer("aws", "r", "z1", "g6", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.5, "feed", "2026-11-20")
    asked, end = "2026-11-05T00:00:00.000Z", "2026-11-05T00:30:00.000Z"
    gone = Try("plan-try-1", "p", offer, 1, 4_000_000, 600.0, "released", "", asked, asked, end, 2_000_000)
    refused = replace(gone, try_id="plan-try-2", state="stock_out", cost_micro_usd=0)
    (row,) = csv.DictReader(io.StringIO(focus_csv([], [gone, refused])))
    assert (row["ResourceName"], row["BilledCost"], row["PricingCategory"]) == ("plan-try-1", "2", "Dynamic")
    assert json.loads(row["Tags"]) == {"tuneplan-run": "plan-try-1", "project": "p"}
    own = list(read_bill(focus_csv([], [gone]).splitlines(), "own"))
    assert reconcile([], own, tries=[gone]).unexplained == ()
    cheaper = [replace(billed, micro_usd=billed.micro_usd // 4) for billed in own]
    assert reconcile([], cheaper, tries=[gone]).unexplained == ()
    dearer = [replace(billed, micro_usd=billed.micro_usd * 2) for billed in own]
    assert [one.run_id for one in reconcile([], dearer, tries=[gone]).unexplained] == ["plan-try-1"]
    assert reconcile([], own).strangers == tuple(own)


def test_an_unknown_cost_is_left_empty() -> None:
    (row,) = csv.DictReader(io.StringIO(focus_csv([paid("unknown", None), run_of("queued", attempt_of())])))
    assert row["BilledCost"] == row["EffectiveCost"] == ""
