"""The one place where errors of boto3, and of the disk beside it, become ours."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from providers.errors import StorageError, StoreAccessError

_LOGIN_HINT = (
    "log in (`aws configure`, `aws sso login`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
)
_RIGHTS_HINT = (
    "the login needs s3:GetObject, PutObject, DeleteObject, AbortMultipartUpload, ListMultipartUploadParts and "
    "ListBucket here, and its clock right"
)
_REACH_HINT = "check the network, and AWS_ENDPOINT_URL or ?endpoint= if the server is not AWS"
_SERVER_ERROR = 500
_PASSING = (408, 429)  # the server waited for the request too long; too many of them
_BUSY = ("RequestTimeout", "RequestTimeoutException", "SlowDown", "Throttling", "ThrottlingException")
_CUT_OFF = ("FlexibleChecksumError", "IncompleteReadError")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Errors of botocore that mean "nobody is logged in", by name: which of them exist depends on its version.
_NOT_LOGGED_IN = frozenset(
    {
        "CredentialRetrievalError",
        "LoginError",
        "NoAuthTokenError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "SSOError",
        "TokenRetrievalError",
    }
)
_REFUSED = frozenset(
    {
        "AccessDenied",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)


@contextlib.contextmanager
def s3_errors(action: str, what: str) -> Iterator[None]:
    """Turn what boto3 and the disk raise into StorageError; StoreAccessError if it is about the login.

    Args:
        action: Verb for the text, as in `read`.
        what: The key or URI it is about.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    try:
        yield
    except ClientError as error:
        raise _refusal(error, action, what) from error
    except (ConnectionError, HTTPClientError) as error:
        text = f"cannot {action} {what}: the object store cannot be reached: {error}"
        raise StorageError(text, hint=_REACH_HINT, code="unreachable", path=what) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _other(error, action, what) from error
    except OSError as error:
        raise _of_disk(error, action, what) from error


def status_of(error: Any) -> int:
    """HTTP status of a ClientError, 0 if there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: Any) -> str:
    """S3's name of a ClientError, as in `NoSuchKey`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_absent(error: Any) -> bool:
    """Whether a ClientError says that the key, and not its bucket, is missing; HEAD answers have no names."""
    return status_of(error) == 404 and code_of(error) != "NoSuchBucket"


def _refusal(error: Any, action: str, what: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    said = str(error.response.get("Error", {}).get("Message", "")) or str(error)
    text = f"cannot {action} {what}: {code or status}: {said}"
    if code in _REFUSED or status in (401, 403):
        return StoreAccessError(text, hint=_RIGHTS_HINT, path=what)
    if code == "NoSuchBucket":
        hint = "create the bucket, or correct the URI"
        return StorageError(text, hint=hint, code="bucket_not_found", path=what)
    if status == 404:
        return StorageError(f"cannot {action} {what}: it is not there", code="not_found", path=what)
    passing = status >= _SERVER_ERROR or status in _PASSING or code in _BUSY
    return StorageError(text, code="unavailable" if passing else None, path=what)


def _other(error: Exception, action: str, what: str) -> StorageError:
    text = f"cannot {action} {what}: {error}"
    if any(base.__name__ in _NOT_LOGGED_IN for base in type(error).__mro__):
        return StoreAccessError(text, hint=_LOGIN_HINT, path=what)
    code = "cut_off" if type(error).__name__ in _CUT_OFF else None
    return StorageError(text, code=code, path=what)


def _of_disk(error: OSError, action: str, what: str) -> StorageError:
    hint = "free some disk space" if error.errno in _FULL else None
    code = "not_found" if error.errno == errno.ENOENT else None
    return StorageError(f"cannot {action} {what}: {error.strerror or error}", hint=hint, code=code, path=what)
