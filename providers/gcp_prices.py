"""GCP sells host machine and GPUs apart: joins them, and finds prices that are not on-demand prices.

The catalog's on-demand column holds, for some GPUs and zones, the price of the Dynamic Workload Scheduler,
which is about half of it and not to be had on demand. Two signs: the price of a GPU lies far below the lowest
list price, or spot costs more than 60 % of it (GCP discounts spot by 60-91 %; the good rows reach 50 %).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from providers.skypilot_rows import GpuMachine

LIST_PRICES = Path(__file__).parent / "data" / "gcp_list_prices.csv"

_SERIES = {
    "A100": "a2-highgpu-{}g", "A100-80GB": "a2-ultragpu-{}g", "H100": "a3-highgpu-{}g",
    "H100-MEGA": "a3-megagpu-{}g", "H200": "a3-ultragpu-{}g",
    "B200": "a4-highgpu-{}g", "GB200": "a4x-highgpu-{}g",
}  # fmt: skip
_G2 = {1: (4, 8, 12, 16, 32), 2: (24,), 4: (48,), 8: (96,)}
# vCPUs of the n1-highmem host for each attached GPU: the smallest with memory to spare for loading a model.
_N1_VCPUS_PER_GPU = {"T4": 4, "P4": 4, "P100": 8, "V100": 8}

_BELOW_LIST = 0.8
_HIGHEST_SPOT_SHARE = 0.6


def join_hosts(machines: list[GpuMachine], counts: Counter[str]) -> list[GpuMachine]:
    """Whole machines of GCP's rows, host-only and GPU-only rows in, CPU machines passed through.

    Host prices are regional: a zone without its own host row takes the region's. Counts what was joined how.
    """
    hosts: dict[tuple[str | None, str], GpuMachine] = {}
    for host in (machine for machine in machines if machine.instance_type and not machine.gpus):
        hosts[(host.instance_type, host.zone or "")] = host
        hosts.setdefault((host.instance_type, host.region), host)
    whole = [machine for machine in machines if machine.instance_type]
    for gpus in (machine for machine in machines if not machine.instance_type):
        whole += _with_hosts(gpus, hosts, counts)
    return whole


def host_types(gpu: str, gpus: int) -> tuple[str, ...]:
    """Machine types that carry so many of this GPU (the catalog's own GPU name); empty if none is known.

    >>> host_types("A100", 16), host_types("L4", 1)[0], host_types("T4", 4)
    (('a2-megagpu-16g',), 'g2-standard-4', ('n1-highmem-16',))
    """
    if gpu == "L4":
        return tuple(f"g2-standard-{vcpus}" for vcpus in _G2.get(gpus, ()))
    if gpu in _N1_VCPUS_PER_GPU:
        return (f"n1-highmem-{_N1_VCPUS_PER_GPU[gpu] * gpus}",)
    if gpu == "A100" and gpus == 16:
        return ("a2-megagpu-16g",)
    return (_SERIES[gpu].format(gpus),) if gpu in _SERIES else ()


def _with_hosts(
    gpus: GpuMachine, hosts: dict[tuple[str | None, str], GpuMachine], counts: Counter[str]
) -> Iterator[GpuMachine]:
    gpus = _marked_if_suspect(gpus)
    types = host_types(gpus.catalog_gpu, int(gpus.gpus))
    found = False
    for host_type in types:
        own = hosts.get((host_type, gpus.zone or ""))
        host = own or hosts.get((host_type, gpus.region))
        if host is not None:
            found = True
            counts["gcp_joined"] += 1
            counts["gcp_joined_from_region"] += own is None
            yield _joined(gpus, host, own is None)
    if not found:
        counts["gcp_without_host"] += 1
        yield _without_host(gpus, types[0] if types else None)


def _without_host(gpus: GpuMachine, host_type: str | None) -> GpuMachine:
    return replace(
        gpus,
        instance_type=host_type,
        on_demand_usd_per_hour=None,
        spot_usd_per_hour=None,
        flags=(*gpus.flags, "host_price_missing"),
        on_demand_flags=(),
    )


def _joined(gpus: GpuMachine, host: GpuMachine, from_region: bool) -> GpuMachine:
    flags = [*gpus.flags]
    if gpus.catalog_gpu in _N1_VCPUS_PER_GPU:
        flags.append("host_chosen")
    if from_region:
        flags.append("host_from_region")
    if host.on_demand_usd_per_hour == 0:
        flags.append("host_price_zero")
    return replace(
        gpus,
        instance_type=host.instance_type,
        vcpus=host.vcpus,
        ram_gib=host.ram_gib,
        on_demand_usd_per_hour=_sum(gpus.on_demand_usd_per_hour, host.on_demand_usd_per_hour),
        spot_usd_per_hour=_sum(gpus.spot_usd_per_hour, host.spot_usd_per_hour),
        flags=tuple(flags),
    )


def _sum(gpus_usd_per_hour: float | None, host_usd_per_hour: float | None) -> float | None:
    """Both or nothing: half a price is no price."""
    if not gpus_usd_per_hour or host_usd_per_hour is None:
        return None
    return gpus_usd_per_hour + host_usd_per_hour


def _marked_if_suspect(gpus: GpuMachine) -> GpuMachine:
    on_demand, spot = gpus.on_demand_usd_per_hour, gpus.spot_usd_per_hour
    if not on_demand:
        return gpus
    lowest = lowest_list_price_usd(gpus.catalog_gpu)
    below_list = lowest is not None and on_demand / gpus.gpus < _BELOW_LIST * lowest
    if below_list or (spot and spot > _HIGHEST_SPOT_SHARE * on_demand):
        return replace(gpus, on_demand_flags=("suspect_price",))
    return gpus


def lowest_list_price_usd(catalog_gpu: str) -> float | None:
    """Lowest on-demand list price of one GPU-hour in any region, without the host; None if not known."""
    return _list_prices().get(catalog_gpu)


@cache
def _list_prices() -> dict[str, float]:
    lowest: dict[str, float] = {}
    with LIST_PRICES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            price = float(row["usd_per_gpu_hour"])
            lowest[row["gpu"]] = min(price, lowest.get(row["gpu"], price))
    return lowest
