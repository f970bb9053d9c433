"""The ledger as FOCUS 1.0, the FinOps Open Cost and Usage Specification: one row an attempt. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from planner.money import usd_text_of_micro
from planner.runs import Attempt, Run, seconds_between

#: The order of a published file is written out, not derived.
COLUMNS = (
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "ContractedUnitPrice",
    "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "PricingCategory",
    "PricingQuantity", "PricingUnit", "ConsumedQuantity", "ConsumedUnit", "ProviderName", "PublisherName",
    "InvoiceIssuerName", "BillingAccountId", "RegionId", "AvailabilityZone", "ServiceCategory", "ServiceName",
    "SkuId", "ResourceId", "ResourceName", "ResourceType", "Tags",
)  # fmt: skip
_PRICING = {"spot": "Dynamic", "on_demand": "Standard", "reserved": "Committed"}


def focus_csv(runs: Iterable[Run]) -> str:
    """All attempts that had machines, oldest first; a cost that nobody knows is left empty, never 0."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    rows = [
        (attempt.started_at, run, attempt)
        for run in runs
        for attempt in run.attempts
        if attempt.started_at is not None
    ]
    for started_at, run, attempt in sorted(rows, key=lambda row: (row[0], row[1].run_id)):
        writer.writerow(_row(run, attempt, started_at))
    return text.getvalue()


def _row(run: Run, attempt: Attempt, started_at: str) -> dict[str, Any]:
    offer = json.loads(attempt.offer_json)
    end_at = attempt.ended_at or run.observed_at
    hours = f"{seconds_between(started_at, end_at) / 3600:.6f}"
    cost, price = _usd(attempt.cost_micro_usd), _usd(attempt.micro_usd_per_hour)
    cloud, region = offer.get("cloud"), offer.get("region")
    machine = offer.get("instance_type") or f"{offer.get('gpus_per_node')}x{offer.get('gpu')}"
    tags = {**run.terms.labels, "tuneplan-run": run.run_id, "project": run.terms.project}
    if run.terms.owner is not None:
        tags["owner"] = run.terms.owner
    return {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost),
        **dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), price),
        "BillingCurrency": "USD",
        "BillingPeriodStart": f"{started_at[:7]}-01T00:00:00Z",
        "BillingPeriodEnd": _next_month(started_at),
        "ChargePeriodStart": started_at,
        "ChargePeriodEnd": end_at,
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{machine} for attempt {attempt.attempt} of {run.run_id}",
        "ChargeFrequency": "Usage-Based",
        "PricingCategory": _PRICING.get(offer.get("market", ""), "Other"),
        **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), hours),
        **dict.fromkeys(("PricingUnit", "ConsumedUnit"), "Hours"),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName", "BillingAccountId"), cloud),
        "RegionId": region,
        "AvailabilityZone": offer.get("zone") or "",
        "ServiceCategory": "Compute",
        "ServiceName": "Virtual Machines",
        "SkuId": machine,
        "ResourceId": attempt.backend_id or "",
        "ResourceName": run.run_id,
        "ResourceType": offer.get("gpu") or "",
        "Tags": json.dumps(tags, sort_keys=True),
    }


def _usd(micro: int | None) -> str:
    return "" if micro is None else usd_text_of_micro(micro)


def _next_month(at: str) -> str:
    """The first moment of the month after.

    >>> _next_month("2026-12-05T00:00:00Z")
    '2027-01-01T00:00:00Z'
    """
    year, month = int(at[:4]), int(at[5:7])
    return f"{year + month // 12:04}-{month % 12 + 1:02}-01T00:00:00Z"
