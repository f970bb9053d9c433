"""Prices of your own: negotiated discounts, rates and credits from `config.yaml`, laid over a snapshot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from providers.offers import UNTRUSTED_FLAGS, Credit, Offer, PriceSnapshot

SOURCE = "yours"


class PriceOverride(NamedTuple):
    """Which offers, and what they cost you; None matches everything.

    Exactly one of discount, usd_per_hour, usd_per_gpu_hour and credit_usd is set.

    Attributes:
        cloud: Lower-case name.
        region: The cloud's own name.
        instance_type: The cloud's own name.
        gpu: Canonical name.
        market: spot or on_demand.
        discount: Share taken off the posted price, 0..1.
        usd_per_hour: Your price of the whole machine.
        usd_per_gpu_hour: Your price of each of its GPUs.
        credit_usd: What is left of a credit with the cloud; changes no price.
        expires_at: When the credit ends, RFC 3339 UTC; None if never.
    """

    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    gpu: str | None = None
    market: Literal["spot", "on_demand"] | None = None
    discount: float | None = None
    usd_per_hour: float | None = None
    usd_per_gpu_hour: float | None = None
    credit_usd: float | None = None
    expires_at: str | None = None

    def matches(self, offer: Offer) -> bool:
        """Whether the offer is meant."""
        return (
            self.cloud in (None, offer.cloud)
            and self.region in (None, offer.region)
            and self.instance_type in (None, offer.instance_type)
            and self.gpu in (None, offer.gpu)
            and self.market in (None, offer.market)
        )

    def applied(self, offer: Offer, now: datetime) -> Offer:
        """The offer at your price.

        A discount keeps the date and the doubts of the price it is taken off; of a price that is unknown or not
        believed it makes nothing. Your own rate is known and of today, so doubts about the posted one are gone.
        """
        if self.discount is not None:
            if offer.price_usd_per_hour is None:
                return offer
            discounted = offer.price_usd_per_hour * (1 - self.discount)
            return offer._replace(price_usd_per_hour=round(discounted, 6), source=f"{SOURCE}: {offer.source}")
        rate = self.usd_per_hour
        if rate is None:
            rate = (self.usd_per_gpu_hour or 0.0) * offer.gpus_per_node
        gone = UNTRUSTED_FLAGS | {"no_price", "as_of_inferred", "spot_floor", "scarce"}
        return offer._replace(
            price_usd_per_hour=rate,
            source=SOURCE,
            as_of_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            flags=tuple(flag for flag in offer.flags if flag not in gone),
            posted_usd_per_hour=None,
        )


def with_overrides(
    snapshot: PriceSnapshot, overrides: Sequence[PriceOverride], now: datetime
) -> PriceSnapshot:
    """The snapshot at your prices; the first override that matches an offer counts.

    Its id changes with the overrides, so that a plan names the prices it was made with.
    """
    if not overrides:
        return snapshot
    prices = [override for override in overrides if override.credit_usd is None]
    credits = tuple(
        Credit(override.cloud or "", override.credit_usd, override.expires_at)
        for override in overrides
        if override.credit_usd is not None
    )
    offers = tuple(_priced(offer, prices, now) for offer in snapshot.offers) if prices else snapshot.offers
    rules = json.dumps([override._asdict() for override in overrides], sort_keys=True)
    digest = hashlib.sha256(f"{snapshot.snapshot_id}\n{rules}".encode()).hexdigest()
    return snapshot._replace(offers=offers, snapshot_id=f"sha256:{digest}", credits=credits)


def _priced(offer: Offer, overrides: Sequence[PriceOverride], now: datetime) -> Offer:
    for override in overrides:
        if override.matches(offer):
            return override.applied(offer, now)
    return offer
