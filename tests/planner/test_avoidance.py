"""Which places are left alone, for how long, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from planner.avoidance import Place, Sighting, avoided_places, place_of, preferred, prior_half_life_h
from providers.offers import Offer

NOW = datetime(2026, 11, 25, 14, tzinfo=UTC)
A = Offer("aws", "us-west-2", "us-west-2a", "g6.xlarge", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.28, "test", None)
B, C = A._replace(zone="us-west-2b"), A._replace(region="us-east-1", zone="us-east-1a")
OFFERS = (A, B, C)


def ago(minutes: float, offer: Offer, what: str) -> Sighting:
    return Sighting(place_of(offer), NOW - timedelta(minutes=minutes), what)  # type: ignore[arg-type]


def order(*sightings: Sighting, now: datetime = NOW) -> list[str | None]:
    return [offer.zone for offer in preferred(OFFERS, avoided_places(sightings, now))[0]]


def test_a_zone_that_lost_a_machine_comes_last_for_half_an_outage_and_says_why() -> None:
    assert 0.3 < prior_half_life_h() < 0.6  # the median of the records is 25 minutes
    (found,) = avoided_places([ago(60, A, "had"), ago(12, A, "preempted")], NOW).values()
    assert found.reason == "preempted 12 min ago"
    assert found.text().startswith("avoided until 14:")
    assert "31 GPU spot zones" in found.basis
    assert found.until == NOW - timedelta(minutes=12) + timedelta(hours=prior_half_life_h())
    assert order(ago(12, A, "preempted")) == ["us-west-2b", "us-east-1a", "us-west-2a"]
    assert order(ago(12, A, "preempted"), now=NOW + timedelta(hours=1)) == [
        "us-west-2a", "us-west-2b", "us-east-1a",
    ]  # fmt: skip


def test_a_machine_that_was_had_since_ends_it() -> None:
    assert avoided_places([ago(12, A, "stock_out"), ago(2, A, "had")], NOW) == {}


def test_only_the_very_place_gpu_and_market_are_avoided() -> None:
    avoided = avoided_places([ago(1, A, "preempted")], NOW)
    others = [A._replace(gpu="A100"), A._replace(market="on_demand"), A._replace(zone=None), B, C]
    assert all(place_of(offer) not in avoided for offer in others)


def test_where_every_place_said_no_the_plans_order_stays() -> None:
    sightings = [ago(3, offer, "stock_out") for offer in OFFERS]
    assert order(*sightings) == ["us-west-2a", "us-west-2b", "us-east-1a"]
    assert preferred(OFFERS, avoided_places(sightings, NOW))[1] == ()


def test_own_outages_make_it_shorter_or_longer() -> None:
    def outage(begins: float, minutes: float) -> list[Sighting]:
        return [ago(begins, A, "stock_out"), ago(begins - minutes, A, "had")]

    short = [row for number in range(1, 9) for row in outage(number * 500, 10)]
    long = [row for number in range(1, 9) for row in outage(number * 500, 300)]
    ends = [
        avoided_places([*rows, ago(1, A, "stock_out")], NOW)[place_of(A)].until for rows in (short, [], long)
    ]
    assert ends == sorted(ends)
    assert ends[0] < ends[1] < ends[2] <= NOW + timedelta(hours=6)
    assert "8 outages of your own" in avoided_places([*short, ago(1, A, "stock_out")], NOW)[place_of(A)].basis


def test_an_outage_that_nobody_watched_teaches_nothing() -> None:
    week = [ago(7 * 1440, A, "stock_out"), ago(60, A, "had"), ago(1, A, "stock_out")]
    plain = avoided_places([ago(1, A, "stock_out")], NOW)[place_of(A)]
    assert avoided_places(week, NOW)[place_of(A)].until == plain.until


@given(
    st.lists(
        st.tuples(
            st.sampled_from(OFFERS), st.floats(-60, 5000), st.sampled_from(["had", "stock_out", "preempted"])
        ),
        max_size=20,
    )
)
def test_nothing_is_lost_doubled_or_avoided_for_ever(rows: list[tuple[Offer, float, str]]) -> None:
    avoided = avoided_places([ago(minutes, offer, what) for offer, minutes, what in rows], NOW)
    offers, reasons = preferred(OFFERS, avoided)
    assert sorted(offers, key=str) == sorted(OFFERS, key=str)
    assert {row.place for row in reasons} <= set(avoided)
    assert all(NOW < row.until <= NOW + timedelta(hours=6) for row in avoided.values())


def test_a_place_names_itself() -> None:
    assert Place("aws", "us-west-2", None, "L4", "spot").text() == "aws/us-west-2"
