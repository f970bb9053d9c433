"""Which catalog files there are, and what is known about each: origin, date, completeness.

`sources.json` in the folder of catalogs, all keys optional::

    {"aws/vms.csv": {"source": "...", "as_of": "2026-05-20", "as_of_inferred": false,
                     "complete": true, "note": ""},
     "aws/newer.csv": {...}}

A file without an entry gets the folder's general date and counts as incomplete: nobody said that it is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.errors import UsageError

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_KNOWN_KEYS = {"source", "as_of", "as_of_inferred", "complete", "note"}


@dataclass(frozen=True, slots=True)
class CatalogFile:
    """One catalog file of one cloud.

    Attributes:
        cloud: Lower-case name, the name of its folder.
        path: The file.
        source: Where its prices come from, in a few words.
        as_of: ISO date the prices were true, None if nobody knows.
        as_of_inferred: The date is the earliest possible one, worked out from the contents.
        complete: All GPU machines of the cloud are in it.
        note: What is missing or doubtful.
    """

    cloud: str
    path: Path
    source: str = "SkyPilot catalog"
    as_of: str | None = None
    as_of_inferred: bool = False
    complete: bool = False
    note: str = ""


def catalog_files(directory: Path, as_of: str | None = None) -> list[CatalogFile]:
    """Every `<cloud>/*.csv` of a folder whose cloud has a `vms.csv`, in the order of their names.

    Raises:
        UsageError: `sources.json` is not what it should be.
    """
    facts = _read_facts(directory / "sources.json")
    files = []
    for main in sorted(directory.glob("*/vms.csv")):
        for path in sorted(main.parent.glob("*.csv")):
            cloud = main.parent.name
            entry = facts.get(f"{cloud}/{path.name}", {"as_of": as_of})
            files.append(CatalogFile(cloud=cloud, path=path, **entry))
    return files


def _read_facts(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", path=str(path)) from error
    if not isinstance(facts, dict):
        raise UsageError(f"{path}: an object with one entry a file is expected", path=str(path))
    for name, entry in facts.items():
        _check_entry(path, name, entry)
    return facts


def _check_entry(path: Path, name: str, entry: object) -> None:
    if not isinstance(entry, dict) or not set(entry) <= _KNOWN_KEYS:
        raise UsageError(f"{path}: {name}: only {', '.join(sorted(_KNOWN_KEYS))} are known", path=str(path))
    as_of = entry.get("as_of")
    if as_of is not None and not (isinstance(as_of, str) and _DATE.fullmatch(as_of)):
        raise UsageError(f"{path}: {name}: as_of {as_of!r} is not a date as in 2026-05-20", path=str(path))
