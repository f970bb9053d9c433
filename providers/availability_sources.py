"""Whom to ask whether a machine can be had now, and asking all of them at once: one that fails stops no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from providers import (
    availability_aws,
    availability_aws_advisor,
    availability_azure,
    availability_gcp,
    availability_lambda,
    availability_runpod,
    availability_vast,
)
from providers.availability import Answered, AvailabilitySource, Inquiry
from providers.errors import TuneplanError

SOURCES: tuple[AvailabilitySource, ...] = (
    AvailabilitySource("aws-quota", "aws", "vCPU quotas", availability_aws.quotas),
    AvailabilitySource("aws-score", "aws", "spot placement scores", availability_aws.placement_scores),
    AvailabilitySource("aws-price", "aws", "spot prices of zones", availability_aws.spot_prices),
    AvailabilitySource(
        "aws-advisor", "aws", "interruptions of the month before", availability_aws_advisor.interruption_bands
    ),
    AvailabilitySource("gcp-advice", "gcp", "obtainability of spot machines", availability_gcp.advice),
    AvailabilitySource("gcp-quota", "gcp", "GPU quotas", availability_gcp.quotas),
    AvailabilitySource("azure-score", "azure", "spot placement scores", availability_azure.placement_scores),
    AvailabilitySource("azure-eviction", "azure", "eviction rates", availability_azure.eviction_bands),
    AvailabilitySource("runpod-stock", "runpod", "stock of data centres", availability_runpod.stock),
    AvailabilitySource("lambda-capacity", "lambda", "regions with capacity", availability_lambda.capacity),
    AvailabilitySource("vast-capacity", "vast", "machines to rent", availability_vast.capacity),
)
#: Those that tell quotas.
QUOTAS = frozenset({"aws-quota", "gcp-quota", "azure-score"})
_AT_ONCE = 11


def ask_all(inquiry: Inquiry, urls: Mapping[str, str], names: frozenset[str] | None = None) -> list[Answered]:
    """What every source of the wanted clouds says, in the order of `SOURCES`.

    Args:
        inquiry: Machines of any clouds.
        urls: Other addresses by a source's name.
        names: Only these sources.
    """
    wanted = [source for source in SOURCES if names is None or source.name in names]
    asked = [source for source in wanted if any(row.offer.cloud == source.cloud for row in inquiry.wanted)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda source: _ask(source, inquiry, urls), asked))


def clouds_without_source(clouds: Sequence[str]) -> list[str]:
    """Clouds that nobody here can be asked about."""
    return sorted(set(clouds) - {source.cloud for source in SOURCES})


def _ask(source: AvailabilitySource, inquiry: Inquiry, urls: Mapping[str, str]) -> Answered:
    mine = tuple(row for row in inquiry.wanted if row.offer.cloud == source.cloud)
    try:
        signals = source.read(replace(inquiry, wanted=mine, url=urls.get(source.name, "")))
    except TuneplanError as error:
        return Answered(source, {}, error.message, error.hint)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Answered(source, {}, f"its answer cannot be read ({type(error).__name__})")
    return Answered(source, signals)
