"""Reads a folder of SkyPilot price catalogs (`<cloud>/vms.csv`) without SkyPilot.

Nothing is dropped in silence: a malformed row goes into `ImportReport.problems` with file and line, machines
without a GPU and machines with a slice of one are counted.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from providers.errors import UsageError
from providers.gcp_prices import join_hosts
from providers.offers import Coverage, PriceSnapshot
from providers.price_checks import checked
from providers.price_sources import CatalogFile, catalog_files
from providers.price_table import PriceRow, PriceTable, offers_in, snapshot_of
from providers.skypilot_rows import GpuMachine, parse_machine

_COLUMNS = {"InstanceType", "AcceleratorName", "AcceleratorCount", "vCPUs", "MemoryGiB", "Price", "Region"}


@dataclass(slots=True)
class ImportReport:
    """What an import did with the rows it read.

    Attributes:
        problems: "file:line: what is wrong" of every row that was left out as malformed.
        counts: Rows by what became of them: read, gpu, cpu, gpu_slice, malformed, duplicate, gcp_joined ...
    """

    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def import_catalogs(
    directory: Path, *, as_of: str | None = None, report: ImportReport | None = None
) -> PriceTable:
    """All GPU machines of all clouds in a folder.

    Args:
        directory: Holds `<cloud>/vms.csv`; `sources.json` beside them may say where each file comes from, of
        what
            date it is and whether it is complete (see `providers.price_sources`).
        as_of: Date of files that `sources.json` says nothing about.
        report: Filled with what was left out and why.

    Raises:
        UsageError: No catalogs there, or one of them is not a catalog at all.
    """
    report = report if report is not None else ImportReport()
    files = catalog_files(directory, as_of)
    if not files:
        raise UsageError(
            f"no <cloud>/vms.csv below {directory}",
            hint="give a folder as SkyPilot keeps it, such as ~/.sky/catalogs/v8",
            path=str(directory),
        )
    rows: list[PriceRow] = []
    for cloud in sorted({file.cloud for file in files}):
        rows += _cloud_rows([file for file in files if file.cloud == cloud], report)
    return PriceTable(tuple(rows), tuple(_coverage(files, rows)))


def build_snapshot(directory: Path) -> PriceSnapshot:
    """The snapshot of a folder of catalogs; see `import_catalogs` for what is raised."""
    return snapshot_of(import_catalogs(directory))


def _cloud_rows(files: list[CatalogFile], report: ImportReport) -> list[PriceRow]:
    """Rows of one cloud; where two files hold the same machine the file with the later date wins."""
    merged: dict[tuple[str | int | None, ...], PriceRow] = {}
    for file in sorted(files, key=lambda file: file.as_of or ""):
        seen: set[tuple[str | int | None, ...]] = set()
        for row in _file_rows(file, report):
            key = (row.region, row.zone, row.instance_type, row.gpu, row.gpus)
            if key in seen:
                report.counts["duplicate"] += 1
                continue  # the first of two rows for one machine counts; they rarely differ in price
            report.counts["replaced_by_newer"] += key in merged
            seen.add(key)
            merged[key] = row
    return list(merged.values())


def _file_rows(file: CatalogFile, report: ImportReport) -> Iterator[PriceRow]:
    machines = list(_machines(file, report))
    if file.cloud == "gcp":
        machines = join_hosts(machines, report.counts)
    for machine in machines:
        if machine.gpus == 0:
            report.counts["cpu"] += 1
        elif machine.gpus != int(machine.gpus):
            report.counts["gpu_slice"] += 1
        else:
            report.counts["gpu"] += 1
            yield checked(machine, file)


def _machines(file: CatalogFile, report: ImportReport) -> Iterator[GpuMachine]:
    for line, record in _records(file):
        report.counts["read"] += 1
        try:
            yield parse_machine(file.cloud, record)
        except ValueError as error:
            report.counts["malformed"] += 1
            report.problems.append(f"{file.path}:{line}: {error}")


def _records(file: CatalogFile) -> Iterator[tuple[int, dict[str, str | None]]]:
    try:
        with file.path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = sorted(_COLUMNS - set(reader.fieldnames or ()))
            if missing:
                raise UsageError(f"{file.path}: no column {', '.join(missing)}", path=str(file.path))
            for record in reader:
                yield reader.line_num, record
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"cannot read the price catalog {file.path}: {error}"
        raise UsageError(message, path=str(file.path)) from error


def _coverage(files: list[CatalogFile], rows: Iterable[PriceRow]) -> Iterator[Coverage]:
    rows = list(rows)
    for cloud in sorted({file.cloud for file in files}):
        mine = [row for row in rows if row.cloud == cloud]
        parts = [file for file in files if file.cloud == cloud]
        notes = dict.fromkeys(part.note for part in parts if part.note)
        complete = all(part.complete for part in parts)
        yield Coverage(cloud, offers_in(mine), complete, _oldest(mine), "; ".join(notes))


def covered_again(coverage: Iterable[Coverage], cloud: str, rows: Sequence[PriceRow]) -> tuple[Coverage, ...]:
    """The coverage after all rows of one cloud were replaced by these."""
    return tuple(
        entry._replace(rows=offers_in(rows), as_of_at=_oldest(rows)) if entry.cloud == cloud else entry
        for entry in coverage
    )


def _oldest(rows: Sequence[PriceRow]) -> str | None:
    return min((f"{row.as_of}T00:00:00Z" for row in rows if row.as_of), default=None)
