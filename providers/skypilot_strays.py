"""Managed jobs and clusters of ours that SkyPilot still has, whatever any ledger says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.skypilot import sky_module
from providers.skypilot_jobs import is_ended, offer_of, utc
from providers.skypilot_task import JOB_PREFIX, run_of, run_of_cluster
from providers.strays import Thing

_FIELDS = (
    "job_id", "job_name", "status", "submitted_at", "start_at", "cloud", "region", "zone", "accelerators",
    "cluster_resources_full", "schedule_state",
)  # fmt: skip
#: Where SkyPilot keeps clusters and managed jobs.
_DATABASES = ("state", "spot_jobs")
_END_TIMEOUT_S, _POLL_S = 300.0, 1.0


class SkyPilotSweeper:
    """Jobs that SkyPilot has not ended, and clusters that it has not given back."""

    name = "skypilot"

    def find(self) -> Iterator[Thing]:
        """Those with the name that a launch gives them; looking starts no server where none has ever run."""
        with sky_module() as sky:
            found = [] if _has_never_run() else [*_jobs(sky), *_clusters(sky)]
        yield from found

    def end(self, thing: Thing) -> None:
        """Cancel the job, or take the cluster down, and wait until SkyPilot has given the machines back."""
        with sky_module() as sky:
            if thing.kind == "job":
                sky.get(sky.jobs.cancel(job_ids=[int(thing.ref[0])]))
                _await_end(sky, int(thing.ref[0]))
                return
            try:
                sky.get(sky.down(thing.ref[0]))
            except sky.exceptions.ClusterDoesNotExist:
                return


def _has_never_run() -> bool:
    """Whether SkyPilot has rented nothing from this machine: asking it would start its server, which stays."""
    from sky import skypilot_config
    from sky.server import common
    from sky.skylet import constants, runtime_utils

    elsewhere = skypilot_config.get_nested(("db",), None) or os.environ.get(
        constants.ENV_VAR_DB_CONNECTION_URI
    )
    if elsewhere or not common.is_api_server_local():
        return False
    if any(Path(runtime_utils.get_runtime_dir_path(f".sky/{name}.db")).exists() for name in _DATABASES):
        return False
    return bool(common.get_api_server_status().status == common.ApiServerStatus.UNHEALTHY)


def _await_end(sky: Any, job_id: int) -> None:
    """Wait until nothing of a cancelled job runs, a few minutes at most."""
    deadline = time.monotonic() + _END_TIMEOUT_S
    while time.monotonic() < deadline:
        records = sky.get(sky.jobs.queue_v2(refresh=False, fields=list(_FIELDS), job_ids=[job_id]))[0]
        if all(record.schedule_state == "DONE" for record in records):
            return
        time.sleep(_POLL_S)


def _jobs(sky: Any) -> Iterator[Thing]:
    try:
        query = sky.jobs.queue_v2(refresh=False, fields=list(_FIELDS), name_match=JOB_PREFIX)
        records = sky.get(query)[0]
    except sky.exceptions.ClusterNotUpError:  # no controller: no job
        return
    for record in records:
        belongs = run_of(record.job_name or "")
        if belongs is None or is_ended(record):
            continue
        offer = offer_of(record)
        place = "/".join(part for part in (record.cloud, record.region, record.zone) if part)
        yield Thing(
            "job",
            f"{record.job_name} (managed job {record.job_id})",
            *belongs,
            utc(record.start_at or record.submitted_at),
            place.lower() or "no machine yet",
            None if offer is None else offer.cloud,
            record.region,
            market=None if offer is None else offer.market,
            ref=(str(record.job_id),),
        )


def _clusters(sky: Any) -> Iterator[Thing]:
    for cluster in sky.get(sky.status(all_users=False)):
        belongs = run_of_cluster(cluster.name) or run_of(cluster.name)
        if belongs is None or cluster.is_managed:
            continue
        place = "/".join(part for part in (cluster.cloud, cluster.region) if part)
        since = utc(float(cluster.launched_at)) if cluster.launched_at else None
        yield Thing(
            "cluster",
            cluster.name,
            *belongs,
            since,
            place.lower(),
            cluster.cloud.lower() if cluster.cloud else None,
            cluster.region,
            ref=(cluster.name,),
        )
