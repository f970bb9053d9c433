"""The doubts that go with a price, worked out from the row itself."""

from __future__ import annotations

from collections.abc import Sequence

from providers.offers import UNTRUSTED_FLAGS
from providers.price_sources import CatalogFile
from providers.price_table import PriceRow
from providers.skypilot_rows import GpuMachine

# Clouds whose source repeats every machine for every region.
_CROSS_PRODUCT = frozenset({"lambda", "oci", "runpod"})
# Spot share of on-demand that a cloud sets by rule where no market price formed.
_SPOT_FLOORS = {"aws": (0.1,), "azure": (0.1848, 0.1)}
_FLOOR_WIDTH = 0.0005
# Posted with 4 to 6 decimals: two equal prices may differ in the last one.
_ROUNDING = 1e-4
_SCARCE_SHARE = 0.99
#: Below that a price is a placeholder: the cheapest GPUs known cost twenty times as much.
_LEAST_USD_PER_GPU_HOUR = 0.001
_LEAST_SPOT_SHARE = 0.01


def checked(machine: GpuMachine, file: CatalogFile) -> PriceRow:
    """The row of the table with every doubt about it; a price of zero is no price."""
    on_demand = machine.on_demand_usd_per_hour or None
    spot = machine.spot_usd_per_hour or None
    common = [*machine.flags, *_source_flags(machine.cloud, file)]
    on_demand_flags, spot_flags = price_flags(
        machine.cloud,
        on_demand,
        spot,
        common,
        gpus=int(machine.gpus),
        on_demand_flags=machine.on_demand_flags,
    )
    return PriceRow(
        machine.cloud, machine.region, machine.zone, machine.instance_type,
        machine.gpu, int(machine.gpus), machine.gpu_mem_gib, machine.vcpus, machine.ram_gib,
        on_demand, spot, file.source, file.as_of,
        on_demand_flags, spot_flags,
    )  # fmt: skip


def price_flags(
    cloud: str,
    on_demand: float | None,
    spot: float | None,
    common: Sequence[str],
    *,
    gpus: int,
    on_demand_flags: Sequence[str] = (),
) -> tuple[str, str]:
    """Doubts about the two prices of a machine, as the table holds them.

    Args:
        cloud: Lower-case name.
        on_demand: USD per hour, None if there is none.
        spot: Likewise.
        common: Doubts that both have.
        gpus: In the machine.
        on_demand_flags: Doubts about the on-demand price found before.
    """
    of_on_demand = [*common, *on_demand_flags, *_price_flags(on_demand, gpus)]
    of_spot = [*common, *_price_flags(spot, gpus)]
    if on_demand is None:
        of_on_demand.append("no_price")
    elif UNTRUSTED_FLAGS.isdisjoint(of_on_demand) and spot is not None:
        of_spot += _spot_flags(cloud, spot / on_demand)
    return _joined(of_on_demand), _joined(of_spot) if spot is not None else ""


def _source_flags(cloud: str, file: CatalogFile) -> list[str]:
    flags = []
    if cloud == "mithril":
        flags.append("auction_floor")
    if cloud in _CROSS_PRODUCT:
        flags.append("not_availability")
    if file.as_of_inferred:
        flags.append("as_of_inferred")
    return flags


def _price_flags(price: float | None, gpus: int) -> list[str]:
    return ["suspect_price"] if price is not None and price < gpus * _LEAST_USD_PER_GPU_HOUR else []


def _spot_flags(cloud: str, share: float) -> list[str]:
    if share > 1 + _ROUNDING or share < _LEAST_SPOT_SHARE:
        return ["suspect_price"]
    if share >= _SCARCE_SHARE:
        return ["scarce"]
    floors = _SPOT_FLOORS.get(cloud, ())
    return ["spot_floor"] if any(abs(share - floor) < _FLOOR_WIDTH for floor in floors) else []


def _joined(flags: list[str]) -> str:
    return "|".join(sorted(set(flags)))
