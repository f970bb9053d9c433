"""Tries of machines through SkyPilot: a cluster of its own for each, without a job, ended as soon as it is up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from providers.aws_access import grant_role
from providers.skypilot import sky_module
from providers.skypilot_errors import last_refusal
from providers.skypilot_launches import end_cluster, end_launches
from providers.skypilot_start import take_back_rights
from providers.skypilot_task import END_THEMSELVES, no_credential_upload, resources_of
from providers.tags import tag_value
from providers.trying import TryAnswer, TryRequest

_IDLE_MIN = 5


class SkyPilotTrier:
    """One cluster a try; SkyPilot knows it by the try's id."""

    def acquire(self, request: TryRequest) -> TryAnswer:
        """Ask for the machines and wait.

        Raises:
            CredentialsError: There is no login, or it may not rent.
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            asked = _ask(sky, request)
            try:
                _wait(sky, asked, request.limit_s)
            except sky.exceptions.ResourcesUnavailableError as error:
                return TryAnswer(False, last_refusal(error))
            except TimeoutError:
                return TryAnswer(False, f"not there after {request.limit_s:.0f} s", unsure=True)
            return TryAnswer(True, "")

    def release(self, try_id: str) -> None:
        """End the cluster and whatever still makes it.

        Raises:
            CleanupPendingError: SkyPilot did not confirm that it is gone.
            LaunchError: SkyPilot cannot be asked.
        """
        with sky_module() as sky:
            end_launches(sky, try_id)
            end_cluster(sky, try_id)
        take_back_rights(try_id)


def _ask(sky: Any, request: TryRequest) -> Any:
    from sky import skypilot_config

    labels = request.labels | {"tuneplan-run": request.try_id}
    document = {
        "name": request.try_id,
        "num_nodes": request.nodes,
        "resources": {
            **resources_of(request.offer),
            "labels": {tag_value(name): tag_value(value) for name, value in labels.items()},
        },
    }
    identities = no_credential_upload()
    if request.offer.cloud == "aws":  # without one of ours it may do everything in EC2 and S3
        identities["aws"] = {"remote_identity": grant_role(request.try_id, ())}
    ends = {"idle_minutes_to_autostop": _IDLE_MIN, "down": True}
    with skypilot_config.override_skypilot_config(identities):
        return sky.launch(
            sky.Task.from_yaml_config(document),
            cluster_name=request.try_id,
            **(ends if request.offer.cloud in END_THEMSELVES else {}),
        )


def _wait(sky: Any, asked: Any, limit_s: float) -> None:
    """Wait for a request to end.

    Raises:
        TimeoutError: It takes longer.
    """
    pool = ThreadPoolExecutor(1, "try")
    try:
        pool.submit(sky.get, asked).result(timeout=limit_s)
    finally:
        pool.shutdown(wait=False)
