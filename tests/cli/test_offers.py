"""`plan offers`: filters, order, groups, footers, formats, exit codes."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from planner.cli.context import App
from planner.cli.main import cli
from providers.offers import Coverage
from providers.price_table import PriceRow, PriceTable, write_table

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def machine(
    cloud: str, instance: str, gpu: str, gpus: int, price: float | None, spot: float | None, **more
) -> PriceRow:
    fields = {"as_of": "2026-05-30", "on_demand_flags": "", "spot_flags": "", "region": "r1", **more}
    region = fields.pop("region")
    return PriceRow(
        cloud, region, None, instance, gpu, gpus, 80.0, 8.0, 64.0, price, spot, "a test",
        fields["as_of"], fields["on_demand_flags"], fields["spot_flags"],
    )  # fmt: skip


ROWS = (
    machine("aws", "p5", "H100", 8, 55.04, 30.0),
    machine("aws", "p4de", "A100-80GB", 8, 27.5, 9.0, region="r2"),
    machine("gcp", "a3", "H100", 8, 43.07, 28.0, on_demand_flags="suspect_price"),
    machine("azure", "nd", "H100", 8, 98.0, None, as_of="2026-01-01"),
    machine("hyperstack", "n3", "H100-PCIe", 8, 15.6, None, as_of=None),
    machine("nebius", "h1", "H100", 1, 2.95, 1.25),
)
COVERAGE = tuple(
    Coverage(cloud, 2, cloud != "aws", "2026-01-01T00:00:00Z")
    for cloud in ("aws", "azure", "gcp", "hyperstack", "nebius")
)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    write_table(path, PriceTable(ROWS, COVERAGE))
    return path


def run(prices: Path, *args: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(
        cli, ["offers", "--prices", str(prices), *args], obj=App(now=lambda: NOW)
    )


def answer(prices: Path, *args: str) -> dict:
    result = run(prices, "-o", "json", *args)
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def machines(document: dict) -> list[tuple[str, str]]:
    return [(offer["instance_type"], offer["market"]) for offer in document["offers"]]


def test_lowest_price_of_a_gpu_hour_first_and_unknown_prices_last(prices: Path):
    document = answer(prices)
    known = [offer["price_usd_per_gpu_h"] for offer in document["offers"] if offer["price_usd_per_gpu_h"]]
    assert [float(price) for price in known] == sorted(float(price) for price in known)
    assert machines(document)[-1] == ("a3", "on_demand")
    assert document["offers"][-1]["price_usd_per_h"] is None
    assert document["offers"][-1]["posted_usd_per_h"] == "43.07"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--gpu", "A100-80GB:8"], [("p4de", "spot"), ("p4de", "on_demand")]),
        (["--gpu", "h100:8", "--spot"], [("a3", "spot"), ("p5", "spot")]),
        (["--gpu", "H100:1..4", "--on-demand"], [("h1", "on_demand")]),
        (["--cloud", "AWS", "--on-demand"], [("p4de", "on_demand"), ("p5", "on_demand")]),
        (["--region", "r2"], [("p4de", "spot"), ("p4de", "on_demand")]),
        (
            ["--gpu", "H100:8", "--on-demand", "--sort", "price", "--limit", "2"],
            [("p5", "on_demand"), ("nd", "on_demand")],
        ),
        (
            ["--gpu", "H100:8", "--on-demand", "--sort", "age"],
            [("p5", "on_demand"), ("a3", "on_demand"), ("nd", "on_demand")],
        ),
        (
            ["--gpu", "H100:8", "--on-demand", "--sort", "cloud"],
            [("p5", "on_demand"), ("nd", "on_demand"), ("a3", "on_demand")],
        ),
    ],
)
def test_filters_and_order(prices: Path, args: list[str], expected: list[tuple[str, str]]):
    assert machines(answer(prices, *args)) == expected


def test_both_markets_when_both_are_named(prices: Path):
    assert len(machines(answer(prices, "--gpu", "A100-80GB", "--spot", "--on-demand"))) == 2


def test_groups_count_and_name_the_lowest(prices: Path):
    groups = answer(prices, "--gpu", "H100", "--group-by", "cloud")["groups"]
    assert [group["name"] for group in groups] == ["nebius", "gcp", "aws", "azure"]
    gcp = groups[1]
    assert (gcp["offers"], gcp["priced"], gcp["lowest_usd_per_gpu_h"]) == (2, 1, "3.5")
    assert gcp["lowest_offer"]["market"] == "spot"


def test_json_counts_what_it_leaves_out(prices: Path):
    document = answer(prices, "--gpu", "H100:8", "--spot", "--limit", "1")
    assert (document["schema"], document["matched"], document["total"]) == ("tuneplan/offers", 2, 10)
    assert sum(entry["count"] for entry in document["left_out"]) == 8
    assert document["other_boards"] == [{"gpu": "H100-PCIe", "count": 1}]
    assert document["prices"]["origin"] == "file"
    assert len(document["offers"]) == 1


def test_table_shows_units_ages_doubts_and_never_claims_the_cheapest(prices: Path):
    result = run(prices, "--gpu", "H100:8")
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "cloud"
    assert all(name in lines[0] for name in ("$/h", "$/GPU-h", "GPUs", "market", "age", "doubts"))
    assert "suspect_price (posted 43.07)" in result.stdout
    assert "known only in part: aws; lower prices may exist there" in lines
    assert "not shown: 1 offers of H100-PCIe, another board of that chip" in lines
    assert lines[-1].startswith("shown 5 of 5 matching offers, of 10 in the snapshot")
    assert "cheapest" not in result.stdout
    assert "\x1b" not in result.stdout


def test_old_prices_are_warned_about_on_stderr_only(prices: Path):
    result = run(prices, "--gpu", "H100:8", "--on-demand")
    assert result.stderr == "warning: 1 of 3 prices are older than 7 days or undated\n"
    assert run(prices, "--gpu", "H100:8", "--spot").stderr == ""
    assert answer(prices, "--cloud", "azure")["warnings"][0]["code"] == "stale_prices"
    assert answer(prices, "--cloud", "azure", "--max-age-days", "365")["warnings"] == []


def test_strict_leaves_old_and_undated_prices_out(prices: Path):
    document = answer(prices, "--strict")
    assert {offer["cloud"] for offer in document["offers"]} == {"aws", "gcp", "nebius"}
    result = run(prices, "--strict", "--cloud", "azure")
    assert result.exit_code == 3
    assert "1 offers left out: price too old or undated" in result.stderr


def test_nothing_matches_is_exit_3_with_what_is_near(prices: Path):
    result = run(prices, "--gpu", "H100:16", "-o", "json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["errors"][0]["code"] == "nothing_fits"
    assert "1 offers have H100-PCIe" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--gpu", "H10O"], "did you mean H100"),
        (["--cloud", "awz"], "did you mean aws?"),
        (["--region", "r9"], "the prices in use know no region `r9`"),
        (["--gpu", "H100:0"], "--gpu H100:0"),
        (["--sort", "luck"], "luck"),
    ],
)
def test_wrong_questions_are_exit_2(prices: Path, args: list[str], message: str):
    result = run(prices, *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_csv_has_an_empty_cell_for_what_is_unknown(prices: Path):
    result = run(prices, "--gpu", "H100:8", "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 5
    assert (rows[-1]["price_usd_per_h"], rows[-1]["flags"]) == ("", "suspect_price")
    grouped = run(prices, "--group-by", "market", "-o", "csv")
    assert [row["name"] for row in csv.DictReader(io.StringIO(grouped.stdout))] == ["spot", "on_demand"]


def test_the_embedded_prices_answer_without_any_set_up():
    result = CliRunner(mix_stderr=False).invoke(
        cli, ["offers", "--gpu", "A100-80GB:8", "--spot", "-o", "json"]
    )
    document = json.loads(result.stdout)
    assert document["prices"]["origin"] == "embedded"
    assert document["matched"] > 20
    assert all(offer["gpu"] == "A100-80GB" and offer["market"] == "spot" for offer in document["offers"])
