"""A request as a task that SkyPilot's client can launch: with its secrets, and with the rights of its run alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from providers.aws_access import grant_role, revoke_role, session_keys
from providers.errors import CredentialsError, LaunchError, MissingExtraError
from providers.launcher import LaunchRequest
from providers.sealed import VARIABLE, seal
from providers.skypilot_reservations import config
from providers.skypilot_task import no_credential_upload


def secret_values(names: tuple[str, ...]) -> dict[str, str]:
    """The secrets of a request, as this environment has them.

    Raises:
        CredentialsError: One is not set.
    """
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise CredentialsError(
            f"secrets not set in this environment: {', '.join(missing)}",
            hint="export them, then launch again",
        )
    return {name: os.environ[name] for name in names}


def take_back_rights(run_id: str) -> None:
    """Remove the instance role of a run or a try of which nothing is left; a role costs nothing if it stays."""
    with contextlib.suppress(CredentialsError, LaunchError, MissingExtraError):
        revoke_role(run_id)


@contextlib.contextmanager
def ready_task(
    sky: Any, request: LaunchRequest, document: dict[str, Any], secrets: dict[str, str]
) -> Iterator[Any]:
    """The task, while SkyPilot is configured for it: it gives each machine what it asks for, and nothing of the user's.

    Args:
        sky: SkyPilot.
        request: What is launched.
        document: Its task document.
        secrets: Values of the secrets that it names.

    Raises:
        CredentialsError, LaunchError: The rights of the run cannot be made.
    """
    from sky import skypilot_config

    identities = no_credential_upload()
    if request.access == "session":
        secrets = secrets | session_keys(request.run_id, request.stores, request.reads)
    chosen = skypilot_config.get_nested(("aws", "remote_identity"), None)
    if chosen is None and {offer.cloud for offer in request.offers} == {"aws"}:
        # without one of ours SkyPilot gives each machine a role that may do everything in EC2 and S3
        rights = (request.stores, request.reads) if request.access == "role" else ((), ())
        name = document["name"]
        identities["aws"] = {"remote_identity": [{f"{name}*": grant_role(request.run_id, *rights)}]}
    share = [(VARIABLE, seal(secrets, request.bundle))] if secrets else None
    task = sky.Task.from_yaml_config(document, secrets_overrides=share)
    kept = {
        cloud: section
        for cloud, section in identities.items()
        if skypilot_config.get_nested((cloud, "remote_identity"), None)
        is None  # a role that the user chose wins
    }
    for cloud, section in config(request.reservations).items():
        kept[cloud] = kept.get(cloud, {}) | section
    with skypilot_config.override_skypilot_config(kept):
        yield task
