"""Adapters by name; each is imported when it is asked for."""

from __future__ import annotations

from typing import get_args

from planner.config import Config
from providers.errors import UsageError
from providers.reservations import Clock, ProviderName, ReservationApi, utc_now

PROVIDERS: tuple[ProviderName, ...] = get_args(ProviderName)


def open_api(provider: ProviderName, config: Config, now: Clock = utc_now) -> ReservationApi:
    """The adapter of a provider.

    Args:
        provider: Its name.
        config: The user's settings.
        now: UTC.

    Raises:
        MissingExtraError: Its SDK is not installed.
        CredentialsError, UsageError: It is not set up.
    """
    if provider == "aws_capacity_block":
        from providers.reservation_aws_block import CapacityBlocks

        return CapacityBlocks(now)
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
