"""A launch goes by the prices of today, and refuses what has moved too far."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.answer import estimate_spec
from planner.candidate_document import candidate_document
from planner.errors import OverBudgetError
from planner.plan import Plan
from planner.rented import alternatives
from planner.repricing import (
    Today,
    machines_of,
    price_note,
    repriced,
    repriced_plan,
    repriced_record,
    with_machines,
)
from providers.offers import Offer
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of
from tests.planner.run_factories import candidate_of

PLANNED = offer_of(price=2.0)


@pytest.mark.parametrize("price", [0.5, 2.0, 2.1])
def test_a_price_within_the_tolerance_is_taken(price: float) -> None:
    others = (offer_of(price=1.0, market="spot"), offer_of(price=1.0, region="us-west-2"))
    found = repriced(PLANNED, Today([*others, offer_of(price=price)]), 0.05)
    assert found.price_usd_per_hour == price
    assert (price_note(PLANNED, found) is None) == (price == 2.0)


@pytest.mark.parametrize(
    ("offers", "code", "message"),
    [
        ([offer_of(price=2.2)], "price_moved", r"from \$2/h to \$2.2/h \(\+10%, 5% are tolerated\)"),
        ([offer_of(price=None)], "no_price", "nobody knows the price"),
        ([offer_of(price=2.0, zone="use1-az9")], "offer_gone", "not offered any more"),
    ],
)
def test_a_price_that_moved_too_far_is_refused(offers: list[Offer], code: str, message: str) -> None:
    with pytest.raises(OverBudgetError, match=message) as refused:
        repriced(PLANNED, Today(offers), 0.05)
    assert (refused.value.code, refused.value.exit_code) == (code, 5)


def test_a_free_machine_that_costs_something_now_is_refused() -> None:
    with pytest.raises(OverBudgetError, match=r"from \$0/h to \$1/h$"):
        repriced(offer_of(price=0.0), Today([offer_of(price=1.0)]), 0.05)


@pytest.mark.parametrize(
    ("names", "price"), [({"use1-az1": "us-east-1b", "use1-az2": "us-east-1a"}, 2.05), ({}, 2.09)]
)
def test_a_zone_has_the_account_s_name_or_the_dearest_price_of_its_region(
    names: dict[str, str], price: float
) -> None:
    zones = (("use1-az1", 2.0), ("use1-az2", 2.05), ("use1-az3", 2.09))
    today = Today([offer_of(price=each, zone=zone) for zone, each in zones], names)
    found = repriced(offer_of(price=2.0, zone="us-east-1a"), today, 0.05)
    assert (found.price_usd_per_hour, found.zone) == (price, "us-east-1a")


def plan_of(**prices: float | None) -> Plan:
    offers = [offer_of(region=name, zone=None, price=price) for name, price in prices.items()]
    return estimate_spec(spec_of(), Path(), snapshot_of(*offers), NOW).plan()


def prices_of(offers: list[Offer]) -> dict[str, float | None]:
    return {offer.region: offer.price_usd_per_hour for offer in offers}


def test_machines_that_may_be_got_instead_have_today_s_price_or_are_left_out() -> None:
    plan = plan_of(cheap=1.0, near=1.1, dear=1.1, gone=1.2, unpriced=1.3)
    chosen = next(row for row in plan.candidates if row.offer.region == "cheap")
    assert len(alternatives(plan, chosen)) == 4
    now = (("cheap", 1.02), ("near", 1.0), ("dear", 3.9), ("unpriced", None))
    today = Today(offer_of(region=name, zone=None, price=price) for name, price in now)
    plan_now, chosen_now = repriced_plan(plan, chosen, today, 0.05)
    assert chosen_now.offer.price_usd_per_hour == 1.02
    assert prices_of(alternatives(plan_now, chosen_now)) == {"near": 1.0}  # the chosen one is none of them
    assert plan_now.plan_hash == plan.plan_hash


def record(**prices: float | None) -> dict[str, object]:
    offers = [offer_of(region=name, zone=None, price=price) for name, price in prices.items()]
    document = candidate_document(candidate_of()) | {"rented": {"alternatives": [], "python": "3.11"}}
    return json.loads(json.dumps(with_machines(document, offers)))


def test_a_run_s_machines_have_today_s_price_too() -> None:
    today = Today(offer_of(region=name, zone=None, price=price) for name, price in (("a", 1.5), ("b", 1.01)))
    now = repriced_record(record(a=1.0, b=1.0, c=1.0), today, 0.05, hint="launch anew")
    assert prices_of(machines_of(now)) == {"b": 1.01}
    assert now["rented"] == {"alternatives": [], "python": "3.11"}
    with pytest.raises(OverBudgetError, match=r"from \$1/h to \$1.5/h") as refused:
        repriced_record(record(a=1.0, c=1.0), today, 0.05, hint="launch anew")
    assert refused.value.hint == "launch anew, or allow it with `--price-tolerance`"
