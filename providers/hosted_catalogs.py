"""Fetches SkyPilot's hosted price catalogs, all that were asked for or none.

Files are collected in a staging folder, so that an interrupted update goes on where it stopped; only when every file
is there are they imported. A cloud that the server does not publish is reported and keeps its rows in use.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from providers.download import Downloaded, download
from providers.errors import StorageError, UsageError
from providers.price_table import PriceTable
from providers.skypilot_catalog import ImportReport, import_catalogs
from providers.web import check_address

CLOUDS = (
    "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperstack", "jarvislabs", "lambda", "mithril", "nebius",
    "oci", "paperspace", "primeintellect", "runpod", "seeweb", "shadeform", "vast", "verda", "yotta",
)  # fmt: skip
_CLOUD_NAME = re.compile(r"[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class FetchedCloud:
    """What became of one cloud's catalog; `file` is None where the server does not publish one."""

    cloud: str
    url: str
    file: Downloaded | None


@dataclass(frozen=True, slots=True)
class CatalogServer:
    """Where catalogs are fetched from and kept on the way.

    Attributes:
        base_url: Holds `<cloud>/vms.csv`; https, or http on this machine.
        staging: Folder of downloads, of this process alone; a file that did not change is not fetched again.
        sleep: Waits between attempts.
    """

    base_url: str
    staging: Path
    sleep: Callable[[float], None] = time.sleep

    def fetch(
        self, clouds: tuple[str, ...], now: datetime, report: ImportReport
    ) -> tuple[PriceTable, list[FetchedCloud]]:
        """The table of the hosted catalogs, and what was fetched.

        Args:
            clouds: Which to fetch, all of them must be there; empty for every known one that is published.
            now: UTC; the date of files for which the server names none.
            report: Filled with rows that were left out.

        Raises:
            UsageError: Not an https address, or what came is no catalog.
            StorageError: A file could not be fetched; nothing is lost, the next call goes on.
        """
        check_address(self.base_url)
        for cloud in clouds:
            if not _CLOUD_NAME.fullmatch(cloud):
                raise UsageError(f"{cloud!r} is not the name of a cloud")
        self.staging.mkdir(parents=True, exist_ok=True)
        fetched = [self._fetch_one(cloud, required=bool(clouds)) for cloud in clouds or CLOUDS]
        there = [cloud for cloud in fetched if cloud.file is not None]
        if not there:
            raise StorageError(f"{self.base_url} publishes no price catalog", code="download_failed")
        return self._import(there, now, report), fetched

    def _fetch_one(self, cloud: str, *, required: bool) -> FetchedCloud:
        url = f"{self.base_url.rstrip('/')}/{cloud}/vms.csv"
        file = download(url, self.staging / f"{cloud}.csv", sleep=self.sleep)
        if file is None and required:
            raise StorageError(f"{url} does not exist", code="download_failed")
        return FetchedCloud(cloud, url, file)

    def _import(self, fetched: list[FetchedCloud], now: datetime, report: ImportReport) -> PriceTable:
        """Lay the files out as a folder of catalogs and import that."""
        with tempfile.TemporaryDirectory(dir=self.staging) as name:
            folder = Path(name)
            for cloud in fetched:
                (folder / cloud.cloud).mkdir()
                shutil.copyfile(self.staging / f"{cloud.cloud}.csv", folder / cloud.cloud / "vms.csv")
            facts = {f"{cloud.cloud}/vms.csv": _facts(cloud, now) for cloud in fetched}
            (folder / "sources.json").write_text(json.dumps(facts), encoding="utf-8")
            return import_catalogs(folder, report=report)


def merged(new: PriceTable, old: PriceTable) -> PriceTable:
    """The new table, and of the old one the clouds that the new one does not have."""
    clouds = {entry.cloud for entry in new.coverage}
    rows = (*new.rows, *(row for row in old.rows if row.cloud not in clouds))
    coverage = (*new.coverage, *(entry for entry in old.coverage if entry.cloud not in clouds))
    return PriceTable(rows, tuple(sorted(coverage, key=lambda entry: entry.cloud)))


def _facts(cloud: FetchedCloud, now: datetime) -> dict[str, object]:
    dated = None if cloud.file is None else cloud.file.modified
    return {
        "source": "SkyPilot hosted catalog",
        "as_of": dated or now.date().isoformat(),
        "complete": True,
        "note": "" if dated else "dated by its download",
    }
