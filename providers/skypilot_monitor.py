"""The monitor's machine as a cluster of SkyPilot's, and commands on it. Unlike a worker's it has the user's logins."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from providers.errors import LaunchError
from providers.sealed import VARIABLE, seal
from providers.skypilot import lines_of, sky_module
from providers.skypilot_jobs import worker_lines
from providers.skypilot_launches import end_cluster, end_launches, is_at_work, newest_launch

HostState = Literal["absent", "starting", "up", "idle", "stopped"]
_SERVER = "SKYPILOT_API_SERVER_ENDPOINT"


class Host(NamedTuple):
    """What SkyPilot says of the machine.

    Attributes:
        state: idle is a machine on which no monitor runs.
        place: Cloud and region, "" if there is none.
    """

    state: HostState
    place: str = ""


class SkyPilotMonitorHost:
    """One machine by name."""

    def __init__(self, name: str) -> None:
        """Nothing is asked before it is needed."""
        self._name = name

    def begin(self, setup: Mapping[str, Any], monitor: Mapping[str, Any], secrets: Mapping[str, str]) -> None:
        """Rent it, install what the set-up says and start the monitor; what SkyPilot does is told on stderr.

        Raises:
            LaunchError: It cannot be had, or its set-up failed.
            CredentialsError: The cloud refuses ours.
        """
        with sky_module() as sky:
            number, _ = sky.stream_and_get(sky.launch(_task(sky, setup, {}), cluster_name=self._name))
            said = list(worker_lines(sky.tail_logs(self._name, number, True, preload_content=False)))
            if sky.get(sky.job_status(self._name, [number]))[number] != sky.JobStatus.SUCCEEDED:
                last = said[-1] if said else "it said nothing"
                raise LaunchError(f"the monitor's machine is up, but its set-up failed: {last}")
            self._end_monitors(sky)
            sky.get(sky.exec(_task(sky, monitor, secrets), cluster_name=self._name))

    def look(self) -> Host:
        """Whether it is there.

        Raises:
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            rows = sky.get(sky.status([self._name], refresh=sky.StatusRefreshMode.AUTO))
            if not rows:
                return Host("starting" if is_at_work(newest_launch(sky, self._name)) else "absent")
            got = getattr(rows[0].handle, "launched_resources", None)
            place = "" if got is None else f"{str(got.cloud).lower()}/{got.region}"
            word = rows[0].status.value
            if word != "UP":
                return Host("stopped" if word == "STOPPED" else "starting", place)
            return Host("up" if self._monitors(sky) else "idle", place)

    def _monitors(self, sky: Any) -> list[int]:
        jobs = sky.get(sky.queue(self._name, skip_finished=True, all_users=True))
        return [job.job_id for job in jobs if job.job_name == self._name]

    def _end_monitors(self, sky: Any) -> None:
        """What runs older code, or without secrets that it needs now."""
        numbers = self._monitors(sky)
        if numbers:
            sky.get(sky.cancel(self._name, job_ids=numbers))

    def lines(self, document: Mapping[str, Any], secrets: Mapping[str, str]) -> Iterator[str]:
        """Run a task on it, and what it writes.

        Raises:
            LaunchError: It is not there, or SkyPilot cannot be asked.
        """

        def begin(sky: Any) -> Iterator[str]:
            number, _ = sky.get(sky.exec(_task(sky, document, secrets), cluster_name=self._name))
            if number is None:
                raise LaunchError(f"SkyPilot started nothing on {self._name}")
            return worker_lines(sky.tail_logs(self._name, number, True, preload_content=False))

        return lines_of(begin)

    def end(self) -> None:
        """Give it back.

        Raises:
            CleanupPendingError: SkyPilot did not confirm that it is gone.
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            end_launches(sky, self._name)
            end_cluster(sky, self._name)


def _task(sky: Any, document: Mapping[str, Any], secrets: Mapping[str, str]) -> Any:
    """With one share of the secrets; the other goes along with the files."""
    share = [(VARIABLE, seal(secrets, Path(document["workdir"])))] if secrets else None
    return sky.Task.from_yaml_config(dict(document), secrets_overrides=share)


def server_elsewhere() -> str | None:
    """SkyPilot's API server, if the user's is on no machine of their own: then every machine can ask it."""
    named = os.environ.get(_SERVER)
    if named:
        return named
    with sky_module():
        from sky import skypilot_config

        configured = skypilot_config.get_nested(("api_server", "endpoint"), None)
    return None if configured is None else str(configured)
