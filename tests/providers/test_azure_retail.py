"""Live Azure prices: which items count, pages, new regions, and failing visibly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from providers.azure_retail import machine_prices, read
from providers.errors import StorageError
from providers.live_prices import Asked, halves, joined
from providers.price_table import PriceRow
from tests.file_host import FileHost, file_host

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ND = "Standard_ND96isr_H100_v5"
ROW = PriceRow(
    "azure",
    "eastus",
    None,
    ND,
    "H100",
    8,
    80.0,
    96.0,
    1900.0,
    98.32,
    18.17,
    "a catalog",
    "2026-05-20",
    "",
    "spot_floor",
)


def item(
    price: float, sku: str = "ND96isr H100 v5", region: str = "eastus", **more: object
) -> dict[str, object]:
    fixed = {
        "type": "Consumption",
        "unitOfMeasure": "1 Hour",
        "currencyCode": "USD",
        "productName": "ND H100 v5 Series",
    }
    return {"armRegionName": region, "skuName": sku, "retailPrice": price, **fixed, **more}


def path_of(instance_type: str) -> str:
    query = f"serviceName eq 'Virtual Machines' and armSkuName eq '{instance_type}' and priceType eq 'Consumption'"
    return f"/prices?currencyCode=USD&$filter={quote(query)}"


def serve(host: FileHost, path: str, *items: object, more: str | None = None) -> None:
    host.files[path] = json.dumps({"Items": list(items), "NextPageLink": more}).encode()


@pytest.fixture
def host() -> Iterator[FileHost]:
    with file_host() as running:
        yield running


def ask(host: FileHost, folder: Path):
    return machine_prices(ND, host.url + "/prices", folder, lambda seconds: None)


def test_only_linux_by_the_hour_in_dollars_counts(host: FileHost, tmp_path: Path):
    serve(
        host, path_of(ND),
        item(98.32), item(39.3, "ND96isr H100 v5 Spot"),
        item(10, "ND96isr H100 v5 Low Priority"), item(120, productName="ND H100 v5 Series Windows"),
        item(5, type="Reservation"), item(6, unitOfMeasure="1 Month"), item(7, currencyCode="EUR"), item(0),
    )  # fmt: skip
    assert ask(host, tmp_path) == {("eastus", "on_demand"): 98.32, ("eastus", "spot"): 39.3}


def test_pages_are_followed_on_the_same_server_only(host: FileHost, tmp_path: Path):
    serve(host, path_of(ND), item(98.32), more=f"{host.url}/second")
    serve(host, "/second", item(110.0, region="westeurope"))
    assert len(ask(host, tmp_path)) == 2
    serve(host, "/second", item(1.0), more="https://elsewhere.example/third")
    with pytest.raises(StorageError, match="another server"):
        ask(host, tmp_path)
    serve(host, "/second", item(1.0), more=f"{host.url}/second")
    with pytest.raises(StorageError, match="more than 50 pages"):
        ask(host, tmp_path)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"Items": 3}', b'{"Items": [3]}', b""])
def test_another_answer_is_refused(host: FileHost, tmp_path: Path, body: bytes):
    host.files[path_of(ND)] = body
    with pytest.raises(StorageError, match="not an answer of the Retail Prices API"):
        ask(host, tmp_path)


def test_an_absent_api_is_a_failure_not_an_empty_success(host: FileHost, tmp_path: Path):
    with pytest.raises(StorageError, match="does not exist"):
        ask(host, tmp_path)


def test_rows_get_todays_prices_and_new_regions(host: FileHost, tmp_path: Path):
    serve(host, path_of(ND), item(90.0), item(90.0, "ND96isr H100 v5 Spot"), item(80.0, region="uksouth"))
    silent = ROW._replace(region="westus")
    asked = Asked(tuple(halves((ROW, silent))), host.url + "/prices", tmp_path, NOW)
    east, uk, west = sorted(joined(read(asked).rows), key=lambda row: row.region)
    assert (east.on_demand_usd_per_hour, east.spot_usd_per_hour, east.spot_flags) == (90, 90, "scarce")
    assert (east.as_of, east.source) == ("2026-06-01", "Azure Retail Prices API")
    assert (uk.region, uk.on_demand_usd_per_hour, uk.spot_usd_per_hour, uk.gpus) == ("uksouth", 80, None, 8)
    assert west == silent
