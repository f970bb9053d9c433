"""Azure's compute client for reservations, and what its errors mean.

The client library is imported when something is asked for the first time: that takes seconds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from providers.errors import CredentialsError, LaunchError, MissingExtraError, TuneplanError, UsageError
from providers.reservations import PurchaseRefusedError, PurchaseUnclearError

EXTRA = "reserve-azure"
_LOGIN_HINT = "az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
_PRINCIPAL = ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET")
_URL, _DEFAULT_URL = "AZURE_RESOURCE_MANAGER_URL", "https://management.azure.com"
_PERMISSIONS_VERSION = "2022-04-01"
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_CALL_S = 60


class Azure:
    """The clients of one subscription and resource group.

    Args:
        environ: Where login, subscription, resource group and address are looked for.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Say at once what is missing; nothing is imported or asked yet.

        Raises:
            MissingExtraError: azure-mgmt-compute or azure-identity is not installed.
            CredentialsError: No subscription is named.
            UsageError: No resource group is named.
        """
        self._environ = os.environ if environ is None else environ
        if not (_installed("azure.mgmt.compute") and _installed("azure.identity")):
            raise MissingExtraError(EXTRA, "asking Azure for capacity")
        self.subscription = self._environ.get("AZURE_SUBSCRIPTION_ID", "")
        self.group = self._environ.get("AZURE_DEFAULTS_GROUP", "")
        if not self.subscription:
            raise CredentialsError("no Azure subscription is named", hint="export AZURE_SUBSCRIPTION_ID=...")
        if not self.group:
            raise UsageError(
                "no Azure resource group is named, in which reservations are made",
                hint="az group create -n tuning -l eastus, then export AZURE_DEFAULTS_GROUP=tuning",
            )
        self._url = self._environ.get(_URL, _DEFAULT_URL).rstrip("/")
        self._clients: dict[bool, Any] = {}

    def client(self, *, spends: bool = False) -> Any:
        """A ComputeManagementClient; one that spends repeats nothing by itself."""
        if spends not in self._clients:
            from azure.mgmt.compute import ComputeManagementClient

            limits: dict[str, Any] = {
                "connection_timeout": 10,
                "read_timeout": _CALL_S,
                "polling_interval": 2,
            }
            retries = {"retry_total": 0, "redirect_max": 0} if spends else {"retry_total": 3}
            self._clients[spends] = ComputeManagementClient(
                self._credential(), self.subscription, self._url, **limits, **retries
            )
        return self._clients[spends]

    @property
    def options(self) -> dict[str, Any]:
        """Options of every call: a login is sent without TLS to this very machine only."""
        parts = urlsplit(self._url)
        return {"enforce_https": False} if parts.scheme == "http" and parts.hostname in _LOOPBACK else {}

    def may(self, action: str) -> None:
        """Ask whether the login may do an action in the resource group; changes nothing.

        Raises:
            CredentialsError: It may not.
            LaunchError: There is no such resource group, or Azure cannot be reached.
        """
        from azure.core.rest import HttpRequest

        path = f"/subscriptions/{self.subscription}/resourcegroups/{self.group}"
        url = f"{self._url}{path}/providers/Microsoft.Authorization/permissions"
        request = HttpRequest("GET", url, params={"api-version": _PERMISSIONS_VERSION})
        with azure_errors("ask for the rights of the login"):
            answer = self.client()._client.send_request(request, **self.options)
            answer.raise_for_status()
            rows = answer.json()["value"]
        if not any(_allows(row, action) for row in rows):
            raise CredentialsError(
                f"the login may not do {action} in the resource group {self.group}",
                hint="the role Virtual Machine Contributor may",
            )

    def _credential(self) -> Any:
        """A service principal, the identity of this machine, or the login of `az`; nothing else is tried."""
        from azure import identity

        if all(self._environ.get(name) for name in _PRINCIPAL):
            return identity.EnvironmentCredential()
        if self._environ.get("IDENTITY_ENDPOINT"):
            return identity.ManagedIdentityCredential(client_id=self._environ.get("AZURE_CLIENT_ID"))
        return identity.AzureCliCredential()


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


def _allows(row: Mapping[str, Any], action: str) -> bool:
    """Whether a row of permissions allows an action; patterns have `*`, and case does not count."""

    def named(patterns: list[str]) -> bool:
        return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)

    return named(row.get("actions", [])) and not named(row.get("notActions", []))


@contextlib.contextmanager
def azure_errors(action: str) -> Iterator[None]:
    """Errors of a call that reads, or may be repeated without harm.

    Raises:
        CredentialsError: Nobody is logged in, or without the right.
        LaunchError: Azure refused or cannot be reached.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise _refusal(error, action, LaunchError) from error


@contextlib.contextmanager
def purchase_errors(action: str) -> Iterator[None]:
    """Errors of a call that spends.

    Raises:
        PurchaseRefusedError: Nothing was bought: Azure said no, or the request never left.
        PurchaseUnclearError: The request left, and no answer says what came of it.
    """
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError

    try:
        yield
    except (PurchaseRefusedError, PurchaseUnclearError):
        raise
    except ServiceRequestError as error:  # no connection was made
        raise PurchaseRefusedError(f"cannot {action}: the request was not sent: {_text(error)}") from error
    except ClientAuthenticationError as error:
        raise PurchaseRefusedError(f"cannot {action}: {_text(error)}") from error
    except HttpResponseError as error:
        if error.status_code is None or error.status_code in (408, 409, 499) or error.status_code >= 500:
            raise PurchaseUnclearError(f"cannot {action}: {_text(error)}") from error
        raise _refusal(error, action, PurchaseRefusedError) from error
    except Exception as error:  # whatever it is, the request may have arrived
        raise PurchaseUnclearError(f"cannot {action}: {_text(error)}") from error


def _refusal(error: Any, action: str, kind: type[TuneplanError]) -> TuneplanError:
    from azure.core.exceptions import ClientAuthenticationError

    text = f"cannot {action}: {_text(error)}"
    denied = isinstance(error, ClientAuthenticationError) or getattr(error, "status_code", None) in (401, 403)
    if denied and kind is not PurchaseRefusedError:
        return CredentialsError(text, hint=_LOGIN_HINT)
    return kind(text)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
