"""Ages of prices, and that every GPU with a price is one whose speed is known."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from planner.hardware import gpu_facts
from planner.pricebook import age_s, is_stale, open_pricebook, price_age
from providers.catalog import load_default_snapshot

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


def test_ages_of_the_embedded_snapshot():
    age = price_age(load_default_snapshot().offers, NOW, 30 * 86400.0)
    assert (age.oldest_as_of_at, age.newest_as_of_at) == ("2025-08-28T00:00:00Z", "2026-05-20T00:00:00Z")
    assert 0 < age.undated < age.stale < len(load_default_snapshot().offers)


def test_every_gpu_with_a_price_has_known_speed(tmp_path):
    offers = open_pricebook(tmp_path).snapshot.offers
    names = {offer.gpu for offer in offers}
    assert len(names) > 40
    assert {name for name in names if gpu_facts(name) is None} == set()
