"""What clouds say of their spot machines: bounded, in order, of its own unit, by its age, and never a rate."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.signal_book import keep_signals, read_signals, said_of, signal_file
from planner.spot_signals import LARGEST_LEAN, NO_LEAN, PLACE_LOG_SD, READINGS, Said, SpotSignals
from providers import availability_aws_advisor, availability_azure
from providers.availability import Answered, Signal, Wanted
from providers.availability_sources import SOURCES
from providers.offers import Offer

NOW = datetime(2026, 12, 1, tzinfo=UTC)
AT = "2026-12-01T00:00:00Z"
OFFER = Offer(
    "aws", "us-east-1", "use1-az6", "p5.48xlarge", "H100", 8, 80.0, 192.0, 2048.0, "spot", 30.0, "test", None
)
BANDS = ("<5%", "5-10%", "10-15%", "15-20%", ">20%")
EVICTIONS = ("0-5", "5-10", "10-15", "15-20", "20+")
UNITS = {kind: unit for kind, unit in READINGS if kind != "placement_score"}


def said(kind: str, value: float | str, unit: str = "", at: str = AT, **more: object) -> Said:
    one = Said(
        "aws", "us-east-1", None, "p5.48xlarge", None, kind, value, unit or UNITS[kind], "somebody", at
    )
    return one._replace(**more)  # type: ignore[arg-type]


def factor(*rows: Said, nodes: int = 1, offer: Offer = OFFER, now: datetime = NOW) -> float:
    return SpotSignals(rows).lean(offer, nodes, now).factor


@pytest.mark.parametrize(
    ("kind", "unit", "from_best"),
    [
        ("interruption_band", "", BANDS),
        ("eviction_band", "", EVICTIONS),
        ("uptime", "", (3600.0, 600.0)),
        ("obtainability", "", (1.0, 0.8, 0.5, 0.1, 0.0)),
        ("placement_score", "of 10", (10, 9, 5, 2, 1)),
        ("placement_score", "High, Medium or Low", ("High", "Medium", "Low")),
    ],
)
def test_a_worse_signal_is_a_higher_rate_and_none_moves_it_far(
    kind: str, unit: str, from_best: tuple[float | str, ...]
) -> None:
    factors = [factor(said(kind, value, unit)) for value in from_best]
    assert all(one < other for one, other in pairwise(factors))
    assert 1 / LARGEST_LEAN <= factors[0] < 1 and factors[-1] <= LARGEST_LEAN
    assert factors[-1] / factors[0] < 1 / math.exp(-2 * PLACE_LOG_SD)  # less than places differ by


def test_the_band_of_the_zones_on_record_is_the_prior_and_lower_ones_lie_below() -> None:
    assert factor(said("interruption_band", ">20%")) == 1
    assert 0.7 < factor(said("interruption_band", "<5%")) < 0.8


@given(
    st.lists(
        st.sampled_from(
            [said("interruption_band", band) for band in BANDS]
            + [said("eviction_band", band) for band in EVICTIONS]
            + [said("uptime", value) for value in (1.0, 600.0, 3600.0, 1e9)]
            + [said("placement_score", value, "of 10") for value in range(1, 11)]
            + [said("obtainability", value) for value in (0.0, 1.0)]
        )
    )
)
def test_all_together_stay_within_the_limits(rows: list[Said]) -> None:
    assert 1 / LARGEST_LEAN - 1e-9 <= factor(*rows) <= LARGEST_LEAN + 1e-9


@pytest.mark.parametrize(
    "row",
    [
        said("spot_price", 3.0, "USD/h"),  # another kind
        said("uptime", 1.0, "h"),  # another unit
        said("interruption_band", ">20%", "% evicted within an hour, a band"),
        said("interruption_band", 0.3),  # no band
        said("eviction_band", ">20%"),
        said("placement_score", "High", "of 10"),
        said("placement_score", 3, "High, Medium or Low"),
        said("placement_score", 11, "of 10"),
        said("obtainability", -1.0),
        said("uptime", "long"),
        said("interruption_band", "<5%", region="us-west-2"),
        said("interruption_band", "<5%", instance_type="p4d.24xlarge"),
        said("interruption_band", "<5%", cloud="gcp"),
        said("placement_score", 9, "of 10", zone="use1-az1"),
        said("placement_score", 9, "of 10", nodes=4),
    ],
)
def test_what_is_of_another_unit_or_machine_says_nothing(row: Said) -> None:
    assert SpotSignals([row]).lean(OFFER, 1, NOW) == NO_LEAN


def test_the_newest_of_a_kind_counts_and_age_wears_it_out() -> None:
    old = said("interruption_band", ">20%", at="2026-11-01T00:00:00Z")
    new = said("interruption_band", "<5%")
    assert factor(old, new) == factor(new, old) == factor(new)
    later = [factor(new, now=NOW + timedelta(days=days)) for days in (0, 30, 90, 3650)]
    assert later == sorted(later) and later[0] < later[1] < 1 and later[-1] == 1
    scores = [said("placement_score", 10, "of 10")]
    assert factor(*scores, now=NOW + timedelta(days=3)) == 1
    assert factor(said("interruption_band", "<5%", at="2027-01-01T00:00:00Z")) == factor(
        new
    )  # a clock that is off


def test_what_is_said_of_a_region_is_said_of_its_zones_and_not_the_other_way() -> None:
    zonal = said("placement_score", 10, "of 10", zone="use1-az6", nodes=1)
    assert factor(zonal) < 1
    assert factor(zonal, offer=OFFER._replace(zone=None)) == 1
    assert factor(said("interruption_band", "<5%"), nodes=7) < 1


def test_kinds_and_units_are_those_that_the_sources_write() -> None:
    assert UNITS["interruption_band"] == availability_aws_advisor.UNIT
    assert UNITS["eviction_band"] == availability_azure._EVICTION_UNIT


def _answered(*pairs: tuple[Offer, Signal]) -> Answered:
    return Answered(SOURCES[0], {Wanted(offer, 2): (signal,) for offer, signal in pairs})


def test_signals_are_kept_without_login_or_price_and_newer_ones_take_their_place(tmp_path: Path) -> None:
    score = Signal("placement_score", 9, "of 10", "9 of 10", "EC2", AT)
    named = OFFER._replace(zone="us-east-1c")
    rows = list(said_of([_answered((named, score))], {Wanted(named, 2): OFFER}))
    assert [(row.zone, row.nodes, row.value) for row in rows] == [("use1-az6", 2, 9)]  # as in the prices
    low = score._replace(value=1, comparable=False)
    price = Signal("spot_price", 3.0, "USD/h", "", "AWS", AT)
    on_demand = OFFER._replace(market="on_demand")
    assert not list(
        said_of([_answered((OFFER, low)), _answered((OFFER, price)), _answered((on_demand, score))])
    )
    assert keep_signals(tmp_path, rows, NOW) == 1
    worse = [rows[0]._replace(value=2, as_of_at="2026-12-01T01:00:00Z")]
    keep_signals(tmp_path, worse, NOW)
    assert len(json.loads(signal_file(tmp_path).read_text())["signals"]) == 1
    assert read_signals(tmp_path).lean(OFFER, 2, NOW).factor > 1
    keep_signals(
        tmp_path, [said("interruption_band", "<5%", at="2027-12-01T00:00:00Z")], NOW + timedelta(days=365)
    )
    assert (
        len(json.loads(signal_file(tmp_path).read_text())["signals"]) == 1
    )  # a year later nothing is left of it


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"signals": 3}', '{"signals": [3]}', '{"signals": [{"kind": "uptime", "unit": "s"}]}'],
)
def test_a_damaged_file_is_the_prior(tmp_path: Path, text: str) -> None:
    signal_file(tmp_path).write_text(text)
    assert not read_signals(tmp_path)
    assert keep_signals(tmp_path, [said("interruption_band", "<5%")], NOW) == 1
    assert read_signals(tmp_path)
