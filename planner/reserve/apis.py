"""Adapters by name; each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
            *(
                "slurm" if pool.slurm else "inhouse",
                pool.name,
                None,
                pool.machine.instance_type,
                pool.machine.gpu,
            ),
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
    return _ADAPTERS[provider](around)


def _prices(cloud: str, around: Surroundings) -> Callable[[Machine, str], float | None]:
    return lambda machine, region: around.on_demand_usd_per_hour(cloud, machine, region)


def _aws_capacity_block(around: Surroundings) -> ReservationApi:
    from providers.reservation_aws_block import CapacityBlocks

    return CapacityBlocks(around.now)


def _aws_odcr(around: Surroundings) -> ReservationApi:
    from providers.reservation_aws_odcr import OnDemandReservations

    return OnDemandReservations(_prices("aws", around), around.now)


def _sagemaker_training_plan(around: Surroundings) -> ReservationApi:
    from providers.reservation_sagemaker import TrainingPlans

    return TrainingPlans(around.now)


def _gcp_calendar(around: Surroundings) -> ReservationApi:
    from providers.reservation_gcp_calendar import CalendarReservations

    return CalendarReservations(_prices("gcp", around), around.now)


def _gcp_flex_start(around: Surroundings) -> ReservationApi:
    from providers.reservation_gcp_flex import FlexStart

    return FlexStart(_prices("gcp", around), around.now)


def _azure_crg(around: Surroundings) -> ReservationApi:
    from providers.reservation_azure import CapacityReservationGroups

    return CapacityReservationGroups(_prices("azure", around), around.now)


def _inhouse(around: Surroundings) -> ReservationApi:
    from providers.reservation_inhouse import OwnMachines

    return OwnMachines(around.state / "inhouse.json", around.config.pools, around.now)


_ADAPTERS: Mapping[ProviderName, Callable[[Surroundings], ReservationApi]] = {
    "aws_capacity_block": _aws_capacity_block,
    "aws_odcr": _aws_odcr,
    "sagemaker_training_plan": _sagemaker_training_plan,
    "gcp_calendar": _gcp_calendar,
    "gcp_flex_start": _gcp_flex_start,
    "azure_crg": _azure_crg,
    "inhouse": _inhouse,
}


def check_provider(name: str) -> ProviderName:
    """A provider's name.

    Raises:
        UsageError: There is none of that name.
    """
    for known in PROVIDERS:
        if known == name:
            return known
    raise UsageError(f"there is no provider {name!r}", hint=f"there are: {', '.join(PROVIDERS)}")
