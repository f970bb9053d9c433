"""AWS: what the account may rent, how EC2 scores a spot request, and the spot price of each zone, with your login."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from providers.availability import Inquiry, Signal, Signals, Wanted, gathered
from providers.aws import Aws, aws_errors, code_of
from providers.aws_zones import is_zone_id

#: Quota of running vCPUs by family of the machine type, for spot and on demand.
#: https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
_QUOTAS: tuple[tuple[str, str, str], ...] = (
    (r"(g|vt)\d", "L-3819A6DF", "L-DB2E81BA"),
    (r"p[234]", "L-7212CCBC", "L-417A185B"),
    (r"p5", "L-C4BD4855", "L-417A185B"),
)
#: A request of fewer types is scored low whatever the capacity, says AWS.
_LEAST_TYPES = 3


def quotas(inquiry: Inquiry) -> Signals:
    """How many vCPUs the account may have running in a region; those in use are not subtracted.

    Raises:
        CredentialsError: Nobody is logged in, or without servicequotas:GetServiceQuota.
        LaunchError: AWS does not answer.
        MissingExtraError: boto3 is not installed.
    """
    aws = Aws()
    limits: dict[tuple[str, str], float | None] = {}
    return gathered(_quota_signals(inquiry, aws, limits))


def _quota_signals(
    inquiry: Inquiry, aws: Aws, limits: dict[tuple[str, str], float | None]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in inquiry.wanted:
        code = quota_code(wanted.offer.instance_type or "", spot=wanted.offer.market == "spot")
        if code is None or wanted.offer.vcpus is None:
            continue
        key = (wanted.offer.region, code)
        if key not in limits:
            limits[key] = _limit(aws, *key)
        limit = limits[key]
        if limit is not None:
            need = wanted.offer.vcpus * wanted.nodes
            text = f"{limit:g} vCPUs of quota {code}, this needs {need:g}; what is in use is not subtracted"
            yield (
                wanted,
                Signal("quota", limit, "vCPUs", text, "AWS Service Quotas", inquiry.now_text, need <= limit),
            )


def quota_code(instance_type: str, *, spot: bool) -> str | None:
    """The quota that a machine type counts against, None if it is not known here.

    >>> quota_code("p4d.24xlarge", spot=True), quota_code("g6.xlarge", spot=False), quota_code("m6i.large", spot=True)
    ('L-7212CCBC', 'L-DB2E81BA', None)
    """
    found = next((row for row in _QUOTAS if re.match(row[0], instance_type)), None)
    return None if found is None else found[1 if spot else 2]


def _limit(aws: Aws, region: str, code: str) -> float | None:
    from botocore.exceptions import ClientError

    client = aws.client("service-quotas", region)
    with aws_errors(f"read the quota {code} in {region}"):
        try:
            answer = client.get_service_quota(ServiceCode="ec2", QuotaCode=code)
        except ClientError as error:
            if code_of(error) == "NoSuchResourceException":
                return None
            raise
    return float(answer["Quota"]["Value"])


def placement_scores(inquiry: Inquiry) -> Signals:
    """EC2's score, 1 to 10, for so many spot machines of these types in each zone.

    All types with the same GPUs are one request, because fewer than three are scored low whatever the capacity; AWS
    names the ten best zones only.

    Raises:
        CredentialsError: Nobody is logged in, or without ec2:GetSpotPlacementScores.
        LaunchError: AWS does not answer.
        MissingExtraError: boto3 is not installed.
    """
    aws = Aws()
    groups: dict[tuple[str, int, int], list[Wanted]] = defaultdict(list)
    for wanted in inquiry.wanted:
        offer = wanted.offer
        if offer.market == "spot" and offer.instance_type is not None:
            groups[offer.gpu, offer.gpus_per_node, wanted.nodes].append(wanted)
    return gathered(pair for group in groups.values() for pair in _scored(inquiry, aws, group))


def _scored(inquiry: Inquiry, aws: Aws, group: list[Wanted]) -> Iterator[tuple[Wanted, Signal]]:
    types = sorted({wanted.offer.instance_type or "" for wanted in group})
    regions = sorted({wanted.offer.region for wanted in group})
    client = aws.client("ec2", regions[0])
    with aws_errors("score a spot request"):
        pages = client.get_paginator("get_spot_placement_scores").paginate(
            InstanceTypes=types,
            TargetCapacity=group[0].nodes,
            TargetCapacityUnitType="units",
            SingleAvailabilityZone=True,
            RegionNames=regions,
        )
        rows = [row for page in pages for row in page["SpotPlacementScores"]]
    scores = {row["AvailabilityZoneId"]: int(row["Score"]) for row in rows if "AvailabilityZoneId" in row}
    ids = _zone_ids(aws, regions, group)
    low = (
        f" for {len(types)} type(s): AWS scores fewer than {_LEAST_TYPES} low"
        if len(types) < _LEAST_TYPES
        else ""
    )
    for wanted in group:
        zone = wanted.offer.zone
        score = scores.get(ids.get(zone or "", zone or ""))
        if score is not None:
            text = f"{score} of 10{low}"
            yield (
                wanted,
                Signal(
                    "placement_score",
                    score,
                    "of 10",
                    text,
                    "EC2 spot placement scores",
                    inquiry.now_text,
                    None,
                    comparable=not low,
                ),
            )


def spot_prices(inquiry: Inquiry) -> Signals:
    """The newest spot price of each machine in its zone.

    Raises:
        CredentialsError: Nobody is logged in, or without ec2:DescribeSpotPriceHistory.
        LaunchError: AWS does not answer.
        MissingExtraError: boto3 is not installed.
    """
    aws = Aws()
    asked = [row for row in inquiry.wanted if row.offer.market == "spot" and row.offer.instance_type]
    newest: dict[tuple[str, str], tuple[str, float]] = {}
    for region in sorted({row.offer.region for row in asked}):
        types = sorted({row.offer.instance_type or "" for row in asked if row.offer.region == region})
        for item in _price_history(aws, region, types, inquiry):
            key = (item["AvailabilityZone"], item["InstanceType"])
            at = item["Timestamp"].strftime("%Y-%m-%dT%H:%M:%SZ")
            newest[key] = max(newest.get(key, ("", 0.0)), (at, float(item["SpotPrice"])))
    ids = _zone_ids(aws, sorted({row.offer.region for row in asked}), asked)
    names = {zone_id: name for name, zone_id in ids.items()}
    return gathered(_priced(asked, names, newest))


def _priced(
    asked: list[Wanted], names: dict[str, str], newest: dict[tuple[str, str], tuple[str, float]]
) -> Iterator[tuple[Wanted, Signal]]:
    for wanted in asked:
        zone = wanted.offer.zone or ""
        found = newest.get((names.get(zone, zone), wanted.offer.instance_type or ""))
        if found is not None and found[1] > 0:
            at, price = found
            text = f"${price:g} an hour for a machine"
            yield wanted, Signal("spot_price", price, "USD/h", text, "AWS spot price history", at)


def _price_history(aws: Aws, region: str, types: list[str], inquiry: Inquiry) -> Iterator[dict[str, Any]]:
    client = aws.client("ec2", region)
    with aws_errors(f"read spot prices in {region}"):
        pages = client.get_paginator("describe_spot_price_history").paginate(
            InstanceTypes=types, ProductDescriptions=["Linux/UNIX"], StartTime=inquiry.now
        )
        rows = [row for page in pages for row in page["SpotPriceHistory"]]
    yield from rows


def _zone_ids(aws: Aws, regions: list[str], wanted: list[Wanted]) -> dict[str, str]:
    """Zone id by zone name, which is another one in every account; not asked for where no zone is wanted."""
    found: dict[str, str] = {}
    for region in regions:
        if any(row.offer.zone for row in wanted if row.offer.region == region):
            client = aws.client("ec2", region)
            with aws_errors(f"list zones of {region}"):
                zones = client.describe_availability_zones()["AvailabilityZones"]
            found |= {row["ZoneName"]: row["ZoneId"] for row in zones}
    return {name: zone for name, zone in found.items() if not is_zone_id(name)}
