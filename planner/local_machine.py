"""This machine as an offer, so that a local run is planned and reported like any other."""

from __future__ import annotations

import os

from providers.offers import Coverage, Offer, PriceSnapshot

_GIB = 2.0**30
SOURCE = "own machine: nothing is rented"


def local_snapshot(usd_per_hour: float = 0.0) -> PriceSnapshot:
    """One offer: the cores and memory that this process may use.

    Args:
        usd_per_hour: What an hour is worth to its owner (config `local.usd_per_hour`).
    """
    cores = usable_cores()
    ram_gib = _ram_gib()
    offer = Offer(
        cloud="local",
        region="local",
        zone=None,
        instance_type=None,
        gpu="CPU",
        gpus_per_node=1,
        gpu_mem_gib=ram_gib,
        vcpus=float(cores),
        ram_gib=ram_gib,
        market="local",
        price_usd_per_hour=usd_per_hour,
        source=SOURCE if usd_per_hour == 0 else "config local.usd_per_hour",
        as_of_at=None,
    )
    return PriceSnapshot("local", (offer,), (Coverage("local", 1, True, None),), live=True)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ram_gib() -> float | None:
    """Physical memory, None where the platform does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    except (AttributeError, ValueError, OSError):
        return None
