"""Machines on Vast.ai that can be rented now, from its public search, which needs no credentials.

Each answer is one person's machine. Alike ones of a region become one row at the lowest price, because the next hour
has others; its interruptible price is a bid, which may be outbid at any time.
"""

from __future__ import annotations

import json
import math
from typing import Any

from providers.gpus import canonical_gpu, gpu_memory_gib
from providers.live_prices import Asked, Reading
from providers.price_checks import price_flags
from providers.price_table import PriceRow
from providers.web import WebRequest, ask, unusable

URL = "https://console.vast.ai/api/v0/bundles/"
SOURCE = "Vast.ai offers"
_MOST_OFFERS = 5000
_QUERY = {"rentable": {"eq": True}, "rented": {"eq": False}, "type": "on-demand", "limit": _MOST_OFFERS}
_GIB_STEPS = (16, 32, 64, 128, 256, 512, 1024, 2048)


def read(asked: Asked) -> Reading:
    """What can be rented now; rows of machines that cannot are gone.

    Raises:
        StorageError: The search could not be read, is something else, or found nothing at all.
    """
    headers = {"Content-Type": "application/json"}
    request = WebRequest(asked.url, headers=headers, body=json.dumps(_QUERY).encode(), most_bytes=128 * 2**20)
    answer = ask(request, sleep=asked.sleep)
    content = answer.json(asked.url) if answer.status == 200 else None
    offers = content.get("offers") if isinstance(content, dict) else None
    if not isinstance(offers, list):
        why = f"it answered {answer.status}" if answer.status != 200 else "it is not the answer of a search"
        raise unusable(asked.url, why)
    rows = bundle_rows(offers, asked.today)
    if not rows:
        raise unusable(asked.url, "not one machine with a known GPU is in it")
    return Reading(rows, len(rows))


def bundle_rows(offers: list[Any], today: str) -> tuple[PriceRow, ...]:
    """One row for each kind of machine in each region, malformed offers left out."""
    found: dict[tuple[str, str], PriceRow] = {}
    for offer in offers:
        row = _row(offer, today) if isinstance(offer, dict) else None
        if row is None:
            continue
        key = (row.region, row.instance_type or "")
        known = found.get(key)
        found[key] = row if known is None else _cheaper(known, row)
    return tuple(found[key] for key in sorted(found))


def _row(offer: dict[str, Any], today: str) -> PriceRow | None:
    memory_gib = _positive(offer.get("gpu_ram"), 1024)
    name = canonical_gpu(str(offer.get("gpu_name", "")), memory_gib)
    gpus = offer.get("num_gpus")
    price = _positive(offer.get("dph_total"))
    if name is None or not isinstance(gpus, int) or gpus < 1 or price is None:
        return None
    vcpus = _positive(offer.get("cpu_cores_effective"))
    ram_gib = _share_of_ram_gib(offer)
    kind = f"{gpus}x-{name}-{round(vcpus or 0)}-{_step(ram_gib)}"
    spot = _positive(offer.get("min_bid"))
    on_demand_flags, spot_flags = price_flags("vast", price, spot, (), gpus=gpus)
    if spot is not None:
        spot_flags = "|".join(filter(None, ("lowest_bid", spot_flags)))
    region = str(offer.get("geolocation") or "unknown").strip(" ,") or "unknown"
    return PriceRow(
        cloud="vast",
        region=region,
        zone=None,
        instance_type=kind,
        gpu=name,
        gpus=gpus,
        gpu_mem_gib=gpu_memory_gib(name),
        vcpus=None if vcpus is None else float(round(vcpus)),
        ram_gib=None if ram_gib is None else float(round(ram_gib)),
        on_demand_usd_per_hour=round(price, 6),
        spot_usd_per_hour=None if spot is None else round(spot, 6),
        source=SOURCE,
        as_of=today,
        on_demand_flags=on_demand_flags,
        spot_flags=spot_flags,
    )


def _share_of_ram_gib(offer: dict[str, Any]) -> float | None:
    """Host memory that comes with the GPUs: as much of it as of the CPUs."""
    ram_gib = _positive(offer.get("cpu_ram"), 1024)
    cores, effective = _positive(offer.get("cpu_cores")), _positive(offer.get("cpu_cores_effective"))
    if ram_gib is None or cores is None or effective is None:
        return ram_gib
    return ram_gib * min(effective / cores, 1.0)


def _cheaper(one: PriceRow, other: PriceRow) -> PriceRow:
    return min(one, other, key=lambda row: row.on_demand_usd_per_hour or math.inf)


def _step(gib: float | None) -> int:
    return 0 if gib is None else max((step for step in _GIB_STEPS if step <= gib), default=0)


def _positive(value: Any, divisor: float = 1.0) -> float | None:
    """A number above zero; `SpotPrice` 0.00 means none."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        return None
    return value / divisor
