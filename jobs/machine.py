"""What a rented machine knows of itself: where it is, and since when it has been set up."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

_SINCE = "since.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def place(environ: Mapping[str, str]) -> str | None:
    """Cloud and region of this machine as SkyPilot tells its jobs, as in `aws/eu-west-1`; None elsewhere."""
    try:
        told = json.loads(environ.get("SKYPILOT_CLUSTER_INFO", ""))
        return f"{told['cloud']}/{told['region']}".lower()
    except (ValueError, KeyError, TypeError):
        return None


def keeper_directory(home: Path) -> Path:
    """Where the machine's keeper has its files (`jobs.keeper`); it is there only where one was started."""
    return home / ".tuneplan-keeper"


def mark_start(directory: Path) -> None:
    """Write down that this machine begins to be set up now.

    Raises:
        OSError: It cannot be written.
    """
    (directory / _SINCE).write_text(json.dumps({"boot": _boot(), "monotonic_s": time.monotonic()}))


def started_s(directory: Path) -> float | None:
    """`time.monotonic()` at that moment, None where nobody wrote it down since this machine was started."""
    try:
        told = json.loads((directory / _SINCE).read_text())
        return float(told["monotonic_s"]) if told["boot"] == _boot() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _boot() -> str:
    return _BOOT_ID.read_text().strip()
