"""A launch goes by today's price, and refuses one that has moved too far."""

from __future__ import annotations

import pytest

from planner.errors import OverBudgetError
from planner.repricing import price_note, repriced
from tests.planner.factories import offer_of
from tests.planner.run_factories import candidate_of

PLANNED = candidate_of()._replace(offer=offer_of(price=2.0))


@pytest.mark.parametrize("price", [0.5, 2.0, 2.1])
def test_a_price_within_the_tolerance_is_taken(price: float) -> None:
    others = (offer_of(price=1.0, market="spot"), offer_of(price=1.0, region="us-west-2"))
    found = repriced(PLANNED, [*others, offer_of(price=price)], 0.05)
    assert found.offer.price_usd_per_hour == price
    assert (price_note(PLANNED, found) is None) == (price == 2.0)


@pytest.mark.parametrize(
    ("offers", "code", "message"),
    [
        ([offer_of(price=2.2)], "price_moved", r"from \$2/h to \$2.2/h \(\+10%, 5% are tolerated\)"),
        ([offer_of(price=None)], "no_price", "nobody knows the price"),
        ([offer_of(price=2.0, zone="use1-az9")], "offer_gone", "not offered any more"),
    ],
)
def test_a_price_that_moved_too_far_is_refused(offers: list, code: str, message: str) -> None:
    with pytest.raises(OverBudgetError, match=message) as refused:
        repriced(PLANNED, offers, 0.05)
    assert (refused.value.code, refused.value.exit_code) == (code, 5)


def test_a_free_machine_that_costs_something_now_is_refused() -> None:
    free = candidate_of()._replace(offer=offer_of(price=0.0))
    with pytest.raises(OverBudgetError, match=r"from \$0/h to \$1/h$"):
        repriced(free, [offer_of(price=1.0)], 0.05)
