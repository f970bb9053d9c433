"""Asks providers what they have for a job, one region after the other; what fails is part of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from planner.reserve.choice import fits
from planner.reserve.need import Sized
from planner.runs import utc_text
from providers.errors import CredentialsError, TuneplanError, UsageError
from providers.reservations import CapacityOffer, ProviderName, ReservationApi

SourceStatus = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Source:
    """How asking one provider in one region went."""

    provider: ProviderName
    region: str | None
    status: SourceStatus
    message: str | None
    fetched_at: str


@dataclass(frozen=True, slots=True)
class Found:
    """An offer with the job it was asked for."""

    offer: CapacityOffer
    sized: Sized

    @property
    def cost_usd(self) -> float | None:
        """What using it for this job costs: all of it if it is paid up front, else by the job's hours."""
        if self.offer.upfront_usd is not None and not self.offer.refundable:
            return float(self.offer.upfront_usd)
        if self.offer.usd_per_hour is None:
            return None if self.offer.upfront_usd is None else float(self.offer.upfront_usd)
        return float(self.offer.usd_per_hour) * self.sized.hours.p50

    @property
    def usd_per_useful_gpu_h(self) -> float | None:
        """That, over the GPU-hours that the job is expected to use."""
        return None if self.cost_usd is None else self.cost_usd / self.sized.gpu_hours

    @property
    def break_even_h(self) -> float | None:
        """Hours of these machines on demand that cost as much; beyond it the reservation is cheaper."""
        on_demand = self.sized.on_demand_usd
        if on_demand is None or self.offer.upfront_usd is None or on_demand.p50 <= 0:
            return None
        return float(self.offer.upfront_usd) / (on_demand.p50 / self.sized.hours.p50)


@dataclass(frozen=True, slots=True)
class Window:
    """When, and where if the person says so.

    Attributes:
        start_from: Earliest start.
        end_by: Latest end of the job.
        regions: Only these, empty for all.
    """

    start_from: datetime
    end_by: datetime
    regions: tuple[str, ...] = ()


def search(
    provider: ProviderName,
    open_api: Callable[[ProviderName], ReservationApi],
    sized: Sequence[Sized],
    window: Window,
    now: Callable[[], datetime],
    told: Callable[[str], None] = lambda _: None,
) -> tuple[list[Found], list[Source]]:
    """What one provider offers for the job, cheapest first, and how asking went.

    Args:
        provider: Who.
        open_api: Makes the adapter.
        sized: The job on the kinds of machine to ask for.
        window: When and where.
        now: UTC.
        told: Progress, a line each.
    """

    def source(region: str | None, status: SourceStatus, message: str | None) -> Source:
        return Source(provider, region, status, message, utc_text(now()))

    if not sized:
        return [], [source(None, "skipped", "the job fits on none of its machines that the spec allows")]
    regions = _regions(sized, window)
    if not regions:
        return [], [source(None, "skipped", "it has none of these machines in the regions that were named")]
    try:
        api = open_api(provider)
    except (UsageError, CredentialsError) as error:
        return [], [source(None, "skipped", error.message)]
    found, sources = [], []
    for region in regions:
        told(f"asking {provider} in {region}")
        try:
            found += _ask(api, region, sized, window)
        except CredentialsError as error:  # the next region would say the same
            sources.append(source(region, "failed", error.message))
            break
        except TuneplanError as error:
            sources.append(source(region, "failed", error.message))
        else:
            sources.append(source(region, "ok", None))
    return sorted(found, key=_order), sources


def _regions(sized: Sequence[Sized], window: Window) -> list[str]:
    """The regions that were named as far as they are this provider's, in their order; else all that will do."""
    if not window.regions:
        return sorted({region for one in sized for region in one.regions})
    known = {region for one in sized for region in one.sold_in}
    return [region for region in window.regions if region in known]


def _ask(api: ReservationApi, region: str, sized: Sequence[Sized], window: Window) -> list[Found]:
    found = []
    for one in sized:
        need = one.need(window.start_from, window.end_by, (region,))
        found += [Found(offer, one) for offer in api.offers(need, region) if fits(offer, need)]
    return found


def _order(found: Found) -> tuple[bool, float, datetime]:
    return found.cost_usd is None, found.cost_usd or 0.0, found.offer.start_at
