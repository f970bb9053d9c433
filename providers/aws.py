"""Clients of AWS for reservations, and what their errors mean: nobody is logged in, it said no, or nobody knows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from providers.errors import CredentialsError, LaunchError, MissingExtraError, TuneplanError
from providers.reservations import PurchaseRefusedError, PurchaseUnclearError

_LOGIN_HINT = (
    "log in (`aws sso login`, `aws configure`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
)
_NO_RIGHTS = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
# Answers of a server that may have done it all the same. A throttled request was not taken.
_UNSURE_CODES = frozenset(
    {
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "RequestTimeout",
        "ServiceUnavailable",
        "Unavailable",
    }
)
_THROTTLED = frozenset(
    {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
_NOT_FOUND_HINT = "it may be gone, or another account's"


class Aws:
    """Clients of boto3, each made once: EC2's takes a tenth of a second."""

    def __init__(self) -> None:
        """Nothing is imported or made yet."""
        self._clients: dict[tuple[str, str, bool], Any] = {}

    def client(self, service: str, region: str, *, spends: bool = False) -> Any:
        """A client; one that spends never repeats a request by itself.

        Measured: with the SDK's own repeats, one lost answer of PurchaseCapacityBlock buys up to three blocks.

        Raises:
            MissingExtraError: boto3 is not installed.
            CredentialsError: AWS_PROFILE names no profile.
        """
        key = (service, region, spends)
        if key not in self._clients:
            self._clients[key] = _client(*key)
        return self._clients[key]


def _client(service: str, region: str, spends: bool) -> Any:
    try:
        import boto3
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ModuleNotFoundError as error:
        raise MissingExtraError("s3", "asking AWS for capacity") from error
    retries = {"total_max_attempts": 1} if spends else {"mode": "standard", "total_max_attempts": 4}
    config = Config(connect_timeout=10, read_timeout=60, retries=retries)
    try:
        session = botocore.session.get_session()
        session.register_component("data_loader", _models())
        return boto3.session.Session(botocore_session=session).client(
            service, region_name=region, config=config
        )
    except BotoCoreError as error:
        raise CredentialsError(f"AWS cannot be asked: {error}", hint=_LOGIN_HINT) from error


@cache
def _models() -> Any:
    """The SDK's models of services, read once: EC2's takes half a second."""
    from botocore.loaders import create_loader

    return create_loader()


@contextlib.contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Errors of a call that reads, or may be repeated without harm.

    Raises:
        CredentialsError: Nobody is logged in, or without the right.
        LaunchError: AWS refused or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError  # an answer that is no answer, and no BotoCoreError

    try:
        yield
    except ClientError as error:
        raise _refusal(error, action, LaunchError) from error
    except (BotoCoreError, ResponseParserError) as error:
        raise _unreached(error, action) from error


@contextlib.contextmanager
def purchase_errors(action: str) -> Iterator[None]:
    """Errors of a call that spends.

    Raises:
        PurchaseRefusedError: Nothing was bought: AWS said no, or the request never left.
        PurchaseUnclearError: The request left, and no answer says what came of it.
    """
    from botocore.exceptions import (
        ClientError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        ParamValidationError,
    )

    try:
        yield
    except (PurchaseRefusedError, PurchaseUnclearError):
        raise
    except ClientError as error:
        if _is_unsure(error):
            raise PurchaseUnclearError(f"cannot {action}: {error}") from error
        raise _refusal(error, action, PurchaseRefusedError) from error
    except (ConnectTimeoutError, EndpointConnectionError, NoCredentialsError, ParamValidationError) as error:
        raise PurchaseRefusedError(f"cannot {action}: the request was not sent: {error}") from error
    except Exception as error:  # whatever it is, the request may have arrived
        raise PurchaseUnclearError(f"cannot {action}: {error}") from error


def code_of(error: Any) -> str:
    """AWS's name of a ClientError, as in `DryRunOperation`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _is_unsure(error: Any) -> bool:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code_of(error) in _THROTTLED:
        return False
    return code_of(error) in _UNSURE_CODES or status >= 500 or status == 0


def _refusal(error: Any, action: str, kind: type[TuneplanError]) -> TuneplanError:
    code = code_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")) or str(error)
    text = f"cannot {action}: {code}: {said}"
    if code in _NO_RIGHTS and kind is not PurchaseRefusedError:
        return CredentialsError(text, hint=f"{_LOGIN_HINT}; the login needs the right of the same name")
    hint = _NOT_FOUND_HINT if code.endswith(("NotFound", "NotFoundException")) else None
    return kind(text, hint=hint)


def _unreached(error: Exception, action: str) -> TuneplanError:
    names = {base.__name__ for base in type(error).__mro__}
    text = f"cannot {action}: {' '.join(str(error).split())[:300]}"
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "SSOError"}:
        return CredentialsError(text, hint=_LOGIN_HINT)
    return LaunchError(text, hint="check the network, and AWS_ENDPOINT_URL if it is set", code="unreachable")
