"""Ages of prices, and what is said or refused because of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from planner.price_age import PriceLimit, age_days, age_s, age_text, is_stale, price_age
from providers.offers import Offer
from tests.planner.factories import offer_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("as_of_at", "age"),
    [
        ("2026-05-31T00:00:00Z", 86400.0),
        ("2026-05-31", 86400.0),
        ("2026-05-31T23:00:00+00:00", 3600.0),
        ("2026-07-01T00:00:00Z", 0.0),  # a clock that goes wrong makes no negative age
        (None, None),
    ],
)
def test_age(as_of_at: str | None, age: float | None):
    assert age_s(as_of_at, NOW) == age


def test_an_undated_price_is_stale():
    assert is_stale(None, NOW, 1e12)
    assert not is_stale("2026-05-31", NOW, 86400.0)
    assert is_stale("2026-05-30", NOW, 86400.0)


def test_whole_days_are_shown():
    assert (age_days("2026-05-29T13:00:00Z", NOW), age_text("2026-05-29T13:00:00Z", NOW)) == (2, "2 d")
    assert (age_days(None, NOW), age_text(None, NOW)) == (None, "undated")


def test_dates_and_times_are_ordered_by_time():
    offers = [_of("2026-05-30T00:00:00+02:00"), _of("2026-05-30"), _of(None)]
    age = price_age(offers, NOW, 86400.0)
    assert (age.oldest_as_of_at, age.newest_as_of_at) == ("2026-05-30T00:00:00+02:00", "2026-05-30")
    assert (age.undated, age.stale) == (1, 3)


@pytest.mark.parametrize(
    ("as_of_at", "doubt"),
    [("2026-05-25T00:00:00Z", None), ("2026-05-24T00:00:00Z", "8 days old"), (None, "undated")],
)
def test_a_limit_doubts_and_refuses_the_same_prices(as_of_at: str | None, doubt: str | None):
    assert PriceLimit(7 * 86400.0).doubt(_of(as_of_at), NOW) == doubt
    assert PriceLimit(7 * 86400.0, strict=True).refuses(_of(as_of_at), NOW) is (doubt is not None)
    assert not PriceLimit(7 * 86400.0).refuses(_of(as_of_at), NOW)


def test_the_own_machine_has_a_price_without_age():
    own = _of(None)._replace(market="local")
    assert PriceLimit(strict=True).doubt(own, NOW) is None
    assert not PriceLimit(strict=True).refuses(own, NOW)


def _of(as_of_at: str | None) -> Offer:
    return offer_of()._replace(as_of_at=as_of_at)
