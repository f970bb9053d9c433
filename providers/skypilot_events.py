"""What SkyPilot writes down of a managed job: each change of its state, and how its machines come and go.

SkyPilot's server reads these from its database. Asking for the job itself has it start a Python of its own, which takes
more than a second of a core each time.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple


class Event(NamedTuple):
    """One line of a job's history.

    Attributes:
        at: Seconds since the epoch.
        status: The job's state from then on; STARTING for what happens to its machines.
        reason: SkyPilot's words.
    """

    at: float
    status: str
    reason: str


def events_of(sky: Any, job_id: int, *, newest: int | None = None) -> tuple[Event, ...]:
    """Events of a job, newest first; empty if its controller keeps them elsewhere.

    Args:
        sky: SkyPilot.
        job_id: The managed job.
        newest: Only so many of the newest changes of its own state, None for all and those of its machines.
    """
    from sky.server import common
    from sky.server.requests import payloads

    body = payloads.GetJobEventsBody(job_id=job_id, limit=newest, include_cluster_events=newest is None)
    document = json.loads(body.model_dump_json())
    # SkyPilot's client has no call for it
    answer = common.make_authenticated_request("POST", "/jobs/events", json=document)
    return tuple(event_of(row) for row in sky.get(common.get_request_id(answer)))


def event_of(row: dict[str, Any]) -> Event:
    """A row of the server's answer; times without a zone are the server's local ones.

    >>> event_of({"timestamp": "2026-11-28T18:46:30+00:00", "new_status": "RUNNING", "reason": None})
    Event(at=1795891590.0, status='RUNNING', reason='')
    """
    status = row["new_status"]
    moment = row["timestamp"]
    at = moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
    return Event(at.timestamp(), str(getattr(status, "value", status)), row["reason"] or "")
