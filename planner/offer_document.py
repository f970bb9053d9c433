"""One offer as the JSON answers show it, and read back from there."""

from __future__ import annotations

from collections.abc import Mapping
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


def offer_from_document(document: Mapping[str, Any]) -> Offer:
    """An offer read back from its JSON."""
    return Offer(
        cloud=document["cloud"],
        region=document["region"],
        zone=document["zone"],
        instance_type=document["instance_type"],
        gpu=document["gpu"],
        gpus_per_node=document["gpus_per_node"],
        gpu_mem_gib=document["gpu_mem_gib"],
        vcpus=document.get("vcpus"),
        ram_gib=document.get("ram_gib"),
        market=document["market"],
        price_usd_per_hour=amount(document["price_usd_per_h"]),
        source=document["source"],
        as_of_at=document["as_of_at"],
        flags=tuple(document["flags"]),
    )


def amount(text: str | None) -> float | None:
    """The number that a decimal string means; None stays None."""
    return None if text is None else float(text)
