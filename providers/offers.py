"""One rentable machine at one price, and where that price comes from.

A price that is not to be believed is never in `price_usd_per_hour`: the offer then has None there, carries
one of `UNTRUSTED_FLAGS`, and shows what the source said as `posted_usd_per_hour`. So code that knows nothing
of flags cannot spend money on it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Market = Literal["spot", "on_demand", "reserved", "inhouse", "local"]

FLAGS: dict[str, str] = {
    "suspect_price": "the posted price contradicts the list price or the spot price, or is next to nothing: not used",
    "auction_floor": "the lowest bid of an auction, not a price: not used",
    "no_price": "the source names no price for this market",
    "host_price_missing": "the price of the host machine is unknown, so the whole is unknown",
    "host_price_zero": "the host machine is listed at 0 USD/h: the whole may be too low",
    "host_from_region": "the host machine's price comes from another zone of the region",
    "host_chosen": "GPUs are attached to a host machine of our choice; others are possible",
    "spot_floor": "an administrative floor, not a market price: capacity is not certain",
    "scarce": "spot costs what on-demand costs: capacity is short",
    "region_price": "one price for the whole region: its zones differ, by up to ten times",
    "lowest_bid": "the least that must be bid: whoever bids more takes the machine",
    "not_availability": "the source lists every GPU in every region: a row is not availability",
    "as_of_inferred": "the source has no date; this is the earliest it can be",
    "unknown_gpu": "the GPU's name is not known: memory and speed are not either",
    "host_ram_short": "the machine states less memory of its own than the job takes: data, loading, offload, saving",
    "memory_mismatch": "the listed GPU memory contradicts the GPU's name",
}
UNTRUSTED_FLAGS = frozenset({"suspect_price", "auction_floor"})


class Offer(NamedTuple):
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
        flags: Doubts about the row, keys of `FLAGS`.
        posted_usd_per_hour: What the source says where that is not believed: shown, never computed with.
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
    posted_usd_per_hour: float | None = None

    @property
    def price_usd_per_gpu_hour(self) -> float | None:
        """Price of the machine shared equally among its GPUs."""
        if self.price_usd_per_hour is None or self.gpus_per_node < 1:
            return None
        return self.price_usd_per_hour / self.gpus_per_node


class Coverage(NamedTuple):
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


class Credit(NamedTuple):
    """Money that a cloud lets you spend on its machines; nobody here knows what of it is left, but you.

    Attributes:
        cloud: Lower-case name.
        usd: What is left.
        expires_at: RFC 3339 UTC, None if never.
    """

    cloud: str
    usd: float
    expires_at: str | None


class PriceSnapshot(NamedTuple):
    """A content-hashed set of offers.

    Attributes:
        snapshot_id: "sha256:..." of the canonical table.
        offers: Every offer; spot and on-demand of a machine are two offers.
        coverage: One entry a cloud.
        live: True if fetched now, False for a dated copy.
        credits: Yours; prices are before them.
    """

    snapshot_id: str
    offers: tuple[Offer, ...]
    coverage: tuple[Coverage, ...]
    live: bool = False
    credits: tuple[Credit, ...] = ()
