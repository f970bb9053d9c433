"""What moving a run's bytes costs: between the bucket of its checkpoints, where its local data is too, and the machine.

List prices of the first paid tier per GB (1e9 bytes) that leaves a place, in US dollars before tax; what comes in is
free everywhere. Free allowances of a month are not counted, since nobody here knows what else the account moves. Left
out: fetching the model from its hub, and pulling the result. A price that is not listed here is unknown, never 0.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = (
    "list prices per GB: AWS re:Post 'cost effective methods for accessing S3 buckets cross-region' (2026-01), "
    "SkyPilot 0.14.1 get_egress_cost, R2 pricing page; first paid tier"
)
AS_OF = "2026-01-13"
#: To another cloud or the internet, by the cloud that is left and the beginning of its region.
_OUT_USD_PER_GB = {
    "aws": {"us-east-": 0.09, "us-west-": 0.09, "eu-": 0.09, "ca-": 0.09, "ap-southeast-2": 0.114},
    "azure": {"eastus": 0.0875, "westus": 0.0875, "centralus": 0.0875, "southcentralus": 0.0875},
    "gcp": {"us-": 0.12, "europe-": 0.12, "northamerica-": 0.12},
    "lambda": {"": 0.0},
    "cloudflare": {"": 0.0},
}
#: To another region of the same cloud.
_BETWEEN_USD_PER_GB = {"aws": {"us-east-": 0.02, "us-west-": 0.02, "eu-": 0.02, "ca-": 0.02}}


class Place(NamedTuple):
    """Where bytes are: a cloud, and its region if that is known."""

    cloud: str
    region: str | None


class Traffic(NamedTuple):
    """Bytes of one run, in GB (1e9): what machines read from the bucket, and what they write to it."""

    read_gb: float
    written_gb: float


def usd_per_gb(source: Place, target: Place) -> float | None:
    """List price of a GB from one place to another, None if unknown.

    >>> usd_per_gb(Place("aws", "us-east-1"), Place("lambda", "us-west-1"))
    0.09
    """
    if source.cloud != target.cloud:
        return _by_region(_OUT_USD_PER_GB, source)
    if source.region is None or target.region is None:
        return _only_free(source)
    return 0.0 if source.region == target.region else _by_region(_BETWEEN_USD_PER_GB, source)


def egress_usd(traffic: Traffic, bucket: Place, machine: Place) -> float | None:
    """US dollars for a run's bytes, None if the price of some of them is unknown."""
    out, back = usd_per_gb(bucket, machine), usd_per_gb(machine, bucket)
    if (out is None and traffic.read_gb) or (back is None and traffic.written_gb):
        return None
    return traffic.read_gb * (out or 0.0) + traffic.written_gb * (back or 0.0)


def _by_region(prices: dict[str, dict[str, float]], place: Place) -> float | None:
    found = prices.get(place.cloud, {})
    if place.region is None:
        return found.get("")
    return next((usd for start, usd in found.items() if place.region.startswith(start)), None)


def _only_free(place: Place) -> float | None:
    return _OUT_USD_PER_GB.get(place.cloud, {}).get("")
