"""Ages of prices, and that every GPU with a price is one whose speed is known."""

from __future__ import annotations

from datetime import UTC, datetime

from planner.hardware import gpu_facts
from planner.price_age import price_age
from planner.pricebook import open_pricebook
from providers.catalog import load_default_snapshot

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def test_ages_of_the_embedded_snapshot():
    age = price_age(load_default_snapshot().offers, NOW, 30 * 86400.0)
    assert (age.oldest_as_of_at, age.newest_as_of_at) == ("2025-08-28T00:00:00Z", "2026-05-20T00:00:00Z")
    assert 0 < age.undated < age.stale < len(load_default_snapshot().offers)


def test_every_gpu_with_a_price_has_known_speed(tmp_path):
    offers = open_pricebook(tmp_path).snapshot.offers
    names = {offer.gpu for offer in offers}
    assert len(names) > 40
    assert {name for name in names if gpu_facts(name) is None} == set()
