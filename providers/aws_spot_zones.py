"""AWS spot prices of each zone, now, with credentials of yours (ec2:DescribeSpotPriceHistory)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from providers.errors import CredentialsError, MissingExtraError, StorageError
from providers.live_prices import Asked, Place, Reading, priced

SOURCE = "AWS spot price history"
_DENIED = ("AccessDenied", "UnauthorizedOperation", "AuthFailure", "InvalidClientTokenId", "ExpiredToken")


def read(asked: Asked) -> Reading:
    """The newest spot price of every known machine type in every zone.

    Zones are named by their id (use1-az1), which means the same zone in every account; names (us-east-1a) do not.

    Raises:
        MissingExtraError: boto3 is not installed.
        CredentialsError: There are none, or they may not look.
        StorageError: AWS did not answer.
    """
    try:
        import boto3
    except ImportError:
        raise MissingExtraError("s3", "asking AWS for spot prices") from None

    session = boto3.session.Session()  # the default one keeps the login of whoever came first
    prices: dict[Place, float] = {}
    for region in asked.allowed_regions():
        asked.told(f"asking AWS for spot prices in {region}")
        with _mapped(region):
            client = session.client("ec2", region_name=region, endpoint_url=asked.url or None)
            types = {row.instance_type for row in asked.rows if row.region == region and row.instance_type}
            prices |= _newest(client, region, sorted(types or asked.machine_types()), asked)
    return priced(asked, prices, "spot", SOURCE)


def _newest(client: Any, region: str, types: list[str], asked: Asked) -> dict[Place, float]:
    ids = {
        zone["ZoneName"]: zone["ZoneId"] for zone in client.describe_availability_zones()["AvailabilityZones"]
    }
    newest: dict[Place, tuple[str, float]] = {}
    for item in _history(client, types, asked):
        place = Place(
            region, ids.get(item["AvailabilityZone"], item["AvailabilityZone"]), item["InstanceType"]
        )
        price, at = float(item["SpotPrice"]), str(item["Timestamp"])
        if math.isfinite(price) and price > 0 and at >= newest.get(place, ("", 0.0))[0]:
            newest[place] = (at, price)
    return {place: price for place, (_, price) in newest.items()}


def _history(client: Any, types: list[str], asked: Asked) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=types, ProductDescriptions=["Linux/UNIX"], StartTime=asked.now
    )
    for page in pages:
        yield from page["SpotPriceHistory"]


@contextmanager
def _mapped(region: str) -> Iterator[None]:
    """boto3's errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        hint = "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise CredentialsError("there are no AWS credentials on this machine", hint=hint) from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = f"AWS refused to name spot prices in {region}: {code}"
        if code.startswith(_DENIED):
            hint = "the login needs ec2:DescribeSpotPriceHistory and ec2:DescribeAvailabilityZones"
            raise CredentialsError(message, hint=hint) from error
        raise StorageError(message, code="download_failed") from error
    except BotoCoreError as error:
        raise StorageError(f"AWS did not answer in {region}: {error}", code="download_failed") from error
