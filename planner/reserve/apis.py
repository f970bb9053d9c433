"""Adapters by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from planner.config import Config
from providers.errors import UsageError
from providers.offers import Offer, PriceSnapshot
from providers.reservations import Clock, Machine, ProviderName, ReservationApi, utc_now

PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What adapters may need.

    Attributes:
        config: The user's settings.
        state: Directory for a calendar of our own machines.
        snapshot: Reads the prices in use.
        now: UTC.
    """

    config: Config
    state: Path
    snapshot: Callable[[], PriceSnapshot]
    now: Clock = utc_now

    def on_demand_usd_per_hour(self, cloud: str, machine: Machine, region: str) -> float | None:
        """The cheapest posted price of a machine in a region, None if none is known."""
        rows = [
            offer.price_usd_per_hour
            for offer in self.snapshot().offers
            if (offer.cloud, offer.region, offer.market) == (cloud, region, "on_demand")
            and offer.instance_type == machine.instance_type
            and offer.price_usd_per_hour is not None
        ]
        return min(rows, default=None)


def own_machines(config: Config) -> list[Offer]:
    """The company's own pools as rows that a job can be sized on."""
    return [
        Offer(
            *("inhouse", pool.name, None, pool.machine.instance_type, pool.machine.gpu),
            *(pool.machine.gpus_per_node, pool.machine.gpu_mem_gib, None, None, "on_demand"),
            *(pool.usd_per_hour, "own machines: purchase, power, utilisation", None),
        )
        for pool in config.pools
    ]


def open_api(provider: ProviderName, around: Surroundings) -> ReservationApi:
    """The adapter of a provider.

    Args:
        provider: Its name.
        around: What it may need.

    Raises:
        MissingExtraError: Its SDK is not installed.
        CredentialsError, UsageError: It is not set up.
    """
    if provider == "aws_capacity_block":
        from providers.reservation_aws_block import CapacityBlocks

        return CapacityBlocks(around.now)
    if provider == "aws_odcr":
        from providers.reservation_aws_odcr import OnDemandReservations

        return OnDemandReservations(
            lambda machine, region: around.on_demand_usd_per_hour("aws", machine, region), around.now
        )
    if provider == "inhouse":
        from providers.reservation_inhouse import OwnMachines

        return OwnMachines(around.state / "inhouse.json", around.config.pools, around.now)
    raise UsageError(f"{provider} is not yet supported", code="not_yet_supported")


def check_provider(name: str) -> ProviderName:
    """A provider's name.

    Raises:
        UsageError: There is none of that name.
    """
    for known in PROVIDERS:
        if known == name:
            return known
    raise UsageError(f"there is no provider {name!r}", hint=f"there are: {', '.join(PROVIDERS)}")
