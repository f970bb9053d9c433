"""OCI list prices from the files behind Oracle's public cost estimator: no credentials, one price for all regions.

A shape names the product it is billed as and its number of GPUs; the product has a price of one GPU-hour. Neither
says where the shape can be had.
"""

from __future__ import annotations

import math
from typing import Any

from providers.live_prices import Asked, Place, Reading, priced
from providers.web import WebRequest, ask, unusable

URL = "https://www.oracle.com/a/ocom/docs/cloudestimator2/data"
SOURCE = "OCI cost estimator"


def read(asked: Asked) -> Reading:
    """On-demand prices of all shapes that are known, in all their regions.

    Raises:
        StorageError: A file could not be read, or is something else.
    """
    shapes, products = (_items(f"{asked.url}/{name}.json", asked) for name in ("shapes", "products"))
    by_shape = shape_prices(shapes, products)
    places = {(row.region, row.instance_type) for row in asked.rows if row.instance_type in by_shape}
    prices = {Place(region, None, str(shape)): by_shape[str(shape)] for region, shape in places}
    return priced(asked, prices, "on_demand", SOURCE, "not_availability")


def shape_prices(shapes: list[dict[str, Any]], products: list[dict[str, Any]]) -> dict[str, float]:
    """USD per hour by shape; a shape that is billed as several products, or not by the hour, is left out."""
    gpu_hour = {
        product["partNumber"]: price
        for product in products
        if isinstance(product.get("partNumber"), str) and (price := _pay_as_you_go(product)) is not None
    }
    prices = {}
    for shape in shapes:
        billed = shape.get("products")
        gpus = shape.get("gpuQty")
        if not isinstance(gpus, int) or gpus < 1 or not isinstance(billed, list) or len(billed) != 1:
            continue
        price = gpu_hour.get(billed[0].get("partNumber"))
        if price is not None and shape.get("status", "ACTIVE") == "ACTIVE" and not shape.get("hidden"):
            prices[str(shape.get("name"))] = price * gpus
    return prices


def _pay_as_you_go(product: dict[str, Any]) -> float | None:
    """Price of an hour in US dollars."""
    if product.get("pricetype", "HOUR") != "HOUR":
        return None
    for localized in product.get("currencyCodeLocalizations") or ():
        prices = localized.get("prices") if localized.get("currencyCode") == "USD" else None
        for price in prices or ():
            value = price.get("value")
            if price.get("model") == "PAY_AS_YOU_GO" and isinstance(value, int | float):
                return float(value) if math.isfinite(value) and value > 0 else None
    return None


def _items(url: str, asked: Asked) -> list[dict[str, Any]]:
    answer = ask(WebRequest(url), sleep=asked.sleep)
    content = answer.json(url) if answer.status == 200 else None
    items = content.get("items") if isinstance(content, dict) else None
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        why = f"it answered {answer.status}" if answer.status != 200 else "it is not the estimator's data"
        raise unusable(url, why)
    return items
