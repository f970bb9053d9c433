"""Runs jobs through SkyPilot on clusters of their own: without its jobs controller, a machine that costs by the hour.

An attempt is one cluster with one job. SkyPilot does not start it again after a preemption; our monitor does, as the
next attempt. A cluster is given back by whoever looks at it once its job has ended, and by itself where its cloud
lets it. SkyPilot's API server is the truth about machines; nothing is stored here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from providers.errors import CleanupPendingError, LaunchError
from providers.launcher import BackendState, BackendStatus, LaunchRequest
from providers.offers import Offer
from providers.skypilot import lines_of, sky_module
from providers.skypilot_errors import first_line, last_refusal
from providers.skypilot_jobs import RELEASING, machine_offer, utc, worker_lines
from providers.skypilot_launches import end_cluster, end_launches, is_at_work, launches, newest_launch
from providers.skypilot_slurm import Allocation, slurm_cluster
from providers.skypilot_start import ready_task, secret_values, take_back_rights
from providers.skypilot_task import (
    END_THEMSELVES,
    WITHOUT_SPOT,
    cluster_name,
    run_of_cluster,
    task_document,
    task_yaml,
)

#: A cluster that nobody looks at ends itself so long after its job.
_IDLE_MIN = 5
_REMEMBERED_DAYS = 90
#: What SkyPilot does not reach for so long is taken for lost, and ended.
_DOUBT_S = 180.0
_JOB_STATES: dict[str, BackendState] = {
    "INIT": "provisioning",
    "PENDING": "provisioning",
    "SETTING_UP": "provisioning",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "CANCELLED": "cancelled",
}
_JOB_ENDED = frozenset({"succeeded", "failed", "cancelled"})


class SkyPilotClusterLauncher:
    """One cluster an attempt."""

    def __init__(self) -> None:
        """Nothing is asked before it is needed."""
        self._doubted: dict[str, float] = {}
        self._told: dict[str, Allocation] = {}

    def dry_run_yaml(self, request: LaunchRequest) -> str:
        """What would be launched, without contacting anything; secrets are named only.

        Raises:
            LaunchError: SkyPilot can rent none of the offers.
        """
        return task_yaml(request, managed=False)

    def launch(self, request: LaunchRequest) -> BackendStatus:
        """Ask for the attempt's cluster, or report it if that was done before; the machines come later.

        Raises:
            CredentialsError: A secret is not set here, or the cloud refuses ours.
            LaunchError: Nothing was started, an earlier attempt still runs, or a later one was started.
        """
        document = task_document(request, managed=False)
        with sky_module() as sky:
            before = self._status(sky, request.run_id)
            if before.attempt > request.attempt:
                raise LaunchError(f"attempt {before.attempt} of {request.run_id} was started already")
            if before.attempt == request.attempt:
                return before
            if not _is_released(sky, request.run_id):
                raise LaunchError(f"attempt {before.attempt} of {request.run_id} still runs")
            name = cluster_name(request.run_id, request.attempt)
            with ready_task(sky, request, document, secret_values(request.secrets)) as task:
                sky.launch(task, cluster_name=name, **_ends_itself(request))
            return self._status(sky, request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        """What SkyPilot says of the newest attempt; a cluster whose job has ended is given back first."""
        try:
            with sky_module() as sky:
                status = self._status(sky, run_id)
        except (CleanupPendingError, LaunchError) as error:
            return BackendStatus("unknown", reason=error.message)
        if status.ended_at is not None and _may_be_on_aws(status):
            take_back_rights(run_id)
        return status

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        """End the newest attempt's job and give its machines back, with no time for its worker: tell that one before.

        Raises:
            CleanupPendingError: SkyPilot does not confirm it.
        """
        with sky_module() as sky:
            name = _newest(sky, run_id)
            if name is None:
                return BackendStatus("absent")
            end_launches(sky, name)
            job = _job_on(sky, _cluster(sky, name))
            if job is not None and not job.status.is_terminal():
                sky.get(sky.cancel(name, job_ids=[job.job_id]))
            end_cluster(sky, name)
            status = self._status(sky, run_id)
        take_back_rights(run_id)
        return status

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        """Lines that set-up and worker of the newest attempt wrote; none once its cluster is gone."""
        return lines_of(lambda sky: _log_lines(sky, run_id, follow=follow))

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        """Whether every machine of the run is given back; of the attempts before one, if it is named.

        Raises:
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            return _is_released(sky, run_id, before_attempt=before_attempt)

    def _status(self, sky: Any, run_id: str) -> BackendStatus:
        """With Slurm's own word on when a cluster there began and ended: SkyPilot counts some seconds more."""
        seen = self._seen(sky, run_id)
        name, offer = seen.backend_id, seen.offer
        if name is None or offer is None or offer.cloud != "slurm":
            return seen
        told = self._told.get(name)
        if told is None or (told.ended_at is None) != (seen.ended_at is None):
            told = slurm_cluster(offer.region, name)
        if told is None:
            return seen
        if seen.state == "running":  # before, SkyPilot may still go on to other nodes
            self._told[name] = told
        ended_at = None if seen.ended_at is None else utc(told.ended_at) or seen.ended_at
        return replace(seen, started_at=utc(told.started_at), ended_at=ended_at)

    def _seen(self, sky: Any, run_id: str) -> BackendStatus:
        name = _newest(sky, run_id)
        if name is None:
            return BackendStatus("absent")
        cluster = _cluster(sky, name)
        seen = BackendStatus(
            "provisioning",
            backend_id=name,
            reason="SkyPilot looks for machines",
            attempt=max(_of_run({name}, run_id)),
        )
        if cluster is None:
            asked = newest_launch(sky, name)
            return seen if is_at_work(asked) else _gone(sky, seen, asked)
        started_at = utc(float(cluster.launched_at)) if cluster.launched_at else None
        offer = _offer(getattr(cluster.handle, "launched_resources", None))
        seen = replace(seen, reason="machines are set up", offer=offer, started_at=started_at)
        job = _job_on(sky, cluster)
        if job is not None:
            self._doubted.pop(name, None)
            return _with_job(sky, name, seen, job)
        asked = newest_launch(sky, name)
        if is_at_work(asked):
            return seen
        if _cluster(sky, name, forced=True) is None:
            return _gone(sky, seen, asked)
        if _refusal(sky, asked) is None and not self._is_given_up(name):
            return replace(seen, state="unknown", reason="SkyPilot does not reach the machines")
        end_cluster(sky, name)
        return _gone(sky, seen, asked)

    def _is_given_up(self, name: str) -> bool:
        """Whether a cluster is half there, or has no job, for so long that it will not come back.

        A machine under load, or a network that fails for a while, looks like that too.
        """
        now_s = time.monotonic()
        return now_s - self._doubted.setdefault(name, now_s) >= _DOUBT_S


def _ends_itself(request: LaunchRequest) -> dict[str, Any]:
    """A net below a run that nobody watches, where every cloud that it may get has one."""
    if {offer.cloud for offer in request.offers} <= END_THEMSELVES:
        return {"idle_minutes_to_autostop": _IDLE_MIN, "down": True}
    return {}


def _with_job(sky: Any, name: str, seen: BackendStatus, job: Any) -> BackendStatus:
    """By the state of its job; when that has ended, the machines are given back."""
    word = job.status.value
    state = _JOB_STATES.get(word, "failed")
    if state not in _JOB_ENDED:
        reason = "" if state == "running" else f"the job is {word.lower().replace('_', ' ')}"
        return replace(seen, state=state, reason=reason)
    is_lost = state == "failed" and not _is_whole(sky, name)
    try:
        end_cluster(sky, name)
    except (CleanupPendingError, LaunchError) as error:  # it still costs: its end is not there yet
        return replace(seen, state="releasing", reason=f"{RELEASING}: {error.message}")
    if is_lost:
        why = "the job failed as a machine of its cluster was gone"
        return replace(seen, state="vanished", reason=why, ended_at=utc(time.time()))
    return replace(
        seen,
        state=state,
        reason="" if state == "succeeded" else f"the job {word.lower().replace('_', ' ')}",
        exit_code=0 if state == "succeeded" else None,
        ended_at=utc(time.time()),
        stopped_by="cancel" if state == "cancelled" else None,
    )


def _is_whole(sky: Any, name: str) -> bool:
    """Whether its cloud has every machine of a cluster: a job fails as soon as one is gone, before SkyPilot knows."""
    cluster = _cluster(sky, name, forced=True)
    return cluster is not None and cluster.status.value == "UP"


def _gone(sky: Any, seen: BackendStatus, asked: Any) -> BackendStatus:
    """A cluster that is not there any more: it was never had, or it was lost, or ended itself."""
    past = max(_history(sky, seen.backend_id), key=lambda row: row["launched_at"] or 0, default=None)
    began, ended_at, offer = seen.started_at, utc(time.time()), seen.offer
    if past is not None and past["usage_intervals"]:
        began = utc(past["usage_intervals"][0][0])
        ended_at = utc(past["usage_intervals"][-1][1] or time.time())
        offer = offer or _offer(past["resources"])
    why = _refusal(sky, asked)
    seen = replace(seen, started_at=began, ended_at=ended_at, offer=offer)
    if why is None:
        return replace(seen, state="vanished", reason="the machines are gone")
    if why.is_stock_out:  # SkyPilot's history has the time in which it asked
        seen = replace(seen, started_at=None, refused=True)
    return replace(seen, state="failed", reason=why.text)


def _newest(sky: Any, run_id: str) -> str | None:
    """Name of the newest attempt's cluster that SkyPilot has or is asked for, else of the newest that it had."""
    names = _living(sky, run_id)
    if not names:
        past = {row["name"] for row in _history(sky)}
        past |= {row.cluster_name for row in launches(sky, all_status=True)}
        names = _of_run(past, run_id)
    return cluster_name(run_id, max(names)) if names else None


def _living(sky: Any, run_id: str) -> list[int]:
    """The run's attempts whose clusters SkyPilot has or is asked for."""
    names = {row.name for row in sky.get(sky.status(all_users=False))}
    return _of_run(names | {row.cluster_name for row in launches(sky)}, run_id)


def _of_run(names: set[str | None], run_id: str) -> list[int]:
    """The attempts that clusters of these names are of."""
    found = [run_of_cluster(name) for name in names if name]
    return [one[1] for one in found if one is not None and one[0] == run_id]


def _cluster(sky: Any, name: str, *, forced: bool = False) -> Any:
    """SkyPilot's record of a cluster, None if there is none; its cloud is asked if it may be gone, or if forced."""
    refresh = sky.StatusRefreshMode.FORCE if forced else sky.StatusRefreshMode.AUTO
    return next(iter(sky.get(sky.status([name], refresh=refresh))), None)


def _job_on(sky: Any, cluster: Any) -> Any:
    """The job of a cluster, None if there is none; one that is not up cannot be asked.

    Two launches at the same moment give one cluster two jobs: the later one is cancelled.
    """
    if cluster is None or cluster.status.value != "UP":
        return None
    try:
        jobs = sorted(sky.get(sky.queue(cluster.name, all_users=True)), key=lambda job: job.job_id)
    except Exception:  # not up, or not to be reached: its cloud knows whether it is there
        if _cluster(sky, cluster.name, forced=True) is not None:
            raise
        return None
    twins = [job.job_id for job in jobs[1:] if not job.status.is_terminal()]
    if twins:
        sky.get(sky.cancel(cluster.name, job_ids=twins))
    return jobs[0] if jobs else None


class _Refusal(NamedTuple):
    """Why a launch failed.

    Attributes:
        is_stock_out: Some seller had no machine; else no later launch would fare better.
    """

    text: str
    is_stock_out: bool = False


def _refusal(sky: Any, asked: Any) -> _Refusal | None:
    """Why a launch failed; None if it did not."""
    if asked is None or asked.status != "FAILED":
        return None
    try:
        sky.get(asked.request_id)
    except sky.exceptions.ResourcesUnavailableError as error:
        # what SkyPilot could not even ask for is in the history too, as errors of other kinds, or leaves it empty
        stock_out = sky.exceptions.ResourcesUnavailableError
        return _Refusal(
            f"none of the machines asked for can be had now: {last_refusal(error)}",
            any(isinstance(one, stock_out) for one in error.failover_history),
        )
    except Exception as error:
        return _Refusal(first_line(str(error)) or type(error).__name__)
    return None


def _history(sky: Any, name: str | None = None) -> list[dict[str, Any]]:
    """Clusters that SkyPilot has had."""
    return [row for row in sky.get(sky.cost_report(_REMEMBERED_DAYS)) if name in (None, row["name"])]


def _is_released(sky: Any, run_id: str, *, before_attempt: int | None = None) -> bool:
    return all(before_attempt is not None and attempt >= before_attempt for attempt in _living(sky, run_id))


def _offer(got: Any) -> Offer | None:
    """The machine of SkyPilot's resources; what it costs is for the plan to say."""
    if got is None or got.cloud is None or got.region is None:
        return None
    instance_type = None if str(got.cloud).lower() in WITHOUT_SPOT else got.instance_type
    return machine_offer(got, is_spot=got.use_spot, instance_type=instance_type)


def _may_be_on_aws(status: BackendStatus) -> bool:
    return status.offer is None or status.offer.cloud == "aws"


def _log_lines(sky: Any, run_id: str, *, follow: bool) -> Iterator[str]:
    name = _newest(sky, run_id)
    job = None if name is None else _job_on(sky, _cluster(sky, name))
    if job is not None:
        yield from worker_lines(sky.tail_logs(name, job.job_id, follow, preload_content=False))
