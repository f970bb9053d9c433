"""Prices asked for at the sellers: answers as they give them, from servers on this machine."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers import aws_bulk, aws_spot_feed, oci_estimator, vast_bundles
from providers.errors import StorageError, UsageError
from providers.live_prices import Asked, Place, halves, joined, priced
from providers.live_sources import SOURCES, refreshed
from providers.offers import Coverage
from providers.price_table import PriceRow, PriceTable, snapshot_of
from tests.file_host import FileHost, file_host

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
P5 = PriceRow(
    "aws", "us-east-1", "use1-az1", "p5.48xlarge", "H100", 8, 80.0, 192.0, 2048.0, 55.04, 12.5, "a catalog",
    "2026-05-20", "", "",
)  # fmt: skip
G6 = P5._replace(
    region="eu-west-1", zone="euw1-az2", instance_type="g6.xlarge", gpu="L4", gpus=1,
    on_demand_usd_per_hour=0.9, spot_usd_per_hour=0.3,
)  # fmt: skip
H100 = P5._replace(
    cloud="oci", region="eu-paris-1", zone=None, instance_type="BM.GPU.H100.8", spot_usd_per_hour=None
)


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as running:
        yield running


def asked(host: FileHost, *rows: PriceRow, **fields: Any) -> Asked:
    known = Asked(tuple(halves(rows)), host.url, Path(), NOW, sleep=lambda seconds: None)
    return replace(known, **fields)


# AWS price list

COLUMNS = (
    "SKU", "TermType", "PriceDescription", "Unit", "PricePerUnit", "Currency", "Instance Type", "Operating System",
    "Tenancy", "CapacityStatus", "Pre Installed S/W", "Region Code",
)  # fmt: skip
LINE = {
    "SKU": "X1", "TermType": "OnDemand", "PriceDescription": "$55 per On Demand, \"Linux\"", "Unit": "Hrs",
    "PricePerUnit": "50.0000000000", "Currency": "USD", "Instance Type": "p5.48xlarge", "Operating System": "Linux",
    "Tenancy": "Shared", "CapacityStatus": "Used", "Pre Installed S/W": "NA", "Region Code": "us-east-1",
}  # fmt: skip
HEAD = '"FormatVersion","v1.0"\n"Disclaimer","This pricing list is for informational purposes only"\n"Version","2026"\n'


def price_list(*lines: dict[str, str]) -> bytes:
    rows = [COLUMNS, *(tuple({**LINE, **line}[name] for name in COLUMNS) for line in lines)]
    quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows)
    return (HEAD + "\n".join(quoted) + "\n").encode()


def test_only_shared_linux_machines_by_the_hour_count(host: FileHost):
    host.files["/us-east-1/index.csv"] = price_list(
        {}, {"Instance Type": "m7i.large", "PricePerUnit": "0.1"}, {"Operating System": "Windows", "PricePerUnit": "9"},
        {"Tenancy": "Dedicated", "PricePerUnit": "8"}, {"CapacityStatus": "UnusedCapacityReservation"},
        {"TermType": "Reserved", "PricePerUnit": "6"}, {"Pre Installed S/W": "SQL Std", "PricePerUnit": "5"},
        {"PricePerUnit": "0.0000000000"}, {"Currency": "CNY", "PricePerUnit": "4"},
        {"Unit": "Quantity", "PricePerUnit": "3"},
    )  # fmt: skip
    other = P5._replace(zone="use1-az4")
    reading = aws_bulk.read(asked(host, P5, other, G6, regions=frozenset({"us-east-1"})))
    rows = {(row.zone, row.as_of): row for row in joined(reading.rows)}
    assert reading.fresh == 2
    for zone in ("use1-az1", "use1-az4"):
        fresh = rows[zone, "2026-11-25"]
        assert (fresh.on_demand_usd_per_hour, fresh.source) == (50.0, "AWS price list")
        assert rows[zone, "2026-05-20"].spot_usd_per_hour == 12.5  # of its own date, in a row of its own
    assert rows["euw1-az2", "2026-05-20"] == G6


def test_a_list_is_read_as_it_arrives(host: FileHost):
    filler = {"Instance Type": "m7i.large", "PriceDescription": "x" * 400}
    host.files["/us-east-1/index.csv"] = price_list(*[filler] * 20_000, {})
    size = len(host.files["/us-east-1/index.csv"])
    url = f"{host.url}/us-east-1/index.csv"
    assert aws_bulk.region_prices(url, frozenset({"p5.48xlarge"})) == {"p5.48xlarge": 50.0}
    tracemalloc.start()
    try:
        aws_bulk.region_prices(url, frozenset({"p5.48xlarge"}))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 10_000_000 and peak < size / 4  # the server's own copies are counted too


def test_half_a_list_is_a_failure_not_fewer_prices(host: FileHost):
    host.files["/us-east-1/index.csv"] = price_list(*[{}] * 2000)
    host.trouble("/us-east-1/index.csv").cut_after = [100_000]
    with pytest.raises(StorageError, match=r"100,000 of .* bytes arrived"):
        aws_bulk.read(asked(host, P5))


@pytest.mark.parametrize("body", [b"<html>", b"", b'"a","b"\n"1","2"\n' * 30, b"\xff\xfe\x00"])
def test_another_list_is_refused(host: FileHost, body: bytes):
    host.files["/us-east-1/index.csv"] = body
    with pytest.raises(StorageError, match="cannot use"):
        aws_bulk.read(asked(host, P5))


# AWS spot feed


def feed(*regions: tuple[str, str, str]) -> bytes:
    config = {
        "rate": "perhr",
        "valueColumns": ["linux", "mswin"],
        "currencies": ["USD"],
        "regions": [
            {
                "region": name,
                "footnotes": {"*": "notAvailableForCCorCGPU"},
                "instanceTypes": [
                    {
                        "type": "gpuInstanceCurrentGen",
                        "sizes": [
                            {
                                "size": size,
                                "valueColumns": [
                                    {"name": "mswin", "prices": {"USD": "99"}},
                                    {"name": "linux", "prices": {"USD": price}},
                                ],
                            }
                        ],
                    }
                ],
            }
            for name, size, price in regions
        ],
    }
    return b"callback(" + json.dumps({"vers": 0.01, "config": config}).encode() + b");"


def test_the_feeds_prices_are_of_regions_and_replace_old_ones_of_zones(host: FileHost):
    host.files["/"] = feed(
        ("us-east", "p5.48xlarge", "14.1"), ("eu-ireland", "g6.xlarge", "N/A*"), ("us-east", "m5.large", "1")
    )
    rows = joined(aws_spot_feed.read(asked(host, P5, G6, url=host.url + "/")).rows)
    spots = {row.region: row for row in rows if row.spot_usd_per_hour is not None}
    east = spots["us-east-1"]
    assert spots["eu-west-1"] == G6  # the feed names no price there
    assert (east.region, east.zone, east.spot_usd_per_hour, east.as_of) == (
        "us-east-1",
        None,
        14.1,
        "2026-11-25",
    )
    assert east.spot_flags == "region_price"
    offers = snapshot_of(PriceTable((P5._replace(spot_usd_per_hour=None), east), ())).offers
    assert [(offer.market, offer.price_usd_per_hour) for offer in offers] == [
        ("on_demand", 55.04),
        ("spot", 14.1),
    ]


def test_prices_of_zones_from_today_are_better_than_the_feed(host: FileHost):
    zone = next(row for row in halves([P5._replace(as_of="2026-11-25")]) if row.spot_usd_per_hour)
    found = priced(
        asked(host, P5, rows=(zone,)),
        {Place("us-east-1", None, "p5.48xlarge"): 14.1},
        "spot",
        "feed",
        "region_price",
    )
    assert {row.zone for row in found.rows} == {"use1-az1", None}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"callback([])",
        b'callback({"config": {"rate": "perday", "currencies": ["USD"], "regions": []}})',
    ],
)
def test_another_feed_is_refused(host: FileHost, body: bytes):
    host.files["/"] = body
    with pytest.raises(StorageError, match="not the AWS spot feed"):
        aws_spot_feed.read(asked(host, P5, url=host.url + "/"))


def test_scarce_and_floor_prices_are_flagged_against_the_on_demand_price(host: FileHost):
    doubts = ((55.04, "scarce"), (5.504, "spot_floor"), (60.0, "suspect_price"), (0.5, "suspect_price"))
    for price, flag in doubts:
        host.files["/"] = feed(("us-east", "p5.48xlarge", str(price)))
        rows = aws_spot_feed.read(asked(host, P5, url=host.url + "/")).rows
        assert {row.spot_flags for row in rows if row.zone is None} == {
            "|".join(sorted((flag, "region_price")))
        }


# OCI


def test_a_shape_costs_its_gpus_times_the_product(host: FileHost):
    def product(number: str, value: float, **more: object) -> dict[str, object]:
        prices = [{"model": "PAY_AS_YOU_GO", "value": value}]
        localized = [{"currencyCode": "EUR", "prices": [{"model": "PAY_AS_YOU_GO", "value": 1}]}]
        localized.append({"currencyCode": "USD", "prices": prices})
        return {"partNumber": number, "pricetype": "HOUR", "currencyCodeLocalizations": localized, **more}

    def shape(name: str, gpus: int | None, *numbers: str, **more: object) -> dict[str, object]:
        billed = [{"partNumber": number, "type": {"value": "ocpu"}, "qty": 112} for number in numbers]
        return {"name": name, "gpuQty": gpus, "products": billed, "status": "ACTIVE", "hidden": False, **more}

    shapes = [
        shape("BM.GPU.H100.8", 8, "B98415"), shape("VM.Standard.E5.Flex", None, "B97384"),
        shape("BM.GPU.X.8", 8, "B1", "B2"),
        shape("BM.GPU.OLD.8", 8, "B98415", status="END_OF_LIFE"), shape("BM.GPU.MONTH.8", 8, "B3"),
    ]  # fmt: skip
    host.files["/shapes.json"] = json.dumps({"items": shapes}).encode()
    products = [product("B98415", 10.0), product("B97384", 0.03), product("B3", 900, pricetype="MONTH")]
    host.files["/products.json"] = json.dumps({"items": products}).encode()
    unnamed = H100._replace(instance_type="BM.GPU.MONTH.8")
    rows = {row.instance_type: row for row in oci_estimator.read(asked(host, H100, unnamed)).rows}
    fresh = rows["BM.GPU.H100.8"]
    assert (fresh.on_demand_usd_per_hour, fresh.as_of, fresh.on_demand_flags) == (
        80.0,
        "2026-11-25",
        "not_availability",
    )
    assert rows["BM.GPU.MONTH.8"] == unnamed


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"items": []}', b'{"items": [3]}'])
def test_other_estimator_data_is_refused(host: FileHost, body: bytes):
    host.files["/shapes.json"] = host.files["/products.json"] = body
    with pytest.raises(StorageError, match="not the estimator's data"):
        oci_estimator.read(asked(host, H100))


# Vast

BUNDLE = {
    "id": 12, "gpu_name": "RTX 4090", "num_gpus": 2, "gpu_ram": 24564, "dph_total": 0.82, "min_bid": 0.41,
    "geolocation": "Sweden, SE", "cpu_cores": 64, "cpu_cores_effective": 32.0, "cpu_ram": 257_000,
}  # fmt: skip


def test_alike_machines_become_one_at_the_lowest_price():
    offers = [
        BUNDLE, {**BUNDLE, "id": 13, "dph_total": 0.7, "min_bid": 0.0}, {**BUNDLE, "num_gpus": 1, "geolocation": None},
        {**BUNDLE, "gpu_name": "Abacus 9"}, {**BUNDLE, "dph_total": 0}, {**BUNDLE, "num_gpus": "x"}, 7,
        {**BUNDLE, "gpu_name": "A100 SXM4", "gpu_ram": 81920, "cpu_cores": None},
    ]  # fmt: skip
    rows = vast_bundles.bundle_rows(offers, "2026-11-25")
    assert [(row.region, row.gpu, row.gpus, row.on_demand_usd_per_hour) for row in rows] == [
        ("Sweden, SE", "A100-80GB", 2, 0.82), ("Sweden, SE", "RTX4090", 2, 0.7), ("unknown", "RTX4090", 1, 0.82),
    ]  # fmt: skip
    cheap = rows[1]
    assert cheap.spot_usd_per_hour is None  # a bid of 0.00 means that there is none
    assert (rows[2].spot_usd_per_hour, rows[2].spot_flags) == (0.41, "lowest_bid")
    assert (cheap.vcpus, cheap.ram_gib, cheap.gpu_mem_gib) == (32.0, 125.0, 24)


def test_machines_that_can_no_longer_be_rented_are_gone(tmp_path: Path):
    with file_host() as host:
        table = PriceTable(
            (P5, P5._replace(cloud="vast", instance_type="8x-H100")), (Coverage("vast", 2, False, None),)
        )
        source = next(source for source in SOURCES if source.name == "vast")
        host.posts["/"] = json.dumps({"offers": [BUNDLE]}).encode()
        fresh, reading = refreshed(table, source, asked(host, url=host.url + "/"))
        assert reading.fresh == 1
        assert sorted((row.cloud, row.gpu) for row in fresh.rows) == [("aws", "H100"), ("vast", "RTX4090")]
        assert [(entry.cloud, entry.rows) for entry in fresh.coverage] == [("vast", 2)]
        for body in (b'{"offers": []}', b'{"error": "down"}', b"<html>"):
            host.posts["/"] = body
            with pytest.raises(StorageError):
                refreshed(table, source, asked(host, url=host.url + "/"))


# All of them


# aws-zones is asked through boto3: test_aws_spot_zones.py.
@pytest.mark.parametrize("source", [one for one in SOURCES if one.url], ids=lambda source: source.name)
def test_a_source_that_is_not_there_fails_and_is_no_empty_success(
    source: Any, host: FileHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    table = PriceTable((P5._replace(cloud=source.cloud),), ())
    with pytest.raises(StorageError):
        refreshed(table, source, asked(host, url=host.url + "/none", staging=tmp_path))
    monkeypatch.setattr("providers.web._WAITS_S", ())
    with pytest.raises(StorageError):
        refreshed(table, source, asked(host, url="http://localhost:9/x", staging=tmp_path))
    with pytest.raises(UsageError, match="not an https address"):
        refreshed(table, source, asked(host, url="http://prices.example/x", staging=tmp_path))


def test_halves_and_joined_are_each_others_reverse():
    rows = [P5, G6, H100]
    assert sorted(joined(list(halves(rows)))) == sorted(rows)
    assert snapshot_of(PriceTable(tuple(halves(rows)), ())).offers
