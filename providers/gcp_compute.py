"""Clients of Google's Compute Engine for reservations, and what their errors mean.

The client library is imported when something is asked for the first time: that takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from providers.errors import CredentialsError, LaunchError, MissingExtraError, TuneplanError
from providers.reservations import PurchaseRefusedError, PurchaseUnclearError

EXTRA = "reserve-gcp"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LOGIN_HINT = "gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS"
_ADC = ".config/gcloud/application_default_credentials.json"
_PRODUCT = Path("/sys/class/dmi/id/product_name")
#: As gcloud names them; for tests and for private endpoints.
_ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"
_MANAGER = "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER"
_CALL_S = 60.0
_OPERATION_S = 120.0


class Gcp:
    """The clients of one project, each made once.

    Args:
        environ: Where login, project and endpoints are looked for.
        home: Home directory, for gcloud's own login.
    """

    def __init__(self, environ: Mapping[str, str] | None = None, home: Path | None = None) -> None:
        """Say at once what is missing; nothing is imported or asked yet.

        Raises:
            MissingExtraError: google-cloud-compute is not installed.
            CredentialsError: There is no login or no project.
        """
        self._environ = os.environ if environ is None else environ
        if not _installed():
            raise MissingExtraError(EXTRA, "asking Google Cloud for capacity")
        self._check_login(home or Path.home())
        self._clients: dict[str, Any] = {}
        self._login: Any = None
        self.project = self._project()

    def client(self, name: str) -> Any:
        """A client of compute_v1 over REST, as in `FutureReservations`; it repeats nothing that is sent with `once`."""
        if name not in self._clients:
            from google.cloud import compute_v1

            endpoint = self._environ.get(_ENDPOINT)
            options = {"api_endpoint": endpoint.rstrip("/")} if endpoint else None
            made = getattr(compute_v1, f"{name}Client")
            self._clients[name] = made(
                credentials=self._credentials(), transport="rest", client_options=options
            )
        return self._clients[name]

    def may(self, permission: str) -> None:
        """Ask whether the login has a right in the project (projects.testIamPermissions); changes nothing.

        Raises:
            CredentialsError: It has not, or that cannot be asked.
        """
        from google.auth.transport.requests import AuthorizedSession

        base = self._environ.get(_MANAGER, "https://cloudresourcemanager.googleapis.com").rstrip("/")
        url = f"{base}/v1/projects/{self.project}:testIamPermissions"
        with gcp_errors("ask for the rights of the login"):
            session = AuthorizedSession(self._credentials())
            answer = session.post(url, json={"permissions": [permission]}, timeout=_CALL_S)
            held = answer.json().get("permissions", []) if answer.status_code == 200 else None
        if held is None:
            said = f"HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}"
            hint = "enable cloudresourcemanager.googleapis.com in the project, and log in"
            raise CredentialsError(f"Google Cloud does not say what the login may do: {said}", hint=hint)
        if permission not in held:
            raise CredentialsError(
                f"the login lacks {permission} in project {self.project}",
                hint="the role Compute Future Reservation Admin has it",
            )

    def _project(self) -> str:
        named = self._environ.get("GOOGLE_CLOUD_PROJECT") or self._environ.get("CLOUDSDK_CORE_PROJECT")
        project = named or getattr(self._credentials(), "quota_project_id", None)
        if not project:
            raise CredentialsError("no Google Cloud project is named", hint="export GOOGLE_CLOUD_PROJECT=...")
        return str(project)

    def _check_login(self, home: Path) -> None:
        """Without a login the library would ask a metadata server that is not there, for many seconds."""
        given = ("CLOUDSDK_AUTH_ACCESS_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS")
        if any(self._environ.get(name) for name in given) or (home / _ADC).is_file():
            return
        with contextlib.suppress(OSError):
            if "Google" in _PRODUCT.read_text(encoding="utf-8", errors="replace"):
                return
        raise CredentialsError("nobody is logged in to Google Cloud", hint=_LOGIN_HINT)

    def _credentials(self) -> Any:
        if self._login is None:
            token = self._environ.get("CLOUDSDK_AUTH_ACCESS_TOKEN")
            with gcp_errors("log in to Google Cloud"):
                if token:
                    from google.oauth2.credentials import Credentials

                    self._login = Credentials(token=token)
                else:
                    import google.auth

                    self._login, _ = google.auth.default(scopes=[_SCOPE])
        return self._login


def _installed() -> bool:
    try:
        return find_spec("google.cloud.compute_v1") is not None
    except ModuleNotFoundError:  # not even google.cloud
        return False


def once() -> dict[str, Any]:
    """Options of a call that spends: one request, whatever becomes of it."""
    return {"retry": None, "timeout": _CALL_S}


def reading() -> dict[str, Any]:
    """Options of a call that may be repeated, which the library does as it likes."""
    return {"timeout": _CALL_S}


def request_id(text: str) -> str:
    """The UUID that Google wants as an idempotency key, the same for the same text.

    >>> request_id("tp-1-1") == request_id("tp-1-1") != request_id("tp-1-2")
    True
    """
    return str(uuid.UUID(bytes=sha256(text.encode()).digest()[:16], version=4))


def finished(gcp: Gcp, operation: Any, zone: str) -> None:
    """Wait for an operation of a zone.

    Raises:
        PurchaseRefusedError: It ended with an error.
        PurchaseUnclearError: It does not end.
    """
    import time

    client, until = gcp.client("ZoneOperations"), time.monotonic() + _OPERATION_S
    while operation.status.name != "DONE":
        if time.monotonic() > until:
            raise PurchaseUnclearError(f"operation {operation.name} does not end")
        place = {"project": gcp.project, "zone": zone, "operation": operation.name}
        operation = client.wait(request=place, **reading())
    if operation.error.errors:
        said = "; ".join(f"{row.code}: {row.message}" for row in operation.error.errors)
        raise PurchaseRefusedError(f"Google Cloud refused: {said}")


@contextlib.contextmanager
def gcp_errors(action: str) -> Iterator[None]:
    """Errors of a call that reads, or may be repeated without harm.

    Raises:
        CredentialsError: Nobody is logged in, or without the right.
        LaunchError: Google Cloud refused or cannot be reached.
    """
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except GoogleAuthError as error:
        raise CredentialsError(f"cannot {action}: {_text(error)}", hint=_LOGIN_HINT) from error
    except GoogleAPIError as error:
        raise _refusal(error, action, LaunchError) from error
    except OSError as error:  # requests' own errors are OSErrors
        raise LaunchError(
            f"cannot {action}: {_text(error)}", hint="check the network", code="unreachable"
        ) from error


@contextlib.contextmanager
def purchase_errors(action: str) -> Iterator[None]:
    """Errors of a call that spends.

    Raises:
        PurchaseRefusedError: Nothing was bought: Google said no, or the request never left.
        PurchaseUnclearError: The request left, and no answer says what came of it.
    """
    from google.api_core.exceptions import AlreadyExists, ClientError, Conflict
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import ConnectTimeout

    try:
        yield
    except (PurchaseRefusedError, PurchaseUnclearError):
        raise
    except (AlreadyExists, Conflict) as error:  # the name is ours alone: an earlier request made it
        raise PurchaseUnclearError(f"cannot {action}: {_text(error)}") from error
    except ClientError as error:
        if error.code in (408, 499):
            raise PurchaseUnclearError(f"cannot {action}: {_text(error)}") from error
        raise _refusal(error, action, PurchaseRefusedError) from error
    except (GoogleAuthError, ConnectTimeout) as error:
        raise PurchaseRefusedError(f"cannot {action}: the request was not sent: {_text(error)}") from error
    except Exception as error:  # whatever it is, the request may have arrived
        if _never_left(error):
            raise PurchaseRefusedError(
                f"cannot {action}: the request was not sent: {_text(error)}"
            ) from error
        raise PurchaseUnclearError(f"cannot {action}: {_text(error)}") from error


def _never_left(error: BaseException) -> bool:
    """Whether no connection was made; urllib3 says so below what requests says."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    inner = error.args[0] if error.args else None
    return isinstance(inner, MaxRetryError) and isinstance(inner.reason, NewConnectionError)


def _refusal(error: Any, action: str, kind: type[TuneplanError]) -> TuneplanError:
    text = f"cannot {action}: {_text(error)}"
    if getattr(error, "code", None) in (401, 403) and kind is not PurchaseRefusedError:
        return CredentialsError(text, hint=f"{_LOGIN_HINT}; the login needs the right that is named")
    return kind(text)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
