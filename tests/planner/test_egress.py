"""What moving bytes costs: known list prices only, by the places of bucket and machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.egress import Place, Traffic, egress_usd, usd_per_gb
from planner.estimate import build_estimate
from planner.pricing import Priced, Solver
from planner.question import Question
from tests.planner.factories import offer_of, question_of, snapshot_of

US, EU, TOKYO = Place("aws", "us-east-1"), Place("aws", "eu-west-1"), Place("aws", "ap-northeast-1")
LAMBDA, R2 = Place("lambda", "us-west-1"), Place("cloudflare", None)


@pytest.mark.parametrize(
    ("source", "target", "usd"),
    [
        (US, US, 0.0),
        (US, EU, 0.02),
        (US, LAMBDA, 0.09),
        (LAMBDA, US, 0.0),
        (R2, US, 0.0),
        (Place("gcp", "us-central1"), US, 0.12),
        (TOKYO, LAMBDA, None),
        (TOKYO, TOKYO, 0.0),
        (Place("aws", None), LAMBDA, None),
        (Place("aws", None), US, None),
        (Place("vast", "x"), US, None),
        (Place("cloudflare", None), Place("cloudflare", None), 0.0),
    ],
)
def test_list_prices(source: Place, target: Place, usd: float | None) -> None:
    assert usd_per_gb(source, target) == usd


def test_an_unknown_price_of_any_way_makes_the_sum_unknown() -> None:
    assert egress_usd(Traffic(10, 100), US, LAMBDA) == pytest.approx(0.9)
    assert egress_usd(Traffic(10, 100), US, Place("vast", "x")) is None
    assert egress_usd(Traffic(10, 0), US, Place("vast", "x")) == pytest.approx(0.9)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_more_bytes_never_cost_less(read_gb: float, written_gb: float, more_gb: float) -> None:
    less = egress_usd(Traffic(read_gb, written_gb), US, EU)
    more = egress_usd(Traffic(read_gb + more_gb, written_gb), US, EU)
    assert less is not None and more is not None and 0 <= less <= more


def question(uri: str | None, **sections: object) -> Question:
    return question_of(checkpoints={"uri": uri}, **sections)


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("s3://runs/a?region=eu-west-1", EU),
        ("s3://runs/a", Place("aws", None)),
        ("s3://runs/a?endpoint=https://x.r2.cloudflarestorage.com", R2),
        ("s3://runs/a?endpoint=https://minio.lab.org", None),
        ("file:///shared", None),
        (None, None),
    ],
)
def test_the_uri_says_where_the_bucket_is(uri: str | None, place: Place | None) -> None:
    assert question(uri).bucket == place


def test_egress_is_a_line_of_the_bill_and_part_of_its_total() -> None:
    offers = (
        offer_of(price=2.0, region="us-east-1"),
        offer_of(price=2.0, region="eu-west-1"),
        offer_of(price=2.0, cloud="lambda", region="us-west-1", zone=None),
        offer_of(price=2.0, cloud="vast", region="x", zone=None),
        offer_of(price=0.0, cloud="local", region="local", zone=None, market="local"),
    )
    answer = build_estimate(question("s3://runs/a?region=us-east-1"), snapshot_of(*offers))
    lines = {row.offer.region: row.cost_tree_usd["egress"] for row in answer.candidates}
    cost = {row.offer.region: row.cost_usd.p50 for row in answer.candidates}
    assert lines["us-east-1"] == 0 and lines["local"] == 0 and lines["x"] is None
    assert lines["eu-west-1"] > 0 and lines["us-west-1"] > 0
    assert cost["eu-west-1"] - cost["us-east-1"] == pytest.approx(lines["eu-west-1"])
    said = dict(answer.warnings)["egress_unknown"]
    assert "vast" in said and "no list price is known" in said
    sources = {row.name: row.source for row in answer.assumptions}
    assert "2026" in sources["egress from and to the checkpoints' bucket"]


@pytest.mark.parametrize(
    ("uri", "said"), [(None, "where the checkpoints go is not known"), ("s3://runs/a", "?region=")]
)
def test_why_it_is_unknown_is_told_with_what_to_do(uri: str | None, said: str) -> None:
    answer = build_estimate(question(uri), snapshot_of(offer_of()))
    assert said in dict(answer.warnings)["egress_unknown"]


def test_each_start_reads_the_data_and_each_commit_writes_a_checkpoint() -> None:
    asked = question("s3://runs/a?region=us-east-1")
    asked = asked._replace(job=asked.job._replace(data_bytes=10**9))
    answers = [Solver(asked).price(offer_of(market=market), 1) for market in ("spot", "on_demand")]
    spot, steady = (answer for answer in answers if isinstance(answer, Priced))
    lost = spot.solved.line.interruptions.expected
    checkpoint_gb = spot.solved.checkpoint_bytes / 1e9
    assert steady.solved.traffic.read_gb == 1.0
    read_gb = 1 + lost * (1 + checkpoint_gb)
    assert spot.solved.traffic.read_gb == pytest.approx(read_gb)
    assert spot.solved.traffic.written_gb > checkpoint_gb
