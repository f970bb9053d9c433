"""Runs jobs on rented machines through SkyPilot's managed jobs. The only module that imports sky.

SkyPilot's API server is the truth about machines; nothing is stored here. A run's attempt is found again by
the name of its job, so a launch that was cut off at any line can simply be repeated.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from providers.errors import (
    CleanupPendingError,
    LaunchError,
    MissingExtraError,
    TuneplanError,
)
from providers.launcher import BackendStatus, LaunchRequest, MachineUse
from providers.skypilot_errors import first_line, is_lost, skypilot_error
from providers.skypilot_events import Event, events_of
from providers.skypilot_jobs import ENDED, is_ended, is_released, status_of, worker_lines
from providers.skypilot_slurm import is_settled, slurm_machines
from providers.skypilot_start import ready_task, secret_values, take_back_rights
from providers.skypilot_task import attempt_of, job_name, task_document, task_yaml, variable_in

_FIELDS = (
    "job_id", "job_name", "status", "schedule_state", "recovery_count", "start_at", "end_at", "details",
    "failure_reason", "cloud", "region", "zone", "accelerators", "cluster_resources_full",
)  # fmt: skip
_POLL_S = 1.0
# where stdout goes is the whole process's, and SkyPilot's client is not said to be safe for threads
_ONE_AT_A_TIME = threading.RLock()
# A launch request that another process sent is in SkyPilot's hands for about 10 s before its job can be seen.
_PENDING_LAUNCH_TIMEOUT_S = 180.0
_LOG_TIMEOUT_S = 120.0
# Nothing that we want to know of a job in one of these changes without an event.
_STEADY = frozenset({"RUNNING", "CANCELLING"})


class _Seen(NamedTuple):
    """A run's jobs by attempt as they were asked for last, and the newest event of the newest of them before that."""

    jobs: dict[int, Any]
    newest_event: Event | None


class SkyPilotLauncher:
    """One managed job an attempt; SkyPilot restarts it after a preemption under the same name."""

    def __init__(self) -> None:
        """Nothing is asked before it is needed, and nothing again while SkyPilot says that it is as it was."""
        self._seen: dict[str, _Seen] = {}
        self._machines: dict[int, tuple[object, tuple[MachineUse, ...]]] = {}

    def dry_run_yaml(self, request: LaunchRequest) -> str:
        """What would be launched, without contacting anything; secrets are named only.

        Raises:
            LaunchError: SkyPilot can rent none of the offers.
        """
        return task_yaml(request)

    def launch(self, request: LaunchRequest) -> BackendStatus:
        """Start the attempt, or report it if it was started before.

        Raises:
            CredentialsError: A secret is not set here, or the cloud refuses ours.
            LaunchError: Nothing was started, an earlier attempt still runs, or a later one was started.
            CleanupPendingError: It is not known whether something was started.
        """
        document = task_document(request)
        with sky_module() as sky:
            _await_pending_launches(sky)
            jobs = _jobs_of(sky, request.run_id, wake=True)
            if not _started_before(jobs, request):
                _start(sky, request, document, secret_values(request.secrets))
                jobs = _jobs_of(sky, request.run_id)
            return self._status(sky, jobs)

    def status(self, run_id: str) -> BackendStatus:
        """What SkyPilot says of the run's newest attempt; unknown if it cannot be asked."""
        try:
            with sky_module() as sky:
                jobs = self._jobs(sky, run_id)
                status = self._status(sky, jobs)
        except LaunchError as error:
            return BackendStatus("unknown", reason=error.message)
        _take_back_rights(run_id, jobs)
        return status

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        """End the newest attempt and release its machines, without a word to its worker: tell that one before.

        Returns when the machines are gone or after the grace time, whichever is first.

        Raises:
            CleanupPendingError: There is no job of it, but SkyPilot is at a launch that may become one.
        """
        with sky_module() as sky:
            jobs = _jobs_of(sky, run_id)
            if not _is_under_way(jobs):  # whoever launched it may have been interrupted
                _await_pending_launches(sky)
                jobs = _jobs_of(sky, run_id)
            newest = jobs.get(max(jobs, default=0))
            if newest is not None and not is_ended(newest) and newest.status.value != "CANCELLING":
                sky.get(sky.jobs.cancel(job_ids=[newest.job_id]))
            deadline = time.monotonic() + grace_s
            while _is_under_way(jobs) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                jobs = self._jobs(sky, run_id)
            _take_back_rights(run_id, jobs)
            return self._status(sky, jobs)

    def logs(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        """Lines that set-up and worker wrote, without SkyPilot's own; of each attempt the last machine's."""
        return lines_of(lambda sky: _log_lines(sky, run_id, follow=follow))

    def variable_of(self, job: str, name: str) -> str | None:
        """A plain environment variable of a managed job, by the job's name or number; None if there is none.

        Raises:
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            query = {"job_ids": [int(job)]} if job.isdigit() else {"name_match": job}
            fields = ["job_id", "job_name", "user_yaml"]
            records = sky.get(sky.jobs.queue_v2(refresh=False, fields=fields, **query))[0]
        named = [record for record in records if job.isdigit() or record.job_name == job]
        return variable_in(named[0].user_yaml or "", name) if named else None

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        """Whether every machine of the run is given back: SkyPilot has nothing left to do for it.

        Of the attempts before one, if it is named.

        Raises:
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            records = _records_of(sky, run_id)
        return is_released(
            record
            for record in records
            if before_attempt is None or _attempt(record, run_id) < before_attempt
        )

    def _jobs(self, sky: Any, run_id: str) -> dict[int, Any]:
        """The run's jobs by attempt; asked for only if the newest one is not as it was when it ran."""
        seen = self._seen.get(run_id)
        newest_event = None
        if seen is not None and seen.jobs:
            newest = seen.jobs[max(seen.jobs)]
            newest_event = _newest_event(sky, newest.job_id)
            is_steady = newest.status.value in _STEADY and newest_event is not None
            if is_steady and newest_event == seen.newest_event:
                return seen.jobs
        jobs = _jobs_of(sky, run_id)
        self._seen[run_id] = _Seen(jobs, newest_event)
        return jobs

    def _status(self, sky: Any, jobs: dict[int, Any]) -> BackendStatus:
        """With the machines of the newest attempt, which are asked for again once something may have changed."""
        job = jobs.get(max(jobs, default=0))
        if job is None or (job.cloud or "").lower() != "slurm":
            return status_of(jobs)
        now = (job.status.value, job.schedule_state, job.recovery_count, job.details)
        before, machines = self._machines.get(job.job_id, (None, ()))
        if now != before:
            machines = slurm_machines(sky, job)
            if is_settled(job, machines):
                self._machines[job.job_id] = (now, machines)
        return status_of(jobs, machines)


@contextlib.contextmanager
def sky_module() -> Iterator[Any]:
    """SkyPilot, with its chatter on stderr and its exceptions turned into ours."""
    with _ONE_AT_A_TIME, contextlib.redirect_stdout(sys.stderr):
        try:
            import sky
            import sky.jobs
        except ImportError as error:
            raise MissingExtraError("launch", "launching through SkyPilot") from error
        try:
            yield sky
        except TuneplanError:
            raise
        except Exception as error:
            raise skypilot_error(error) from error


def lines_of(begin: Callable[[Any], Iterator[str]]) -> Iterator[str]:
    """Lines that come from SkyPilot; while the caller has one, stdout is the caller's."""
    lines: Iterator[str] | None = None
    while True:
        with sky_module() as sky:
            lines = lines or begin(sky)
            line = next(lines, None)
        if line is None:
            return
        yield line


def _await_pending_launches(sky: Any) -> None:
    """Wait until every launch that SkyPilot has accepted is a job: a lost one of ours may be among them."""
    deadline = time.monotonic() + _PENDING_LAUNCH_TIMEOUT_S
    while any(request.name.endswith("jobs.launch") for request in sky.api_status()):
        if time.monotonic() > deadline:
            raise CleanupPendingError(
                "SkyPilot has not finished an earlier launch",
                hint="look at `sky api status`, then try again",
            )
        time.sleep(_POLL_S)


def _jobs_of(sky: Any, run_id: str, *, wake: bool = False) -> dict[int, Any]:
    """The run's jobs by attempt; where one attempt has several, the first one stays.

    Two launches at the same moment do not see each other's job. The later one of the two is cancelled by whoever sees
    it, since the launch that made it may have been killed.
    """
    jobs: dict[int, Any] = {}
    twins = []
    for record in _records_of(sky, run_id, wake=wake):
        first = jobs.setdefault(_attempt(record, run_id), record)
        if first is not record and not is_ended(record) and record.status.value != "CANCELLING":
            twins.append(record.job_id)
    if twins:
        sky.get(sky.jobs.cancel(job_ids=twins))
    return jobs


def _newest_event(sky: Any, job_id: int) -> Event | None:
    """The last change of a job's state, None if that cannot be told."""
    try:
        return next(iter(events_of(sky, job_id, newest=1)), None)
    except (
        Exception
    ):  # an older server, or one that is not there: then the job itself is asked for, which tells
        return None


def _records_of(sky: Any, run_id: str, *, wake: bool = False) -> list[Any]:
    """Every job of the run, oldest first.

    A stopped jobs controller is started only to launch, because it is a machine that costs money.
    """
    query = sky.jobs.queue_v2(refresh=wake, fields=list(_FIELDS), name_match=job_name(run_id, 0)[:-1])
    try:
        records = sky.get(query)[0]
    except sky.exceptions.ClusterNotUpError as error:
        if error.cluster_status is None:  # there is no controller, so there was never a job
            return []
        raise
    return sorted(
        (record for record in records if _attempt(record, run_id)), key=lambda record: record.job_id
    )


def _is_under_way(jobs: dict[int, Any]) -> bool:
    """Whether the newest attempt may still have machines."""
    return bool(jobs) and status_of(jobs).state not in ENDED


def _attempt(record: Any, run_id: str) -> int:
    return attempt_of(record.job_name or "", run_id) or 0


def _await_log(sky: Any, run_id: str) -> dict[int, Any]:
    """The run's jobs once the log of an ended one can be read: SkyPilot fetches it while it ends the machine."""
    deadline = time.monotonic() + _LOG_TIMEOUT_S
    while True:
        jobs = _jobs_of(sky, run_id)
        fetching = [job for job in jobs.values() if is_ended(job) and job.schedule_state != "DONE"]
        if not fetching or time.monotonic() > deadline:
            return jobs
        time.sleep(_POLL_S)


def _started_before(jobs: dict[int, Any], request: LaunchRequest) -> bool:
    status = status_of(jobs)
    if status.attempt > request.attempt:
        raise LaunchError(f"attempt {status.attempt} of {request.run_id} was started already")
    if 0 < status.attempt < request.attempt and status.state not in ENDED:
        raise LaunchError(f"attempt {status.attempt} of {request.run_id} still runs")
    return status.attempt == request.attempt


def _start(sky: Any, request: LaunchRequest, document: dict[str, Any], secrets: dict[str, str]) -> None:
    name = document["name"]
    with ready_task(sky, request, document, secrets) as task:
        try:
            accepted = sky.jobs.launch(task, name=name)
        except Exception as error:
            if is_lost(error):
                raise _unsure(f"SkyPilot was asked for the job {name}", error) from error
            raise
    try:
        sky.get(accepted)
    except Exception as error:
        if is_lost(error) or isinstance(error, OSError):
            raise _unsure(f"SkyPilot took the job {name}", error) from error
        raise


def _unsure(done: str, error: Exception) -> CleanupPendingError:
    """A server that is updated in the middle of a launch goes on with it: nobody may call it failed."""
    return CleanupPendingError(
        f"{done}, then was lost: {first_line(str(error))}",
        hint="launch again with the same run id: it finds the job",
    )


def _take_back_rights(run_id: str, jobs: dict[int, Any]) -> None:
    """Once nothing of the run is left in AWS, its instance role goes too; a role costs nothing if it stays."""
    if any(job.cloud == "AWS" for job in jobs.values()) and is_released(jobs.values()):
        take_back_rights(run_id)


def _log_lines(sky: Any, run_id: str, *, follow: bool) -> Iterator[str]:
    jobs = _await_log(sky, run_id)
    for attempt in sorted(jobs):
        wait = follow and attempt == max(jobs)
        yield from worker_lines(
            sky.jobs.tail_logs(job_id=jobs[attempt].job_id, follow=wait, preload_content=False)
        )
