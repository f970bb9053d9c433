"""SkyPilot's exceptions in our words; SkyPilot itself is not needed for that."""

from __future__ import annotations

import re

from providers.errors import CredentialsError, LaunchError, TuneplanError, UsageError

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def skypilot_error(error: Exception) -> TuneplanError:
    """The one place where SkyPilot's exceptions are mapped, by name: its classes need not be importable."""
    names = {cls.__name__ for cls in type(error).__mro__}
    text = f"SkyPilot: {first_line(str(error)) or type(error).__name__}"
    for ours, hint, theirs in _OURS:
        if names & theirs:
            return ours(text, hint=hint)
    return LaunchError(text)


# Everything else is a LaunchError.
_OURS: tuple[tuple[type[TuneplanError], str, frozenset[str]], ...] = (
    (
        CredentialsError,
        "run `sky check` to see what is missing",
        frozenset(
            {
                "ApiServerAuthenticationError", "CloudUserIdentityError", "ClusterOwnerIdentityMismatchError",
                "InvalidCloudCredentials", "NoCloudAccessError", "PermissionDeniedError",
            }
        ),
    ),
    (
        UsageError,
        "see what SkyPilot would get with `plan launch --dry-run`",
        frozenset(
            {
                "InvalidClusterNameError", "InvalidSkyPilotConfigError", "InvalidWorkspaceNameError",
                "NotSupportedError", "StorageSpecError", "UserRequestRejectedByPolicy",
            }
        ),
    ),
    (
        LaunchError,
        "run `sky api info` to see whether SkyPilot's API server can be reached",
        frozenset(
            {
                "ApiServerConnectionError", "APIVersionMismatchError", "ConnectionError",
                "ServerTemporarilyUnavailableError", "Timeout",
            }
        ),
    ),
)  # fmt: skip


#: The server did not say what came of a request that may have reached it; SkyPilot's own are no OSErrors.
_LOST = frozenset(
    {
        "ApiServerConnectionError", "ConnectionError", "RequestInterruptedError",
        "ServerTemporarilyUnavailableError", "Timeout", "TimeoutError",
    }
)  # fmt: skip


def is_lost(error: Exception) -> bool:
    """Whether the server was lost after it may have been asked, so that it may go on with what it was asked for."""
    return bool({cls.__name__ for cls in type(error).__mro__} & _LOST)


def last_refusal(error: BaseException) -> str:
    """What the seller that was asked last said, without SkyPilot's advice."""
    history = [first_line(str(one)) for one in getattr(error, "failover_history", ())]
    return next((line for line in reversed(history) if line), first_line(str(error)) or "refused")


def first_line(text: str) -> str:
    """The first line that says something, without colours."""
    return next((line.strip()[:300] for line in plain(text).splitlines() if line.strip()), "")


def plain(text: str) -> str:
    """Text without colours."""
    return _ESCAPE.sub("", text)
