"""Which offers match a question about prices, in what order, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from planner.units import GpuFilter
from providers.gpus import CANONICAL_GPUS, gpu_boards
from providers.offers import Offer, PriceSnapshot

SORTS = ("gpu-price", "price", "age", "cloud")
GROUPS = ("cloud", "gpu", "region", "market")


@dataclass(frozen=True, slots=True)
class OfferQuery:
    """What is asked for; None and empty allow everything.

    Attributes:
        gpus: Canonical names with ranges of their number in a machine.
        clouds: Lower-case names.
        regions: The clouds' own names of regions or zones.
        markets: spot, on_demand.
        too_old: Says of an `as_of_at` that offers of that date are left out.
    """

    gpus: tuple[GpuFilter, ...] = ()
    clouds: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    markets: frozenset[str] = frozenset()
    too_old: Callable[[str | None], bool] | None = None

    def refuses(self, offer: Offer) -> str | None:
        """Why the offer is left out, None if it matches."""
        if self.gpus and not any(gpu.matches(offer.gpu, offer.gpus_per_node) for gpu in self.gpus):
            return "another GPU or number of GPUs"
        if self.clouds and offer.cloud not in self.clouds:
            return "another cloud"
        if self.regions and self.regions.isdisjoint((offer.region, offer.zone)):
            return "another region"
        if self.markets and offer.market not in self.markets:
            return "another market"
        if self.too_old is not None and self.too_old(offer.as_of_at):
            return "price too old or undated"
        return None


@dataclass(frozen=True, slots=True)
class OfferList:
    """The answer: matching offers in order, and how many were left out for which reason."""

    offers: tuple[Offer, ...]
    left_out: dict[str, int]

    @property
    def total(self) -> int:
        """Offers looked at."""
        return len(self.offers) + sum(self.left_out.values())


@dataclass(frozen=True, slots=True)
class OfferGroup:
    """Offers that share a cloud, GPU, region or market.

    Attributes:
        name: What they share.
        offers: How many there are.
        priced: How many of them have a price that can be used.
        lowest: The one with the lowest price of a GPU-hour, None if none has a price.
        median_usd_per_gpu_hour: Of the priced ones, None if there is none.
    """

    name: str
    offers: int
    priced: int
    lowest: Offer | None
    median_usd_per_gpu_hour: float | None


def list_offers(snapshot: PriceSnapshot, query: OfferQuery, sort: str = "gpu-price") -> OfferList:
    """Matching offers, sorted by one of `SORTS`; offers without a usable price come last."""
    left_out: Counter[str] = Counter()
    matching: list[Offer] = []
    for offer in snapshot.offers:
        reason = query.refuses(offer)
        if reason is None:
            matching.append(offer)
        else:
            left_out[reason] += 1
    return OfferList(tuple(sorted(matching, key=_SORT_KEYS[sort])), dict(left_out.most_common()))


def group_offers(offers: tuple[Offer, ...], by: str) -> list[OfferGroup]:
    """One entry a value of `by` (one of `GROUPS`), the lowest price of a GPU-hour first."""
    members: dict[str, list[Offer]] = {}
    for offer in offers:
        members.setdefault(str(getattr(offer, by)), []).append(offer)
    groups = [_group(name, items) for name, items in members.items()]
    return sorted(groups, key=lambda group: (_price_key(group.lowest), group.name))


def other_boards(snapshot: PriceSnapshot, gpus: tuple[GpuFilter, ...]) -> dict[str, int]:
    """Offers with another board of those chips and no less memory: what a strict filter leaves aside."""
    names = {
        board
        for gpu in gpus
        for board in gpu_boards(gpu.name)
        if CANONICAL_GPUS[board] >= CANONICAL_GPUS[gpu.name]
    } - {gpu.name for gpu in gpus}
    counts = Counter(offer.gpu for offer in snapshot.offers if offer.gpu in names)
    return dict(sorted(counts.items()))


def _group(name: str, offers: list[Offer]) -> OfferGroup:
    prices = [price for offer in offers if (price := offer.price_usd_per_gpu_hour) is not None]
    lowest = min(offers, key=_price_key)
    return OfferGroup(
        name=name,
        offers=len(offers),
        priced=len(prices),
        lowest=lowest if prices else None,
        median_usd_per_gpu_hour=median(prices) if prices else None,
    )


def _price_key(offer: Offer | None) -> tuple[bool, float]:
    price = None if offer is None else offer.price_usd_per_gpu_hour
    return (price is None, price or 0.0)


def _place_key(offer: Offer) -> tuple[str, str, str, str, str]:
    return (offer.cloud, offer.region, offer.zone or "", offer.instance_type or "", offer.market)


def _machine_price_key(offer: Offer) -> tuple[bool, float]:
    return (offer.price_usd_per_hour is None, offer.price_usd_per_hour or 0.0)


_SORT_KEYS: dict[str, Callable[[Offer], tuple[object, ...]]] = {
    "gpu-price": lambda offer: (*_price_key(offer), *_machine_price_key(offer), *_place_key(offer)),
    "price": lambda offer: (*_machine_price_key(offer), *_place_key(offer)),
    # Newest first: the text of a date sorts by time, so its characters are turned round.
    "age": lambda offer: (
        offer.as_of_at is None,
        tuple(-ord(char) for char in offer.as_of_at or ""),
        *_price_key(offer),
        *_place_key(offer),
    ),
    "cloud": lambda offer: (*_place_key(offer), *_price_key(offer)),
}
