"""Live Azure prices from the public Retail Prices API, which needs no credentials.

One query a machine type of the snapshot gives its on-demand and spot price in every region. The API knows prices,
not machines: GPU, memory and CPUs come from the rows that are there, so a machine type that no row has is not found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from providers.download import download
from providers.live_prices import Asked, Place, Reading, priced
from providers.web import unusable

URL = "https://prices.azure.com/api/retail/prices"
SOURCE = "Azure Retail Prices API"
_MOST_PAGES = 50

# (region, market) -> USD per hour
Prices = dict[tuple[str, str], float]


def read(asked: Asked) -> Reading:
    """On-demand and spot prices of all machine types that are known, in every region that has them.

    Raises:
        StorageError: The API could not be read, or answered something else.
        UsageError: Not an https address.
    """
    found: dict[str, dict[Place, float]] = {"on_demand": {}, "spot": {}}
    for instance_type in sorted(asked.machine_types()):
        prices = machine_prices(instance_type, asked.url, asked.staging, asked.sleep)
        for (region, market), price in prices.items():
            if asked.regions is None or region in asked.regions:
                found[market][Place(region, None, instance_type)] = price
    named = found["on_demand"].keys() | found["spot"].keys()
    # What Azure names without a spot price has none any more.
    left = tuple(row for row in asked.rows if Place(row.region, None, row.instance_type or "") not in named)
    given = priced(asked, found["on_demand"], "on_demand", SOURCE)
    bids = priced(replace(asked, rows=given.rows), found["spot"], "spot", SOURCE)
    fresh = tuple(row for row in bids.rows if Place(row.region, None, row.instance_type or "") in named)
    return Reading(
        (*left, *(row for row in fresh if (row.source, row.as_of) == (SOURCE, asked.today))),
        given.fresh + bids.fresh,
    )


def machine_prices(
    instance_type: str, base_url: str, staging: Path, sleep: Callable[[float], None]
) -> Prices:
    """Prices of one machine type in all regions, Linux, US dollars.

    Raises:
        StorageError: The API could not be read, or answered something else.
    """
    prices: Prices = {}
    for item in _items(instance_type, base_url, staging, sleep):
        market = _market(item)
        price = item.get("retailPrice")
        region = item.get("armRegionName")
        if market and region and isinstance(price, int | float) and math.isfinite(price) and price > 0:
            known = prices.get((region, market), math.inf)
            prices[(region, market)] = min(known, float(price))
    return prices


def _market(item: dict[str, Any]) -> str | None:
    """The market an item is the price of, None for Windows, reservations, other units and the retired Low Priority."""
    names = f"{item.get('skuName', '')} {item.get('productName', '')}"
    hourly = item.get("type") == "Consumption" and item.get("unitOfMeasure") == "1 Hour"
    if not hourly or item.get("currencyCode") != "USD" or "Windows" in names or "Low Priority" in names:
        return None
    return "spot" if "Spot" in str(item.get("skuName", "")) else "on_demand"


def _items(
    instance_type: str, base_url: str, staging: Path, sleep: Callable[[float], None]
) -> Iterator[dict[str, Any]]:
    query = f"serviceName eq 'Virtual Machines' and armSkuName eq '{instance_type}' and priceType eq 'Consumption'"
    url: str | None = f"{base_url}?currencyCode=USD&$filter={quote(query)}"
    target = staging / "azure-page.json"
    for _ in range(_MOST_PAGES):
        if not url:
            return
        if urlsplit(url).netloc != urlsplit(base_url).netloc:
            raise unusable(url, "it sends us to another server")
        target.unlink(missing_ok=True)
        if download(url, target, sleep=sleep) is None:
            raise unusable(url, "it does not exist")
        page = _page(url, target)
        yield from page["Items"]
        url = page.get("NextPageLink")
    raise unusable(base_url, f"it has more than {_MOST_PAGES} pages for {instance_type}")


def _page(url: str, target: Path) -> dict[str, Any]:
    try:
        page = json.loads(target.read_bytes())
    except ValueError:
        page = None
    items = page.get("Items") if isinstance(page, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise unusable(url, "it is not an answer of the Retail Prices API")
    known: dict[str, Any] = page
    return known
