"""What SkyPilot says of its jobs in our words: records to states, machines and lines of a log."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, overload

from providers.gpus import CPU, canonical_gpu
from providers.launcher import BackendState, BackendStatus, MachineUse
from providers.offers import Offer
from providers.skypilot_errors import first_line, plain

_STATES: dict[str, BackendState] = {
    "PENDING": "queued",
    "SUBMITTED": "queued",
    "STARTING": "provisioning",
    "RUNNING": "running",
    "WINDING_DOWN": "running",
    "CANCELLING": "running",
    "RECOVERING": "recovering",
    "SUCCEEDED": "succeeded",
    "CANCELLED": "cancelled",
}
#: Nothing of a job in one of these runs any more.
ENDED = frozenset({"succeeded", "failed", "cancelled"})
# "2x(gpus=A100:1, ...)" is what a job has; "2x[A100:1, H100:1]" is what it asks for.
_REAL_MACHINE = re.compile(r"\d+x(\[spot\])?\(([^)]*)", re.IGNORECASE)
_OWN_LINE = re.compile(r"^\([^()]*pid=\d+[^()]*\) ?")
#: Longest pause between two tries of SkyPilot's: five times its first one of a minute, and 40 % more by chance.
RETRY_WITHIN_S = 420.0
#: Reason of a job that waits for machines.
NO_CAPACITY = (
    "none of the machines asked for can be had now, nothing is paid; SkyPilot tries them again and again"
)
#: Reason of a job whose worker has ended.
RELEASING = "the worker has ended, its machines are being given back"


def status_of(jobs: dict[int, Any], machines: Sequence[MachineUse] = ()) -> BackendStatus:
    """The run's newest attempt.

    It has not ended before its machines are given back: until then they cost.

    Args:
        jobs: The run's jobs by attempt.
        machines: Those of the newest one, oldest first; empty if nobody tells.
    """
    if not jobs:
        return BackendStatus("absent")
    attempt = max(jobs)
    job = jobs[attempt]
    state = _STATES.get(job.status.value, "failed")
    is_over = state in ENDED and job.schedule_state == "DONE"
    # a job that was cancelled before SkyPilot had taken it up has no end of its own
    ended_at = utc(job.end_at or time.time()) if is_over else None
    if is_over and machines:
        ended_at = machines[-1].ended_at or ended_at
        machines = (*machines[:-1], replace(machines[-1], ended_at=ended_at))
    is_releasing = state in ENDED and not is_over
    reason = RELEASING if is_releasing else _reason(job)
    return BackendStatus(
        "releasing" if is_releasing else state,
        backend_id=str(job.job_id),
        reason=reason,
        offer=offer_of(job),
        exit_code=0 if is_over and state == "succeeded" else None,
        recoveries=job.recovery_count or 0,
        started_at=utc(job.start_at),
        ended_at=ended_at,
        attempt=attempt,
        stopped_by="cancel" if job.status.value in ("CANCELLING", "CANCELLED") else None,
        machines=tuple(machines),
        retry_within_s=RETRY_WITHIN_S if reason == NO_CAPACITY else None,
    )


def _reason(job: Any) -> str:
    """Why it is as it is, for a person."""
    said = first_line(job.failure_reason or job.details or "")
    if "in backoff" in said.lower():
        return NO_CAPACITY
    return said or job.status.value.lower().replace("_", " ")


def offer_of(job: Any) -> Offer | None:
    """The machine that SkyPilot got, None while it has none; what it costs is for the plan to say."""
    machine = _REAL_MACHINE.match(job.cluster_resources_full or "")
    if machine is None or not job.cloud or not job.region:
        return None
    return machine_offer(job, is_spot=bool(machine[1]), instance_type=_instance_type(machine[2]))


def _instance_type(told: str) -> str | None:
    """The one word of a machine's description that is no `key=value`; Slurm and Kubernetes have none.

    >>> _instance_type("gpus=L4:1, cpus=4, mem=16, g6.xlarge, disk=256"), _instance_type("gpus=L4:1, cpus=4")
    ('g6.xlarge', None)
    """
    words = [word.strip() for word in told.split(",")]
    return next((word for word in words if word.strip(".") and "=" not in word), None)


def machine_offer(got: Any, *, is_spot: bool, instance_type: str | None = None) -> Offer:
    """The machine of what SkyPilot says of a job or a cluster: its cloud, region, zone and accelerators."""
    name, count = next(iter((got.accelerators or {CPU: 1}).items()))
    return Offer(
        cloud=str(got.cloud).lower(),
        region=got.region,
        zone=got.zone,
        instance_type=instance_type,
        gpu=canonical_gpu(name) or name,
        gpus_per_node=int(count),
        gpu_mem_gib=None,
        vcpus=None,
        ram_gib=None,
        market="spot" if is_spot else "on_demand",
        price_usd_per_hour=None,
        source="skypilot",
        as_of_at=None,
    )


def is_ended(job: Any) -> bool:
    """Whether SkyPilot will do no more for it than clean up."""
    return _STATES.get(job.status.value, "failed") in ENDED


def is_released(jobs: Iterable[Any]) -> bool:
    """Whether every machine of these jobs is given back."""
    return all(job.schedule_state == "DONE" for job in jobs)


def worker_lines(chunks: Any) -> Iterator[str]:
    """Lines of the job itself: SkyPilot puts a name and a pid in front of those, not of its own."""
    for chunk in chunks:
        if chunk is None:
            return
        line, found = _OWN_LINE.subn("", plain(chunk).rstrip("\r\n"))
        if found:
            yield line


@overload
def utc(seconds: float) -> str: ...


@overload
def utc(seconds: None) -> None: ...


def utc(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
