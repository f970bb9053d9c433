"""One offer as the JSON answers show it."""

from __future__ import annotations

from typing import Any

from planner.money import usd_text
from providers.offers import Offer


def offer_document(offer: Offer) -> dict[str, Any]:
    """OFFER of the JSON interface."""
    return {
        "cloud": offer.cloud,
        "region": offer.region,
        "zone": offer.zone,
        "instance_type": offer.instance_type,
        "gpu": offer.gpu,
        "gpus_per_node": offer.gpus_per_node,
        "gpu_mem_gib": offer.gpu_mem_gib,
        "market": offer.market,
        "price_usd_per_h": usd_text(offer.price_usd_per_hour),
        "price_usd_per_gpu_h": usd_text(offer.price_usd_per_gpu_hour),
        "source": offer.source,
        "as_of_at": offer.as_of_at,
        "flags": list(offer.flags),
        "vcpus": offer.vcpus,
        "ram_gib": offer.ram_gib,
    }
