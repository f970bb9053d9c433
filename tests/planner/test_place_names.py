"""Misspelt clouds and regions, in specs and in prices of your own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from planner.answer import estimate_spec
from planner.config import Directories
from planner.doctor import examine
from planner.errors import SpecError
from planner.local_machine import local_snapshot
from planner.place_names import idle_overrides, likeness, misnamed
from planner.price_overrides import PriceOverride
from providers.offers import PriceSnapshot
from tests.planner.factories import NOW, offer_of, snapshot_of, spec_of

PRICES = snapshot_of(
    offer_of(),
    offer_of(region="eu-west-1"),
    offer_of(region="eu-central-1"),
    offer_of(cloud="gcp", region="europe-west4"),
)


@pytest.mark.parametrize(
    ("where", "path", "hint"),
    [
        ({"clouds": ["amazon"]}, "where.clouds", "did you mean aws?"),
        ({"clouds": ["aws", "gpc"]}, "where.clouds", "did you mean gcp?"),
        ({"clouds": ["nowhere"]}, "where.clouds", "there are: aws, gcp"),
        ({"regions": ["eu"]}, "where.regions", "there are: eu-central-1, eu-west-1, europe-west4"),
        ({"regions": ["eu"], "clouds": ["aws"]}, "where.regions", "there are: eu-central-1, eu-west-1"),
        ({"regions": ["us-east1"]}, "where.regions", "did you mean us-east-1?"),
        ({"regions": ["US-EAST-1"]}, "where.regions", "did you mean us-east-1?"),
    ],
)
def test_a_misspelt_place_is_an_error_with_its_key(where: dict[str, Any], path: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        estimate_spec(spec_of(where=where), Path(), PRICES, NOW)
    (found,) = caught.value.findings
    assert (found.path, found.hint) == (path, hint)


@pytest.mark.parametrize(
    ("where", "prices"),
    [
        ({"clouds": ["AWS"], "regions": ["eu-west-1"]}, PRICES),
        ({"clouds": ["aws", "kubernetes"]}, PRICES),  # machines without a price
        ({"clouds": ["gcp"], "regions": ["nowhere"]}, local_snapshot(0.0)),
        ({"clouds": ["gcp"]}, PriceSnapshot("reservation:x", (offer_of(),), ())),
    ],
)
def test_what_is_known_or_cannot_be_known_is_passed(where: dict[str, Any], prices: PriceSnapshot) -> None:
    assert list(misnamed(spec_of(where=where).where, prices)) == []


def test_prices_of_your_own_that_match_nothing() -> None:
    overrides = (
        PriceOverride(cloud="aws", discount=0.1),
        PriceOverride(cloud="gpc", discount=0.1),
        PriceOverride(cloud="aws", gpu="T4", usd_per_hour=1.0),
        PriceOverride(cloud="gcp", region="eu-west-1", usd_per_hour=1.0),
        PriceOverride(cloud="gcp", credit_usd=100.0),
        PriceOverride(cloud="azur", credit_usd=100.0),
    )
    assert dict(idle_overrides(overrides, PRICES)) == {
        1: "there is no cloud 'gpc', did you mean gcp?",
        2: "there is no gpu 'T4', there are: A100-80GB",
        3: "no offer has all that it names",
        5: "there is no cloud 'azur', there are: aws, gcp",
    }


def test_the_doctor_names_prices_of_your_own_that_match_nothing(tmp_path: Path) -> None:
    places = Directories(tmp_path, tmp_path, tmp_path)
    overrides = (PriceOverride(cloud="aws", discount=0.1), PriceOverride(cloud="gpc", discount=0.1))
    week_s = timedelta(days=7).total_seconds()
    found = [row for row in examine(places, NOW, {}, tmp_path, week_s, overrides) if row.code == "P043"]
    assert [(row.level, row.message) for row in found] == [
        ("warning", "prices.overrides 2 matches no offer: there is no cloud 'gpc', did you mean gcp?")
    ]


def test_what_is_like_a_name() -> None:
    assert (
        likeness("us-esat-1", ["us-west-1", "us-east-1", "eu-west-1"])
        == "did you mean us-east-1 or us-west-1?"
    )
    assert likeness("google", ["aws", "gcp"]) == "did you mean gcp?"
    assert likeness("google", ["aws", "oci"]) == "there are: aws, oci"
