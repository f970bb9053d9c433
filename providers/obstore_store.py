"""An object store in a bucket of Google Cloud Storage, Azure or S3, through obstore.

Credentials come from each cloud's own chain (environment, login of its command line, the machine's identity) and are
never kept. obstore repeats requests by itself; a conditional write whose answer was lost is recognised by a random
mark on the object. Bodies are checked on their way by the signature over them (S3) or by TLS; an upload that was cut
off begins anew.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from providers.errors import MissingExtraError, StorageError, StoreAccessError
from providers.object_store import ObjectInfo, Sent, check_key, ignore
from providers.pace import PIECE_BYTES, Pace, pieces
from providers.ranges import CHUNK_BYTES, fetch_ranges
from providers.s3_location import CloudLocation, S3Location, cloud_location, s3_location

_MARK = "tuneplanwrite"  # metadata: which write made the object; Azure takes letters and digits only
_PART_BYTES = PIECE_BYTES  # four at once within TIMEOUT_S need a line of 1.4 Mbit/s
_MOST_PARTS = 10_000  # of one upload, at S3 and Google
_CONNECTIONS = 4
_READ_TRIES = 3
_RETRIES = 4
_RETRY_LIMIT_S = 180
CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 120.0  # of one request, of which none moves more than a part

_LOGIN_HINTS = {
    "s3": "log in (`aws configure`, `aws sso login`), or set AWS_ACCESS_KEY_ID and its secret",
    "gs": "log in (`gcloud auth application-default login`), or set GOOGLE_SERVICE_ACCOUNT to a key file",
    "az": "log in (`az login` and AZURE_USE_AZURE_CLI=true), or set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_KEY",
}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_REFUSED = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
    "401 Unauthorized",
    "403 Forbidden",
)
# how obstore tells what may be answered later, after it has repeated it in vain
_PASSING = re.compile(r"status code: (5\d\d|408|429)\b|HTTP error|timed out")


class ObstoreStore:
    """Objects below one prefix of a bucket. The tag is the generation at Google, else the ETag. Safe for threads.

    Args:
        uri: gs://, az:// or s3://, as `providers.s3_location` reads them.
        pace: Bandwidth that files keep to, None for all there is.
    """

    def __init__(self, uri: str, pace: Pace | None = None) -> None:
        """Make the client; nothing is read or written yet.

        Raises:
            UsageError: The URI is wrong.
            MissingExtraError: obstore is not installed.
            StorageError: The settings in the environment do not do.
        """
        self.uri = uri
        self._scheme = uri.partition("://")[0]
        location = s3_location(uri) if self._scheme == "s3" else cloud_location(uri)
        self._prefix = location.prefix
        self._pace = pace
        try:
            import obstore
        except ModuleNotFoundError as error:
            raise MissingExtraError("objectstore", f"reading and writing {uri}") from error
        self._api: Any = obstore
        with self._errors("open", uri):
            self._store = _open(location)

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Write a small object unless the key exists; True if it was written now."""
        return self._put_when(key, body, "create") is not None

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        """Send a file under a content-addressed key unless it is there in full; True if bytes were sent."""
        target = self._target(key)
        with self._errors("write", key):
            size = source.stat().st_size
            if self._size(target) == size:
                return False
            part_bytes = part_size_bytes(size)
            if size <= part_bytes:
                self._api.put(self._store, target, b"".join(pieces(source, part_bytes, self._pace, sent)))
            else:
                body = pieces(source, part_bytes, self._pace, sent)
                self._api.put(self._store, target, body, chunk_size=part_bytes, max_concurrency=_CONNECTIONS)
        return True

    def put(self, key: str, body: bytes) -> None:
        """Write or replace a small object that has one writer."""
        target = self._target(key)
        with self._errors("write", key):
            self._api.put(self._store, target, body, use_multipart=False)

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> str | None:
        """Replace the object if its tag is `tag` (None: if it is absent); the new tag, None if lost."""
        if tag is None:
            return self._put_when(key, body, "create")
        if self._scheme != "gs":
            return self._put_when(key, body, {"e_tag": tag})
        # a generation is a number; the server takes any other word for a mistake, not for another generation
        return self._put_when(key, body, {"version": tag}) if tag.isdecimal() and len(tag) < 20 else None

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and tag, None if absent."""
        target = self._target(key)
        with self._errors("read", key):
            found = self._found(target)
            return None if found is None else (bytes(found.bytes()), self._tag(found.meta))

    def get_file(self, key: str, target: Path) -> str:
        """Download to a file, which appears when it is complete; the sha256 (hexadecimal) of what was written.

        Bytes that stop coming are asked for again.

        Raises:
            StorageError: With code `not_found` if the key is absent.
        """
        source = self._target(key)
        with self._errors("read", key):
            size = int(self._api.head(self._store, source)["size"])

            def read(start: int, length: int) -> list[Any]:
                part = {"range": (start, start + length)}
                return _insist(
                    lambda: list(self._api.get(self._store, source, options=part).stream(CHUNK_BYTES))
                )

            return fetch_ranges(read, size, target)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with the prefix, in key order."""
        folder = (self._prefix + prefix).rpartition("/")[0]  # obstore lists below whole folders
        with self._errors("list", f"{self.uri} {prefix}".strip()):
            found = [row for batch in self._api.list(self._store, folder or None) for row in batch]
        rows = [
            ObjectInfo(row["path"].removeprefix(self._prefix), row["size"], row["last_modified"].timestamp())
            for row in found
        ]
        yield from sorted((row for row in rows if row.key.startswith(prefix)), key=lambda row: row.key)

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        target = self._target(key)
        with self._errors("delete", key), contextlib.suppress(FileNotFoundError):
            self._api.delete(self._store, target)

    def _target(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _tag(self, meta: Any) -> str:
        return str(meta["version" if self._scheme == "gs" else "e_tag"])

    def _put_when(self, key: str, body: bytes, mode: Any) -> str | None:
        """Write if the condition holds; the object's tag, None if it did not hold."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        target, mark = self._target(key), uuid.uuid4().hex
        with self._errors("write", key):
            try:
                return self._tag(
                    self._api.put(self._store, target, body, mode=mode, attributes={_MARK: mark})
                )
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                # obstore may have repeated a request whose answer was lost
                found = self._found(target)
                ours = found is not None and found.attributes.get(_MARK) == mark
                return self._tag(found.meta) if ours and found is not None else None

    def _found(self, target: str) -> Any:
        try:
            return self._api.get(self._store, target)
        except FileNotFoundError as error:
            if any(word in str(error) for word in _NO_BUCKET):
                raise
            return None

    def _size(self, target: str) -> int | None:
        try:
            return int(self._api.head(self._store, target)["size"])
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _errors(self, action: str, what: str) -> Iterator[None]:
        """Turn what obstore and the disk raise into StorageError; StoreAccessError if it is about the login."""
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError as error:
            raise _missing(error, action, what) from error
        except OSError as error:
            hint = "free some disk space" if error.errno in (28, 122, 27) else None
            raise StorageError(
                f"cannot {action} {what}: {error.strerror or error}", hint=hint, path=what
            ) from error
        except (BaseError, ValueError) as error:
            raise self._refusal(error, action, what) from error

    def _refusal(self, error: Exception, action: str, what: str) -> StorageError:
        from obstore.exceptions import NotSupportedError, PermissionDeniedError, UnauthenticatedError

        said = _first_words(error)
        text = f"cannot {action} {what}: {said}"
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        if refused or any(word in str(error) for word in _REFUSED):
            return StoreAccessError(text, hint=_LOGIN_HINTS[self._scheme], path=what)
        if isinstance(error, NotSupportedError) or "NotImplemented" in str(error):
            return StorageError(
                text, hint="use a server with conditional writes", code="no_conditional_writes"
            )
        if "error sending request" in str(error) or "client error" in str(error):
            hint = "check the network, and ?endpoint= if the server is not the cloud's own"
            return StorageError(f"cannot {action} {what}: the object store cannot be reached: {said}",
                                hint=hint, code="unreachable", path=what)  # fmt: skip
        return StorageError(text, code="unavailable" if _PASSING.search(str(error)) else None, path=what)


def part_size_bytes(size: int) -> int:
    """How a file is cut: as finely as a slow line needs, and no finer than the clouds allow.

    >>> part_size_bytes(20 << 20) >> 20, -(-(100 << 30) // part_size_bytes(100 << 30))
    (5, 10000)
    """
    return max(_PART_BYTES, -(-size // _MOST_PARTS))


def _open(location: S3Location | CloudLocation) -> Any:
    """obstore's own store of a whole bucket."""
    from obstore.store import AzureStore, GCSStore, S3Store

    if isinstance(location, S3Location):
        config = _s3_config(location)
        return S3Store(location.bucket, config=config, **_s3_login(_common(config.get("endpoint"))))
    common = _common(location.endpoint)
    if location.scheme == "gs":
        config = {} if location.endpoint is None else {"base_url": location.endpoint}
        return GCSStore(location.bucket, config=config, **common)
    wanted = {"account_name": location.account, "endpoint": location.endpoint}
    return AzureStore(location.bucket, config=_given(wanted), **common)


def _common(endpoint: str | None) -> dict[str, Any]:
    return {
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=TIMEOUT_S),
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
        },
        "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_LIMIT_S)},
    }


def _s3_config(location: S3Location) -> dict[str, str]:
    endpoint = (
        location.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    )
    key = location.kms_key
    encryption = {} if key is None else {"server_side_encryption": "aws:kms", "sse_kms_key_id": key}
    return _given({"endpoint": endpoint, "region": location.region, **encryption})


def _given(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _s3_login(common: dict[str, Any]) -> dict[str, Any]:
    """As boto3 finds it where that is installed: profiles, single sign-on and roles, which obstore does not know."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        return common
    session = boto3.session.Session()
    if session.get_credentials() is None:
        return common
    return {**common, "credential_provider": Boto3CredentialProvider(session)}


def _missing(error: FileNotFoundError, action: str, what: str) -> StorageError:
    if any(word in str(error) for word in _NO_BUCKET):
        text = f"cannot {action} {what}: the bucket does not exist"
        return StorageError(
            text, hint="create the bucket, or correct the URI", code="bucket_not_found", path=what
        )
    return StorageError(f"cannot {action} {what}: it is not there", code="not_found", path=what)


def _insist(read: Callable[[], list[Any]]) -> list[Any]:
    """Read again what stopped coming: obstore repeats only what got no answer."""
    from obstore.exceptions import GenericError

    for _ in range(_READ_TRIES - 1):
        with contextlib.suppress(GenericError):
            return read()
    return read()


def _first_words(error: Exception) -> str:
    """What obstore says, without the many lines of its own source that follow."""
    return (str(error).partition("Debug source")[0].strip() or type(error).__name__)[:400]
