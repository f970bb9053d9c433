"""One rentable machine at one price, and where that price comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Market = Literal["spot", "on_demand", "reserved", "inhouse", "local"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A whole machine (node) that can be rented, in one market.

    Attributes:
        cloud: Lower-case name: aws, gcp, azure, lambda, slurm, local ...
        region: The cloud's own name.
        zone: Availability zone, None where the cloud has none or the price does not depend on it.
        instance_type: The cloud's own name, None if it has none.
        gpu: Canonical name (`providers.gpus`), "CPU" for a machine without one.
        gpus_per_node: GPUs in the machine.
        gpu_mem_gib: Memory of one GPU in GiB (2^30), None if unknown.
        vcpus: Virtual CPUs, None if unknown.
        ram_gib: Host memory in GiB, None if unknown.
        market: spot, on_demand, reserved, inhouse or local.
        price_usd_per_hour: Of the whole machine, US dollars before tax; None is unknown, never free.
        source: Where the price comes from, in a few words.
        as_of_at: When it was true: RFC 3339 date or time in UTC, None if the source does not say.
        flags: Doubts about the row: suspect_price, spot_floor, auction_floor, not_availability ...
    """

    cloud: str
    region: str
    zone: str | None
    instance_type: str | None
    gpu: str
    gpus_per_node: int
    gpu_mem_gib: float | None
    vcpus: float | None
    ram_gib: float | None
    market: Market
    price_usd_per_hour: float | None
    source: str
    as_of_at: str | None
    flags: tuple[str, ...] = ()

    @property
    def price_usd_per_gpu_hour(self) -> float | None:
        """Price of the machine shared equally among its GPUs."""
        if self.price_usd_per_hour is None or self.gpus_per_node < 1:
            return None
        return self.price_usd_per_hour / self.gpus_per_node


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of one cloud a snapshot holds.

    Attributes:
        cloud: Lower-case name.
        rows: GPU offers of this cloud in the snapshot.
        complete: False where rows are known to be missing: then nothing is "the cheapest" there.
        as_of_at: Oldest date of the cloud's rows, None if no row says.
        note: What is missing or doubtful, for a person; empty if nothing.
    """

    cloud: str
    rows: int
    complete: bool
    as_of_at: str | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class PriceSnapshot:
    """A content-hashed set of offers.

    Attributes:
        snapshot_id: "sha256:..." of the canonical table.
        offers: Every offer; spot and on-demand of a machine are two offers.
        coverage: One entry a cloud.
        live: True if fetched now, False for a dated copy.
    """

    snapshot_id: str
    offers: tuple[Offer, ...]
    coverage: tuple[Coverage, ...]
    live: bool = False
