"""The ledger as FOCUS 1.0, the FinOps Open Cost and Usage Specification: one row an attempt or a try. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from planner.money import usd_text_of_micro
from planner.runs import Attempt, Run, seconds_between
from planner.try_book import Try

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


@dataclass(frozen=True, slots=True)
class _Charge:
    """What was paid for machines once."""

    name: str
    started_at: str
    end_at: str
    offer: Mapping[str, Any]
    cost_micro_usd: int | None
    micro_usd_per_hour: int | None
    what: str
    resource: str
    tags: Mapping[str, str]


def focus_csv(runs: Iterable[Run], tries: Iterable[Try] = ()) -> str:
    """All attempts that had machines and all tries that may have, oldest first.

    A cost that nobody knows is left empty, never 0.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    charges = [
        _of_attempt(run, attempt, attempt.started_at)
        for run in runs
        for attempt in run.attempts
        if attempt.started_at is not None
    ]
    charges += [_of_try(one) for one in tries if one.is_open or one.cost_micro_usd != 0]
    for charge in sorted(charges, key=lambda row: (row.started_at, row.name)):
        writer.writerow(_row(charge))
    return text.getvalue()


def _of_attempt(run: Run, attempt: Attempt, started_at: str) -> _Charge:
    owner = {} if run.terms.owner is None else {"owner": run.terms.owner}
    return _Charge(
        run.run_id,
        started_at,
        attempt.ended_at or run.observed_at,
        json.loads(attempt.offer_json),
        attempt.cost_micro_usd,
        attempt.micro_usd_per_hour,
        f"attempt {attempt.attempt} of {run.run_id}",
        attempt.backend_id or "",
        {**run.terms.labels, "tuneplan-run": run.run_id, "project": run.terms.project, **owner},
    )


def _of_try(one: Try) -> _Charge:
    return _Charge(
        one.try_id,
        one.asked_at,
        one.ended_at or one.answered_at or one.asked_at,
        one.offer._asdict(),
        None if one.is_open else one.cost_micro_usd,
        one.micro_usd_per_hour,
        f"try {one.try_id}",
        one.try_id,
        {"tuneplan-run": one.try_id, "project": one.project},
    )


def _row(charge: _Charge) -> dict[str, Any]:
    offer, started_at = charge.offer, charge.started_at
    hours = f"{seconds_between(started_at, charge.end_at) / 3600:.6f}"
    cost, price = _usd(charge.cost_micro_usd), _usd(charge.micro_usd_per_hour)
    cloud, region = offer.get("cloud"), offer.get("region")
    machine = offer.get("instance_type") or f"{offer.get('gpus_per_node')}x{offer.get('gpu')}"
    return {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost),
        **dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), price),
        "BillingCurrency": "USD",
        "BillingPeriodStart": f"{started_at[:7]}-01T00:00:00Z",
        "BillingPeriodEnd": _next_month(started_at),
        "ChargePeriodStart": started_at,
        "ChargePeriodEnd": charge.end_at,
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": f"{machine} for {charge.what}",
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
        "ResourceId": charge.resource,
        "ResourceName": charge.name,
        "ResourceType": offer.get("gpu") or "",
        "Tags": json.dumps(dict(charge.tags), sort_keys=True),
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
