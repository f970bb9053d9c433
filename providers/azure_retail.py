"""Live Azure prices from the public Retail Prices API, which needs no credentials.

One query a machine type of the snapshot gives its on-demand and spot price in every region. The API knows prices,
not machines: GPU, memory and CPUs come from the rows that are there, so a machine type that no row has is not found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from providers.download import download
from providers.errors import StorageError
from providers.price_checks import price_flags
from providers.price_table import PriceRow

DEFAULT_URL = "https://prices.azure.com/api/retail/prices"
SOURCE = "Azure Retail Prices API"
_MOST_PAGES = 50

# (region, market) -> USD per hour
Prices = dict[tuple[str, str], float]


def refreshed(
    rows: tuple[PriceRow, ...], base_url: str, staging: Path, now: datetime, sleep: Callable[[float], None]
) -> tuple[PriceRow, ...]:
    """The Azure rows with today's prices, and rows for regions that are new.

    A row that the API does not name keeps its price and date. Rows of other clouds are left out.

    Raises:
        StorageError: The API could not be read, or answered something else.
        UsageError: Not an https address.
    """
    azure = [row for row in rows if row.cloud == "azure"]
    today = now.date().isoformat()
    result: list[PriceRow] = []
    for instance_type in sorted({row.instance_type for row in azure if row.instance_type}):
        mine = {row.region: row for row in azure if row.instance_type == instance_type}
        prices = machine_prices(instance_type, base_url, staging, sleep)
        template = next(iter(mine.values()))
        for region in sorted({*mine, *(region for region, _ in prices)}):
            row = mine.get(region, template._replace(region=region))
            if any((region, market) in prices for market in ("on_demand", "spot")):
                row = _priced(row, prices.get((region, "on_demand")), prices.get((region, "spot")), today)
            result.append(row)
    return tuple(result)


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
            raise _unexpected(url, "it sends us to another server")
        target.unlink(missing_ok=True)
        if download(url, target, sleep=sleep) is None:
            raise _unexpected(url, "it does not exist")
        page = _page(url, target)
        yield from page["Items"]
        url = page.get("NextPageLink")
    raise _unexpected(base_url, f"it has more than {_MOST_PAGES} pages for {instance_type}")


def _page(url: str, target: Path) -> dict[str, Any]:
    try:
        page = json.loads(target.read_bytes())
    except ValueError:
        page = None
    items = page.get("Items") if isinstance(page, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _unexpected(url, "it is not an answer of the Retail Prices API")
    known: dict[str, Any] = page
    return known


def _unexpected(url: str, why: str) -> StorageError:
    hint = "what was in use before stays in use"
    return StorageError(f"cannot use {url}: {why}", code="download_failed", hint=hint)


def _priced(row: PriceRow, on_demand: float | None, spot: float | None, today: str) -> PriceRow:
    on_demand_flags, spot_flags = price_flags("azure", on_demand, spot, _lasting(row.on_demand_flags))
    return row._replace(
        on_demand_usd_per_hour=on_demand,
        spot_usd_per_hour=spot,
        source=SOURCE,
        as_of=today,
        on_demand_flags=on_demand_flags,
        spot_flags=spot_flags,
    )


def _lasting(flags: str) -> list[str]:
    """Doubts about the machine, which a new price does not end."""
    return [flag for flag in flags.split("|") if flag in ("unknown_gpu", "memory_mismatch")]
