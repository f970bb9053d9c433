"""When the machines of a job on Slurm began and ended to cost, by Slurm's own word.

SkyPilot counts from the worker's start and notices a lost machine some polls later. Its events name the allocations
of a job; Slurm's queue (for some minutes) and its accounting (where there is one) tell their times to the second.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from providers.gpus import canonical_gpu
from providers.launcher import MachineUse
from providers.offers import Offer
from providers.skypilot_events import Event, events_of
from providers.skypilot_jobs import offer_of, utc

_ALLOCATED = re.compile(r"nodes allocated; Slurm job (\d+) on ([^\s)]+)\)")
_GPU = re.compile(r"gpu[:/]([^:,()\s]+)[:=](\d+)")
# An allocation in one of these is over; while it is completing, its end is fixed and nothing of it is paid any more.
_OVER = frozenset(
    {
        "BOOT_FAIL", "CANCELLED", "COMPLETED", "COMPLETING", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
        "PREEMPTED", "REVOKED", "TIMEOUT",
    }
)  # fmt: skip
_ASK = (
    "export SLURM_TIME_FORMAT=%s; "
    "sacct -X -n -P {which} -o JobIDRaw,Start,End,State,Partition,ReqTRES 2>/dev/null; "
    "squeue -h -t all {which} -o '%i|%S|%e|%T|%P|%b' 2>/dev/null; true"
)
_TIMEOUT_S = 30


class Allocation(NamedTuple):
    """What Slurm says of one of its jobs; times in seconds since the epoch, None while they have not come."""

    started_at: float
    ended_at: float | None
    partition: str
    gpu: tuple[str, int] | None


class Sighting(NamedTuple):
    """An allocation of a job as SkyPilot's events tell of it.

    Attributes:
        cluster: Slurm cluster, SkyPilot's region.
        number: Slurm's own job id.
        seen_at: When SkyPilot saw that it has its nodes.
        lost_at: When SkyPilot noticed that it was lost, None if it never did.
    """

    cluster: str
    number: str
    seen_at: float
    lost_at: float | None


def slurm_machines(sky: Any, job: Any) -> tuple[MachineUse, ...]:
    """Every allocation that a managed job has had, oldest first; empty if that cannot be told.

    What Slurm has forgotten has the times at which SkyPilot saw it.
    """
    sightings = sightings_in(events_of(sky, job.job_id))
    told: dict[tuple[str, str], Allocation] = {}
    for cluster in {row.cluster for row in sightings}:
        numbers = [row.number for row in sightings if row.cluster == cluster]
        found = _ask(cluster, f"-j {shlex.quote(','.join(numbers))}")
        told |= {(cluster, number): row for number, row in found.items()}
    return uses_of(sightings, told, offer_of(job))


def slurm_cluster(region: str, name: str) -> Allocation | None:
    """The allocation of a cluster that is no managed job's, None if Slurm says nothing of it (any more).

    Args:
        region: Slurm cluster, SkyPilot's region.
        name: The cluster's name in SkyPilot; another one was never had by that name.
    """
    from sky.clouds import Slurm
    from sky.utils.common_utils import make_cluster_name_on_cloud

    job_name = make_cluster_name_on_cloud(name, max_length=Slurm.max_cluster_name_length())
    return newest_of(_ask(region, f"--name={shlex.quote(job_name)}"))


def newest_of(told: Mapping[str, Allocation]) -> Allocation | None:
    """The one that began last: a provision that failed and was tried again leaves others behind."""
    return max(told.values(), key=lambda allocation: allocation.started_at, default=None)


def is_settled(job: Any, machines: Sequence[MachineUse]) -> bool:
    """Whether asking again brings nothing new while the job's record stays as it is."""
    if not machines or any(use.ended_at is None for use in machines[:-1]):
        return False
    is_running: bool = job.status.value == "RUNNING"
    return (machines[-1].ended_at is None) == is_running


def sightings_in(events: Iterable[Event]) -> tuple[Sighting, ...]:
    """The allocations of a job's events, oldest first; each once, however often its events repeat it.

    Args:
        events: In any order.
    """
    rows: list[Sighting] = []
    for event in sorted(events, key=lambda event: event.at):
        found = _ALLOCATED.search(event.reason)
        if found is not None and (found[2], found[1]) not in {(row.cluster, row.number) for row in rows}:
            rows.append(Sighting(found[2], found[1], event.at, None))
        if event.status == "RECOVERING" and rows:
            rows[-1] = rows[-1]._replace(lost_at=rows[-1].lost_at or event.at)
    return tuple(rows)


def allocations_in(text: str) -> dict[str, Allocation]:
    """Lines `id|start|end|state|partition|resources` of sacct and squeue, by id; a later line is the newer word.

    >>> allocations_in("7|100|160|CANCELLED by 0|spot|gres/gpu:a100:2\\n8|N/A|N/A|PENDING|spot|N/A\\n")
    {'7': Allocation(started_at=100.0, ended_at=160.0, partition='spot', gpu=('a100', 2))}
    """
    found = {}
    for line in text.splitlines():
        number, start, end, state, partition, resources, *_ = [*line.split("|"), *[""] * 6]
        if not (number.isdigit() and start.isdigit()):
            continue
        is_over = state.split()[:1] != [] and state.split()[0] in _OVER
        gpu = _GPU.search(resources)
        found[number] = Allocation(
            float(start),
            float(end) if is_over and end.isdigit() else None,
            partition,
            (gpu[1], int(gpu[2])) if gpu else None,
        )
    return found


def uses_of(
    sightings: Sequence[Sighting], told: Mapping[tuple[str, str], Allocation], newest: Offer | None
) -> tuple[MachineUse, ...]:
    """Times by Slurm's word, or by SkyPilot's where Slurm says nothing any more.

    Args:
        sightings: Oldest first.
        told: Slurm's word by cluster and job id.
        newest: What SkyPilot says the job has or had last.
    """
    uses = []
    for number, row in enumerate(sightings):
        is_newest = number == len(sightings) - 1
        allocation = told.get((row.cluster, row.number))
        lost_at = row.lost_at or (None if is_newest else sightings[number + 1].seen_at)
        if allocation is None:
            uses.append(MachineUse(utc(row.seen_at), utc(lost_at), newest if is_newest else None))
            continue
        offer = (newest if is_newest else None) or _offer(row, allocation)
        ended_at = allocation.ended_at or (None if is_newest else lost_at)
        uses.append(MachineUse(utc(allocation.started_at), utc(ended_at), offer))
    return tuple(uses)


def _offer(row: Sighting, allocation: Allocation) -> Offer | None:
    """The machine of an earlier allocation."""
    if allocation.gpu is None:
        return None
    name, count = allocation.gpu
    return Offer(
        cloud="slurm",
        region=row.cluster,
        zone=allocation.partition,
        instance_type=None,
        gpu=canonical_gpu(name) or name,
        gpus_per_node=count,
        gpu_mem_gib=None,
        vcpus=None,
        ram_gib=None,
        market="on_demand",
        price_usd_per_hour=None,
        source="slurm",
        as_of_at=None,
    )


def _ask(cluster: str, which: str) -> dict[str, Allocation]:
    """Slurm's word on some of its jobs; nothing if this machine has no way to it."""
    from sky.provision.slurm.utils import run_on_login_node

    try:
        _, answer, _ = run_on_login_node(cluster, _ASK.format(which=which), timeout=_TIMEOUT_S)
    except Exception:  # SkyPilot's server may be elsewhere, and the cluster known to it alone
        return {}
    return allocations_in(answer)
