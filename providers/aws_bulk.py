"""AWS on-demand prices from the public price list, which needs no credentials.

One CSV a region, hundreds of megabytes each, of which some hundred lines count: it is read as it arrives and never
kept. https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-the-aws-price-list-bulk-api.html
"""

from __future__ import annotations

import csv
import io
import math
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException, HTTPResponse

from providers.live_prices import Asked, Place, Reading, priced
from providers.web import check_address, opener, unusable

URL = "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current"
SOURCE = "AWS price list"
_TIMEOUT_S = 60.0
#: Lines before the one with the columns: format, disclaimer, dates.
_MOST_HEAD_LINES = 20
#: A machine of one's own with Linux, by the hour.
_WANTED: dict[str, tuple[str, ...]] = {
    "TermType": ("OnDemand",),
    "Tenancy": ("Shared",),
    "Operating System": ("Linux",),
    "Pre Installed S/W": ("NA", ""),
    "CapacityStatus": ("Used",),
    "Unit": ("Hrs",),
    "Currency": ("USD",),
}
_NEEDED = frozenset({*_WANTED, "Instance Type", "PricePerUnit"})


def read(asked: Asked) -> Reading:
    """On-demand prices of all machine types that are known, region by region.

    Raises:
        StorageError: A list could not be read whole, or is something else.
    """
    types = asked.machine_types()
    prices: dict[Place, float] = {}
    for region in asked.allowed_regions():
        asked.told(f"reading the AWS price list of {region}")
        for instance_type, price in region_prices(f"{asked.url}/{region}/index.csv", types).items():
            prices[Place(region, None, instance_type)] = price
    return priced(asked, prices, "on_demand", SOURCE)


def region_prices(url: str, types: frozenset[str]) -> dict[str, float]:
    """USD per hour by machine type.

    Args:
        url: A region's index.csv.
        types: The machine types wanted.

    Raises:
        StorageError: It could not be read whole, or is something else.
    """
    check_address(url)
    request = urllib.request.Request(url, headers={"User-Agent": "tuneplan"})  # noqa: S310 (was checked)
    try:
        with opener().open(request, timeout=_TIMEOUT_S) as response:
            return _prices(response, url, types)
    except urllib.error.HTTPError as error:
        with error:
            raise unusable(url, f"{error.code} {error.reason}") from error
    except (OSError, HTTPException, UnicodeDecodeError, csv.Error) as error:
        raise unusable(url, str(error) or type(error).__name__) from error


def _prices(response: HTTPResponse, url: str, types: frozenset[str]) -> dict[str, float]:
    counted = _Counted(response)
    prices: dict[str, float] = {}
    for row in _rows(counted, url):
        instance_type = row["Instance Type"]
        price = _amount(row["PricePerUnit"])
        if instance_type in types and price is not None and _is_wanted(row):
            prices[instance_type] = min(price, prices.get(instance_type, math.inf))
    length = response.headers.get("Content-Length")
    if length is not None and counted.bytes != int(length):
        raise unusable(url, f"{counted.bytes:,} of {int(length):,} bytes arrived")
    return prices


class _Counted(io.RawIOBase):
    """Passes bytes on and counts them."""

    def __init__(self, response: HTTPResponse) -> None:
        self.bytes = 0
        self._response = response

    def readable(self) -> bool:
        """True: that is what it is for."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of the response."""
        count = self._response.readinto(buffer)
        self.bytes += count
        return count


def _rows(stream: _Counted, url: str) -> Iterator[dict[str, str]]:
    """The lines as columns, after the head of the file."""
    lines = csv.reader(io.TextIOWrapper(io.BufferedReader(stream, 2**16), encoding="utf-8", newline=""))
    for _, head in zip(range(_MOST_HEAD_LINES), lines, strict=False):
        if set(head) >= _NEEDED:
            break
    else:
        raise unusable(url, "it has not the columns of the AWS price list")
    places = {name: head.index(name) for name in _NEEDED}
    last = max(places.values())
    for line in lines:
        if len(line) > last:
            yield {name: line[place] for name, place in places.items()}


def _is_wanted(row: Mapping[str, str]) -> bool:
    return all(row[name] in values for name, values in _WANTED.items())


def _amount(text: str) -> float | None:
    """A price above zero; capacity that is reserved but not used is listed at 0."""
    try:
        price = float(text)
    except ValueError:
        return None
    return price if math.isfinite(price) and price > 0 else None
