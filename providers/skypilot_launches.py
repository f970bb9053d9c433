"""Clusters by name: the launches of them that SkyPilot's API server has accepted, and giving them back."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from providers.errors import CleanupPendingError

_POLL_S = 1.0
_CANCEL_TIMEOUT_S = 120.0
_NAME = "launch"
_FIELDS = ["request_id", "name", "status", "cluster_name", "created_at"]
_ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


def launches(sky: Any, *, all_status: bool = False) -> list[Any]:
    """Launches of clusters that SkyPilot works on, or all that it remembers."""
    rows = sky.api_status(all_status=all_status, fields=_FIELDS)
    return [row for row in rows if row.name.endswith(_NAME) and row.cluster_name]


def newest_launch(sky: Any, name: str) -> Any:
    """The newest launch of a cluster, None if SkyPilot remembers none."""
    rows = [row for row in launches(sky, all_status=True) if row.cluster_name == name]
    return max(rows, key=lambda row: row.created_at, default=None)


def is_at_work(launch: Any) -> bool:
    """Whether SkyPilot has not finished with a launch."""
    return launch is not None and launch.status not in _ENDED


def end_launches(sky: Any, name: str) -> None:
    """Stop everything that SkyPilot has accepted for a cluster and not finished.

    Raises:
        CleanupPendingError: It does not stop.
    """
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    while living := _living(sky, name):
        if time.monotonic() > deadline:
            hint = f"look at `sky api status`, then `sky down {name}`"
            raise CleanupPendingError(f"SkyPilot does not stop asking for {name}", hint=hint)
        sky.get(sky.api_cancel(living, silent=True))
        time.sleep(_POLL_S)


def end_cluster(sky: Any, name: str) -> None:
    """Give a cluster back; one that is not there is fine.

    Raises:
        CleanupPendingError: SkyPilot did not confirm that it is gone.
    """
    with contextlib.suppress(sky.exceptions.ClusterDoesNotExist):
        sky.get(sky.down(name))
    if sky.get(sky.status([name])):
        raise CleanupPendingError(f"SkyPilot still has the machines of {name}", hint=f"sky down {name}")


def _living(sky: Any, name: str) -> list[str]:
    """Requests about this cluster alone: an old server answers with everybody's."""
    return [row.request_id for row in sky.api_status(cluster_name=name) if row.cluster_name == name]
