"""Your own prices: which offers they hit, what stays of the posted price, and how the file is checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cli.context import App
from planner.cli.main import cli
from planner.config import load_config
from planner.errors import SpecError
from planner.price_overrides import PriceOverride, with_overrides
from providers.offers import Offer, PriceSnapshot

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[2] / "examples"


def offer(cloud: str = "aws", price: float | None = 40.0, **more) -> Offer:
    fields = {"zone": None, "instance_type": "p5.48xlarge", "market": "on_demand", "flags": (), **more}
    return Offer(
        cloud=cloud, region="us-east-1", gpu="H100", gpus_per_node=8, gpu_mem_gib=80, vcpus=192, ram_gib=2048,
        price_usd_per_hour=price, source="a catalog", as_of_at="2026-01-01T00:00:00Z", **fields,
    )  # fmt: skip


def priced(member: Offer, *overrides: PriceOverride) -> Offer:
    return with_overrides(PriceSnapshot("sha256:0", (member,), ()), overrides, NOW).offers[0]


def test_a_discount_keeps_date_and_doubts():
    mine = priced(offer(flags=("not_availability",)), PriceOverride(discount=0.15))
    assert mine.price_usd_per_hour == pytest.approx(34)
    assert (mine.source, mine.as_of_at) == ("yours: a catalog", "2026-01-01T00:00:00Z")
    assert mine.flags == ("not_availability",)


def test_a_discount_makes_no_price_of_an_unknown_one():
    suspect = offer(price=None, flags=("suspect_price",), posted_usd_per_hour=20.0)
    assert priced(suspect, PriceOverride(discount=0.5)) == suspect


def test_your_rate_replaces_price_date_and_doubts_about_the_price():
    suspect = offer(price=None, flags=("not_availability", "suspect_price"), posted_usd_per_hour=20.0)
    mine = priced(suspect, PriceOverride(usd_per_gpu_hour=3.5))
    assert (mine.price_usd_per_hour, mine.price_usd_per_gpu_hour, mine.source) == (28.0, 3.5, "yours")
    assert (mine.as_of_at, mine.flags, mine.posted_usd_per_hour) == (
        "2026-06-01T12:00:00Z",
        ("not_availability",),
        None,
    )
    assert priced(offer(), PriceOverride(usd_per_hour=30)).price_usd_per_hour == 30


@pytest.mark.parametrize(
    ("override", "hit"),
    [
        (PriceOverride(usd_per_hour=1), True),
        (
            PriceOverride(cloud="aws", region="us-east-1", gpu="H100", market="on_demand", usd_per_hour=1),
            True,
        ),
        (PriceOverride(instance_type="p5.48xlarge", usd_per_hour=1), True),
        (PriceOverride(cloud="gcp", usd_per_hour=1), False),
        (PriceOverride(market="spot", usd_per_hour=1), False),
        (PriceOverride(gpu="H200", usd_per_hour=1), False),
    ],
)
def test_only_matching_offers_change(override: PriceOverride, hit: bool):
    assert (priced(offer(), override).price_usd_per_hour == 1) is hit


def test_the_first_match_counts():
    assert (
        priced(offer(), PriceOverride(discount=0.5), PriceOverride(usd_per_hour=1)).price_usd_per_hour == 20
    )


def test_the_snapshot_id_names_the_prices_it_was_made_with():
    snapshot = PriceSnapshot("sha256:0", (offer(),), ())
    once = with_overrides(snapshot, [PriceOverride(discount=0.5)], NOW).snapshot_id
    assert with_overrides(snapshot, [], NOW) is snapshot
    assert once == with_overrides(snapshot, [PriceOverride(discount=0.5)], NOW).snapshot_id
    assert (
        len(
            {
                snapshot.snapshot_id,
                once,
                with_overrides(snapshot, [PriceOverride(discount=0.4)], NOW).snapshot_id,
            }
        )
        == 3
    )


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.01, 1e5))
def test_a_discounted_price_is_never_dearer_nor_negative(discount: float, price: float):
    mine = priced(offer(price=price), PriceOverride(discount=discount)).price_usd_per_hour
    assert mine is not None and 0 <= mine <= price + 1e-6


def test_from_the_file_to_the_answer(plan_home: Path):
    (plan_home / "config.yaml").write_text(
        "prices:\n  overrides:\n"
        "  - {cloud: AWS, gpu: h100, market: on_demand, discount: 25%}\n"
        "  - {cloud: gcp, gpu: H100, market: on_demand, usd_per_gpu_hour: $2.50}\n"
    )
    words = [
        "offers",
        "--gpu",
        "H100:8",
        "--on-demand",
        "--cloud",
        "gcp",
        "--cloud",
        "aws",
        "-o",
        "json",
        "--limit",
        "0",
    ]
    result = CliRunner(mix_stderr=False).invoke(cli, words, obj=App(now=lambda: NOW))
    offers = json.loads(result.stdout)["offers"]
    gcp = [row for row in offers if row["cloud"] == "gcp"]
    assert {(row["price_usd_per_h"], row["source"]) for row in gcp} == {("20", "yours")}
    aws = [row for row in offers if row["cloud"] == "aws" and row["region"] == "us-east-1"]
    assert {row["price_usd_per_h"] for row in aws if row["price_usd_per_h"]} == {"41.28"}  # 55.04 less 25 %


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {cloud: aws}", "needs exactly one of discount"),
        ("- {discount: 10%, usd_per_hour: 3}", "needs exactly one of discount"),
        ("- {discount: 110%}", "is not a discount"),
        ("- {discount: 15}", "is not a discount"),
        ("- {gpu: H10O, usd_per_hour: 3}", "did you mean H100"),
        ("- {usd_per_hour: -3}", "-3"),
        ("- {cloudd: aws, usd_per_hour: 3}", "cloudd: unknown key"),
    ],
)
def test_a_wrong_override_is_a_finding_with_its_place(tmp_path: Path, text: str, message: str):
    path = tmp_path / "config.yaml"
    path.write_text(f"prices:\n  overrides:\n  {text}\n")
    with pytest.raises(SpecError, match=r"config\.yaml:3:") as caught:
        load_config(path)
    assert message in str(caught.value)


def credited(path: Path, *credits: str) -> Path:
    path.joinpath("config.yaml").write_text(f"prices: {{overrides: [{', '.join(credits)}]}}\n")
    return EXAMPLES / "llama-3.1-8b-lora.yaml"


def estimated(spec: Path, *words: str) -> dict:
    words = ("estimate", str(spec), "--gpu", "H100", "--count", "8", "--market", "on_demand", *words)
    result = CliRunner(mix_stderr=False).invoke(cli, [*words, "-o", "json"], obj=App(now=lambda: NOW))
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_credits_change_the_order_and_never_the_cost(plan_home: Path):
    spec = credited(plan_home)
    plain = estimated(spec)["candidates"]
    assert all(row["after_credits_usd"] is None for row in plain)
    dear = next(row["offer"]["cloud"] for row in plain if row["offer"]["cloud"] != plain[0]["offer"]["cloud"])
    document = estimated(credited(plan_home, f"{{cloud: {dear}, credit: 10000usd, expires: 2027-01-31}}"))
    first = document["candidates"][0]
    before = next(row for row in plain if row["offer"] == first["offer"])
    assert (first["offer"]["cloud"], first["cost_usd"]) == (dear, before["cost_usd"])
    for name in ("p10", "p50", "p90"):
        assert 0 <= float(first["after_credits_usd"][name]) < float(first["cost_usd"][name])
    rest = {key: float(value) for key, value in first["cost_tree_usd"].items() if value is not None}
    not_machines = rest["storage"] + rest["requests"] + rest["controller"]
    assert float(first["after_credits_usd"]["p50"]) == pytest.approx(not_machines, abs=1e-4)
    (told,) = (row for row in document["assumptions"] if row["name"] == f"credits with {dear}")
    assert told["value"] == 10000 and told["source"].startswith("yours: prices.overrides, until 2027-01-31")


def test_a_small_credit_pays_a_part(plan_home: Path):
    first = estimated(
        credited(plan_home, "{cloud: aws, credit: 1}", "{cloud: aws, credit: 2usd}"), "--fail-over", "900"
    )
    row = next(row for row in first["candidates"] if row["offer"]["cloud"] == "aws")
    for name in ("p10", "p50", "p90"):
        assert float(row["cost_usd"][name]) - float(row["after_credits_usd"][name]) == pytest.approx(
            3, abs=1e-5
        )


@pytest.mark.parametrize(("expires", "said"), [("2026-05-01", True), ("2026-06-01T12:03:00Z", False)])
def test_a_credit_that_ends_before_the_job_counts_nothing(plan_home: Path, expires: str, said: bool):
    document = estimated(credited(plan_home, f"{{cloud: aws, credit: 9000usd, expires: '{expires}'}}"))
    assert all(row["after_credits_usd"] is None for row in document["candidates"])
    warned = [row["message"] for row in document["warnings"] if row["code"] == "credits_expired"]
    assert bool(warned) is said and all("$9,000.00 with aws ended on 2026-05-01" in text for text in warned)


def test_credits_are_shown_to_people_before_the_rest(plan_home: Path):
    spec = credited(plan_home, "{cloud: aws, credit: 9000usd}")
    words = ["estimate", str(spec), "--gpu", "A100-80GB", "--count", "8"]
    text = CliRunner(mix_stderr=False).invoke(cli, words, obj=App(now=lambda: NOW)).stdout
    assert "you pay $" in text and "of your credits with aws go into it, you pay " in text


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{credit: 5usd}", "a credit is with a cloud"),
        ("{cloud: aws, gpu: H100, credit: 5usd}", "a credit is with a cloud"),
        ("{cloud: aws, credit: 5usd, discount: 10%}", "exactly one"),
        ("{cloud: aws, discount: 10%, expires: 2027-01-01}", "expires is for a credit"),
        ("{cloud: aws, credit: 0}", "credit"),
        ("{cloud: aws, credit: 5, expires: soon}", "is not a moment"),
    ],
)
def test_what_is_no_credit_is_said(plan_home: Path, entry: str, said: str):
    credited(plan_home, entry)
    with pytest.raises(SpecError, match=said):
        load_config(plan_home / "config.yaml")
