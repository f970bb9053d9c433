"""AWS spot prices from the public feed behind the price page: one a region and machine type, no credentials.

Zones of a region differ, by a median factor of 1.09 and up to 10: the feed tells where to look, not where to launch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from providers.live_prices import Asked, Place, Reading, priced
from providers.web import WebRequest, ask, unusable

URL = "https://spot-price.s3.amazonaws.com/spot.js"
SOURCE = "AWS spot feed"
#: What the feed calls regions that are older than the codes of today.
_OLD_NAMES = {
    "us-east": "us-east-1", "us-west": "us-west-1", "eu-ireland": "eu-west-1", "apac-sin": "ap-southeast-1",
    "apac-syd": "ap-southeast-2", "apac-tokyo": "ap-northeast-1",
}  # fmt: skip
_CALL = re.compile(rb"^\s*(?:/\*.*?\*/\s*)?callback\((.*)\)\s*;?\s*$", re.DOTALL)


def read(asked: Asked) -> Reading:
    """Spot prices of all machine types that are known.

    Raises:
        StorageError: The feed could not be read, or is something else.
    """
    answer = ask(WebRequest(asked.url), sleep=asked.sleep)
    if answer.status != 200:
        raise unusable(asked.url, f"it answered {answer.status}")
    types = asked.machine_types()
    regions = {row.region for row in asked.rows} if asked.regions is None else asked.regions
    prices = {
        Place(region, None, instance_type): price
        for region, instance_type, price in feed_prices(answer.body, asked.url)
        if instance_type in types and region in regions
    }
    return priced(asked, prices, "spot", SOURCE, "region_price")


def feed_prices(body: bytes, url: str = URL) -> Iterator[tuple[str, str, float]]:
    """(region, machine type, USD per hour) of Linux machines; what is not to be had ("N/A*") is left out.

    Raises:
        StorageError: Not the feed.
    """
    call = _CALL.match(body)
    try:
        config = json.loads(call[1] if call else body)["config"]
        if config["rate"] != "perhr" or "USD" not in config["currencies"]:
            raise ValueError("another rate or currency")
        yield from list(_sizes(config["regions"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise unusable(url, "it is not the AWS spot feed") from None


def _sizes(regions: list[dict[str, Any]]) -> Iterator[tuple[str, str, float]]:
    for region in regions:
        name = _OLD_NAMES.get(region["region"], region["region"])
        for family in region["instanceTypes"]:
            for size in family["sizes"]:
                price = _linux_price(size["valueColumns"])
                if price is not None:
                    yield name, str(size["size"]), price


def _linux_price(columns: list[dict[str, Any]]) -> float | None:
    for column in columns:
        if column["name"] == "linux":
            try:
                price = float(column["prices"]["USD"])
            except ValueError:
                return None
            return price if math.isfinite(price) and price > 0 else None
    return None
