"""How SkyPilot is told to start machines in capacity that is reserved. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def flex_start(run_s: float, wait_s: float) -> str:
    """The reference of a place in Google's queue, for so long a run and so long a wait in whole seconds.

    >>> flex_start(7200.0, 86400.0)
    'flex-start/7200/86400'
    """
    return f"flex-start/{round(run_s)}/{round(wait_s)}"


def config(references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Sections of SkyPilot's configuration for references of capacity; each provider writes its own kind.

    >>> config(["cr-0123"])
    {'aws': {'specific_reservations': ['cr-0123']}}
    >>> config(["projects/p/zones/us-central1-a/futureReservations/tp-1"])
    {'gcp': {'specific_reservations': ['projects/p/reservations/tp-1']}}
    >>> config(["flex-start/7200/86400"])
    {'gcp': {'managed_instance_group': {'run_duration': 7200, 'provision_timeout': 86400}}}
    >>> config(["slurm/gpu-cluster/tp-1"])
    {'slurm': {'sbatch_options': {'reservation': 'tp-1'}}}
    """
    found: dict[str, dict[str, Any]] = {}
    for reference in references:
        cloud, section = _section(reference)
        for key, value in section.items():
            kept = found.setdefault(cloud, {})
            kept[key] = [*kept.get(key, []), *value] if isinstance(value, list) else value
    return found


def _section(reference: str) -> tuple[str, Mapping[str, Any]]:
    parts = reference.split("/")
    if parts[0] == "flex-start":
        terms = {"run_duration": int(parts[1]), "provision_timeout": int(parts[2])}
        return "gcp", {"managed_instance_group": terms}
    if parts[0] == "slurm":
        return "slurm", {"sbatch_options": {"reservation": parts[2]}}
    if parts[0] == "projects":  # what a future reservation makes has its name
        return "gcp", {"specific_reservations": [f"projects/{parts[1]}/reservations/{parts[-1]}"]}
    return "aws", {"specific_reservations": [reference]}
