"""Plans backwards from a date, on few offers."""

from __future__ import annotations

from pathlib import Path

from planner.answer import estimate_spec
from planner.release import Release, plan_release
from providers.offers import Offer
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of

#: An L40S may hold this, or not.
CLOSE = {"micro_batch": 2, "sequence_length": 2048, "gradient_checkpointing": False}


def released(*offers: Offer) -> Release:
    spec = spec_of(train=CLOSE, goal={"within": "48h"})
    snapshot = snapshot_of(*offers)
    estimate = estimate_spec(spec, Path(), snapshot, NOW, limit=None).estimate
    return plan_release(estimate, snapshot, jobs=20, seed=0)


def test_what_surely_fits_goes_before_what_may_not() -> None:
    found = released(offer_of("L40S", price=0.5), offer_of("H100", price=3.0))
    assert {way.item.offer.gpu for way in found.ways} == {"H100"}
    assert [way["may_not_fit"] for way in found.document()["ways"]] == [False, False]


def test_where_nothing_surely_fits_that_is_said() -> None:
    found = released(offer_of("L40S", price=0.5))
    assert found.chosen.item.offer.gpu == "L40S"
    assert all(way["may_not_fit"] for way in found.document()["ways"])
