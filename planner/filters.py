"""Which offers a spec allows, and the reason for each that it does not."""

from __future__ import annotations

from typing import NamedTuple

from planner.spec import WhereSection
from planner.units import GpuFilter
from providers.offers import Offer

#: Prices that differ by less are equal: products of floats are not exact.
_LEAST_USD = 1e-9


def costs_more(offer: Offer, nodes: int, most_usd_per_hour: float | None) -> bool:
    """Whether so many of these machines cost more an hour than all together may; unknown prices and limits do not."""
    if most_usd_per_hour is None or offer.price_usd_per_hour is None:
        return False
    return offer.price_usd_per_hour * nodes > most_usd_per_hour + _LEAST_USD


class OfferFilter(NamedTuple):
    """What the spec says about machines; None allows everything.

    Attributes:
        clouds: Lower-case names.
        regions: The clouds' own names.
        gpus: Canonical names with ranges of their number.
        gpu_memory_gib: Least and most memory of one GPU.
        markets: spot, on_demand, reserved; local offers always pass.
        max_usd_per_hour: Of all machines of the job together.
        gpu_count: Exactly this many GPUs in a machine.
        data_regions: Where the data may go.
    """

    clouds: frozenset[str] | None = None
    regions: frozenset[str] | None = None
    gpus: tuple[GpuFilter, ...] | None = None
    gpu_memory_gib: tuple[float, float] | None = None
    markets: frozenset[str] = frozenset({"spot", "on_demand"})
    max_usd_per_hour: float | None = None
    gpu_count: int | None = None
    data_regions: frozenset[str] | None = None

    def refuses(self, offer: Offer) -> tuple[str, str] | None:
        """(reason_code, reason) if the offer is not allowed or has no price, None if it may be used."""
        if offer.market == "local":
            return None
        if (why := self._place(offer) or self._machine(offer)) is not None:
            return "filtered", why
        if offer.price_usd_per_hour is None:
            return "no_price", f"{offer.market.replace('_', '-')} price unknown"
        return self.too_dear(offer, 1)

    def too_dear(self, offer: Offer, nodes: int) -> tuple[str, str] | None:
        """(reason_code, reason) if so many of these machines cost more an hour than all together may."""
        if offer.market == "local" or not costs_more(offer, nodes, self.max_usd_per_hour):
            return None
        several = "" if nodes == 1 else f", which holds for all {nodes} machines together"
        return "over_budget", f"over where.max_usd_per_hour{several}"

    def _place(self, offer: Offer) -> str | None:
        if self.clouds is not None and offer.cloud not in self.clouds:
            return "not in where.clouds"
        if self.regions is not None and offer.region not in self.regions:
            return "not in where.regions"
        if self.data_regions is not None and offer.region not in self.data_regions:
            return "not in data.regions"
        if offer.market not in self.markets:
            return "not in where.market"
        return None

    def _machine(self, offer: Offer) -> str | None:
        if self.gpus is not None and not any(
            gpu.matches(offer.gpu, offer.gpus_per_node) for gpu in self.gpus
        ):
            return "not in where.gpus"
        if self.gpu_count is not None and offer.gpus_per_node != self.gpu_count:
            return f"not {self.gpu_count} GPUs in a machine"
        if self.gpu_memory_gib is not None and not self._memory_allowed(offer):
            return "outside where.gpu_memory"
        return None

    def _memory_allowed(self, offer: Offer) -> bool:
        least, most = self.gpu_memory_gib or (0.0, float("inf"))
        return offer.gpu_mem_gib is not None and least * 0.97 <= offer.gpu_mem_gib <= most * 1.03


def offer_filter(where: WhereSection) -> OfferFilter:
    """The filter that a spec's `where` section means."""
    return OfferFilter(
        clouds=_names(where.clouds),
        regions=frozenset(where.regions) if where.regions is not None else None,
        gpus=where.gpu_filters(),
        gpu_memory_gib=where.gpu_memory_range_gib(),
        markets=frozenset(where.market),
        max_usd_per_hour=where.max_usd_per_hour,
    )


def _names(values: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if values is None else frozenset(value.lower() for value in values)
