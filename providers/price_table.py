"""The table behind a price snapshot: one row a machine and zone, one file a snapshot.

The file is UTF-8 text: the first line is `#tuneplan-prices ` and a JSON object (snapshot id, coverage), the
rest a CSV in canonical form. The snapshot id is the hash of that CSV, so two imports of the same facts have
the same id whatever the order of their rows. One file, so that replacing it is one atomic rename.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from providers.errors import CorruptDataError, StorageError, UsageError
from providers.offers import UNTRUSTED_FLAGS, Coverage, Market, Offer, PriceSnapshot

MAGIC = "#tuneplan-prices "
#: Stands among the on-demand flags of a row that is about the spot price alone.
SPOT_ONLY = "spot_only"


class PriceRow(NamedTuple):
    """A machine in one zone with its two prices, USD per hour of the whole machine as the source posts them.

    Flags are `|`-separated keys of `providers.offers.FLAGS`; every other field is as in `Offer`.
    """

    cloud: str
    region: str
    zone: str | None
    instance_type: str | None
    gpu: str
    gpus: int
    gpu_mem_gib: float | None
    vcpus: float | None
    ram_gib: float | None
    on_demand_usd_per_hour: float | None
    spot_usd_per_hour: float | None
    source: str
    as_of: str | None
    on_demand_flags: str = ""
    spot_flags: str = ""


class TableHeader(NamedTuple):
    """First line of a snapshot file.

    Attributes:
        snapshot_id: "sha256:..." of the rows.
        newest_as_of_at: Latest date of any row, None if no row is dated.
        live: Fetched from the seller, not copied from a catalog.
        coverage: One entry a cloud.
    """

    snapshot_id: str
    newest_as_of_at: str | None
    live: bool
    coverage: tuple[Coverage, ...]


class PriceTable(NamedTuple):
    """Rows in canonical order and what they cover."""

    rows: tuple[PriceRow, ...]
    coverage: tuple[Coverage, ...]
    live: bool = False


def write_table(path: Path, table: PriceTable) -> str:
    """Write a snapshot file atomically; returns its snapshot id.

    Raises:
        StorageError: The folder cannot be written.
    """
    body = _to_csv(table.rows)
    snapshot_id = _hash(body)
    newest = max((row.as_of for row in table.rows if row.as_of), default=None)
    header = TableHeader(snapshot_id, _at(newest), table.live, table.coverage)
    line = json.dumps(
        {"format": 1, **header._asdict(), "coverage": [row._asdict() for row in header.coverage]},
        sort_keys=True,
    )
    replace_file(path, f"{MAGIC}{line}\n{body}".encode())
    return snapshot_id


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, flush, then rename: a reader sees the old file or the new one.

    Raises:
        StorageError: The folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StorageError(f"cannot write {path}: {error.strerror}", path=str(path)) from error


def read_table(path: Path) -> tuple[str, PriceTable]:
    """Snapshot id and table of a snapshot file.

    Raises:
        UsageError: There is no such file, or it is not a snapshot file.
        CorruptDataError: Its rows do not match its snapshot id.
    """
    with _reading(path):
        # What is no UTF-8 is found by the header or the hash, with a better message.
        text = path.read_bytes().decode("utf-8", errors="replace")
    first, _, body = text.partition("\n")
    header = _parse_header(path, first)
    if _hash(body) != header.snapshot_id:
        raise CorruptDataError(
            f"price snapshot {path} does not match its snapshot id",
            hint="replace it: plan prices update, or plan prices import DIR",
            path=str(path),
        )
    return header.snapshot_id, PriceTable(tuple(_from_csv(body)), header.coverage, header.live)


def read_header(path: Path) -> TableHeader:
    """The first line of a snapshot file, the rows unread.

    Raises:
        UsageError: There is no such file, or it is not a snapshot file.
    """
    with _reading(path), path.open(encoding="utf-8", errors="replace") as file:
        return _parse_header(path, file.readline())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot read the price snapshot {path}: {error.strerror}", path=str(path)
        ) from error


def to_snapshot(snapshot_id: str, table: PriceTable) -> PriceSnapshot:
    """Split each row into its offers: on-demand (perhaps without a price) unless it is of spot alone, spot if any."""
    flags: dict[str, tuple[str, ...]] = {"": ()}
    offers: list[Offer] = []
    for row in table.rows:
        if not is_spot_only(row):
            offers.append(_offer(row, "on_demand", row.on_demand_usd_per_hour, row.on_demand_flags, flags))
        if row.spot_usd_per_hour is not None:
            offers.append(_offer(row, "spot", row.spot_usd_per_hour, row.spot_flags, flags))
    return PriceSnapshot(snapshot_id, tuple(offers), table.coverage, live=table.live)


def is_spot_only(row: PriceRow) -> bool:
    """Whether the row is about the spot price alone; the machine's on-demand price has a row of its own."""
    return row.on_demand_flags == SPOT_ONLY


def offers_in(rows: Iterable[PriceRow]) -> int:
    """How many offers rows hold."""
    return sum((not is_spot_only(row)) + (row.spot_usd_per_hour is not None) for row in rows)


def snapshot_of(table: PriceTable) -> PriceSnapshot:
    """The snapshot of a table that was not read from a file."""
    return to_snapshot(_hash(_to_csv(table.rows)), table)


def _offer(
    row: PriceRow, market: Market, price: float | None, flags: str, cache: dict[str, tuple[str, ...]]
) -> Offer:
    names = cache.get(flags)
    if names is None:
        names = cache[flags] = tuple(flags.split("|"))
    posted = None
    if names and not UNTRUSTED_FLAGS.isdisjoint(names):
        price, posted = None, price
    return Offer(*row[:9], market, price, row.source, _at(row.as_of), names, posted)


def _at(date: str | None) -> str | None:
    return f"{date}T00:00:00Z" if date else None


def _parse_header(path: Path, line: str) -> TableHeader:
    try:
        known: dict[str, Any] = json.loads(line.removeprefix(MAGIC)) if line.startswith(MAGIC) else {}
        if known["format"] == 1:
            coverage = tuple(Coverage(**entry) for entry in known["coverage"])
            return TableHeader(known["snapshot_id"], known["newest_as_of_at"], known["live"], coverage)
    except (ValueError, KeyError, TypeError):
        pass  # every way of not being a header has the same answer
    raise UsageError(
        f"{path} is not a price snapshot of this version",
        hint="make one: plan prices import DIR --out FILE, or plan prices update",
        path=str(path),
    )


def _hash(body: str) -> str:
    return "sha256:" + hashlib.sha256(body.encode()).hexdigest()


def _number(value: float) -> str:
    """Shortest text with at most 6 decimals: 0.5, 8, 55.04."""
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value} is not an amount")
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return _number(value)
    return "" if value is None else str(value)


def _to_csv(rows: Iterable[PriceRow]) -> str:
    lines = sorted(tuple(_cell(value) for value in row) for row in rows)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(PriceRow._fields)
    writer.writerows(lines)
    return out.getvalue()


def _from_csv(body: str) -> Iterable[PriceRow]:
    reader = csv.reader(io.StringIO(body, newline=""))
    next(reader, None)
    for row in reader:
        cloud, region, zone, instance, gpu, gpus, mem, vcpus, ram, price, spot, source, as_of, *flags = row
        numbers = [float(text) if text else None for text in (mem, vcpus, ram, price, spot)]
        head = (cloud, region, zone or None, instance or None, gpu, int(gpus))
        yield PriceRow._make((*head, *numbers, source, as_of or None, *flags))
