"""Names of availability zones in the account that is logged in: catalogs have ids, which mean the same to everybody."""

from __future__ import annotations

import re
from collections.abc import Iterable

from providers.aws_access import aws_session
from providers.errors import TuneplanError
from providers.offers import Offer

_ZONE_ID = re.compile(r"-az\d+$")


def is_zone_id(zone: str | None) -> bool:
    """Whether a zone is an id, which no AWS request takes.

    >>> is_zone_id("use1-az6"), is_zone_id("us-east-1a"), is_zone_id(None)
    (True, False, False)
    """
    return _ZONE_ID.search(zone or "") is not None


def zone_names(offers: Iterable[Offer]) -> dict[str, str]:
    """Zone name by zone id, for the ids of these offers; what AWS does not tell is left out."""
    regions = {offer.region for offer in offers if offer.cloud == "aws" and is_zone_id(offer.zone)}
    names: dict[str, str] = {}
    for region in sorted(regions):
        try:
            with aws_session("list availability zones") as session:
                found = session.client("ec2", region_name=region).describe_availability_zones()
        except TuneplanError:  # the region alone will do: SkyPilot tries its zones itself
            continue
        names |= {row["ZoneId"]: row["ZoneName"] for row in found["AvailabilityZones"]}
    return names
