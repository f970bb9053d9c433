"""An object store in a bucket of S3, or of any server that speaks its protocol with conditional writes.

Credentials come from boto3's own chain (environment, profile, instance role) and are never kept. Requests are
repeated by botocore; a conditional write whose answer was lost is recognised by a random mark on the object.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from providers.errors import MissingExtraError, StorageError, UsageError
from providers.object_store import ObjectInfo, Sent, check_key, ignore
from providers.pace import PIECE_BYTES, Pace
from providers.ranges import CHUNK_BYTES, fetch_ranges
from providers.s3_errors import code_of, is_absent, s3_errors, status_of
from providers.s3_location import s3_location
from providers.s3_upload import PART_BYTES, MultipartUpload

_MARK = "tuneplan-write"  # metadata: which write made the object
_CONFLICT_TRIES = 6
_CONFLICT_WAIT_S = 0.05
_UPLOAD_TRIES = 3
_READ_TRIES = 3
_CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class S3Version:
    """One version of an object: its version id, or its quoted ETag in a bucket without versions, and its size."""

    version: str
    bytes: int


class S3Store:
    """Objects below one prefix of a bucket. The tag of an object is its ETag. Safe for threads.

    Args:
        uri: As `providers.s3_location.s3_location` reads it.
        pace: Bandwidth that files keep to, None for all there is.
    """

    def __init__(self, uri: str, pace: Pace | None = None) -> None:
        """Make the client; nothing is read or written yet.

        Raises:
            UsageError: The URI is wrong.
            MissingExtraError: boto3 is not installed.
            StoreAccessError: AWS_PROFILE names no profile.
        """
        self.uri = uri
        self._location = s3_location(uri)
        self._pace = pace
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError as error:
            raise MissingExtraError("s3", f"reading and writing {uri}") from error
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS", "5"))},
            # the CRC that goes along with each body is checked by the server; a second hash of every byte, which
            # botocore adds where there is no TLS, would cost more CPU than all the rest of an upload
            s3={"payload_signing_enabled": False},
        )
        with s3_errors("open", uri):
            try:
                self._client: Any = boto3.session.Session().client(
                    "s3",
                    endpoint_url=self._location.endpoint,
                    region_name=self._location.region,
                    config=config,
                )
            except ValueError as error:
                raise UsageError(f"{error}", hint="correct AWS_ENDPOINT_URL") from error

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Write a small object unless the key exists; True if it was written now."""
        return self._put_when(key, body, {"IfNoneMatch": "*"}) is not None

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        """Send a file under a content-addressed key unless it is there in full; True if bytes were sent."""
        target = self._target(key)
        with s3_errors("write", key):
            size = source.stat().st_size
            if self._size(target) == size:
                return False
            if size <= self._part_bytes():
                if self._pace is not None:
                    self._pace.take(size)
                self._client.put_object(**target, Body=source.read_bytes(), **self._encryption())
                sent(size)
            else:
                self._send_parts(target, source, size, sent)
        return True

    def put(self, key: str, body: bytes) -> None:
        """Write or replace a small object that has one writer."""
        target = self._target(key)
        with s3_errors("write", key):
            self._client.put_object(**target, Body=body, **self._encryption())

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> str | None:
        """Replace the object if its tag is `tag` (None: if it is absent); the new tag, None if lost."""
        return self._put_when(key, body, {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag})

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and tag, None if absent."""
        from botocore.exceptions import ClientError

        target = self._target(key)
        with s3_errors("read", key):
            try:
                return self._read(target)
            except ClientError as error:
                if is_absent(error):
                    return None
                raise

    def get_file(self, key: str, target: Path) -> str:
        """Download to a file, which appears when it is complete; the sha256 (hexadecimal) of what was written.

        Bytes that stop coming are asked for again.

        Raises:
            StorageError: With code `not_found` if the key is absent.
        """
        source = self._target(key)
        with s3_errors("read", key):
            size = int(self._client.head_object(**source)["ContentLength"])

            def read(start: int, length: int) -> list[bytes]:
                part = {} if length == size else {"Range": f"bytes={start}-{start + length - 1}"}
                return self._insist(
                    lambda: list(self._client.get_object(**source, **part)["Body"].iter_chunks(CHUNK_BYTES))
                )

            return fetch_ranges(read, size, target)

    def look(self, key: str, version: str | None = None) -> S3Version:
        """What the object is now, or was at a version id.

        Raises:
            StorageError: With code `not_found` if there is none.
        """
        with s3_errors("read", key):
            wanted = {} if version is None else {"VersionId": version}
            found = self._client.head_object(**self._target(key), **wanted)
        name = found.get("VersionId")
        named = str(found["ETag"]) if name in (None, "null") else str(name)
        return S3Version(named, int(found["ContentLength"]))

    def get_version(self, key: str, version: str, target: Path) -> None:
        """Download what `look` saw, by its version id if it has one; an ETag is what the object must still have.

        Raises:
            StorageError: With code `not_found` if it is gone, or it was replaced meanwhile.
        """
        wanted = {"IfMatch": version} if version.startswith('"') else {"VersionId": version}
        with s3_errors("read", key):

            def read() -> None:
                body = self._client.get_object(**self._target(key), **wanted)["Body"]
                with target.open("wb") as file:
                    for chunk in body.iter_chunks(_CHUNK_BYTES):
                        file.write(chunk)

            self._insist(read)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with the prefix, in key order."""
        root = self._location.prefix
        with s3_errors("list", f"{self.uri} {prefix}".strip()):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._location.bucket, Prefix=root + prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # what consoles show as a folder
                        key = item["Key"].removeprefix(root)
                        yield ObjectInfo(key, item["Size"], item["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        target = self._target(key)
        with s3_errors("delete", key):
            self._client.delete_object(**target)

    def _target(self, key: str) -> dict[str, str]:
        check_key(key)
        return {"Bucket": self._location.bucket, "Key": self._location.prefix + key}

    def _encryption(self) -> dict[str, str]:
        key = self._location.kms_key
        return {} if key is None else {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}

    def _put_when(self, key: str, body: bytes, condition: dict[str, str]) -> str | None:
        """Write if the condition holds; the object's tag, None if it did not hold."""
        target, mark = self._target(key), uuid.uuid4().hex
        with s3_errors("write", key):
            for attempt in range(_CONFLICT_TRIES):
                status, tag = self._try_put(target, body, condition, mark)
                if status != 409:
                    return tag or self._tag_of_our_write(target, mark)
                time.sleep(_CONFLICT_WAIT_S * 2**attempt)
        raise StorageError(f"{key} is being changed by others all the time", code="conflict", path=key)

    def _try_put(
        self, target: dict[str, str], body: bytes, condition: dict[str, str], mark: str
    ) -> tuple[int, str | None]:
        """Status and, if it was written, tag."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.put_object(
                **target, **condition, Body=body, Metadata={_MARK: mark}, **self._encryption()
            )
        except ClientError as error:
            if status_of(error) in (409, 412) or is_absent(error):
                return status_of(error), None
            raise
        return 200, str(answer["ETag"])

    def _tag_of_our_write(self, target: dict[str, str], mark: str) -> str | None:
        """The tag, if the object is what we wrote: botocore then repeated a request whose answer was lost."""
        found = self._head(target)
        return found["ETag"] if found and found["Metadata"].get(_MARK) == mark else None

    def _head(self, target: dict[str, str]) -> Any:
        from botocore.exceptions import ClientError

        try:
            return self._client.head_object(**target)
        except ClientError as error:
            if is_absent(error):
                return None
            raise

    def _read(self, target: dict[str, str]) -> tuple[bytes, str]:
        """Body and tag."""

        def read() -> tuple[bytes, str]:
            found = self._client.get_object(**target)
            return found["Body"].read(), str(found["ETag"])

        return self._insist(read)

    def _insist(self, read: Callable[[], T]) -> T:
        """Read again what stopped coming or came wrong: botocore repeats only what got no answer."""
        from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

        for _ in range(_READ_TRIES - 1):
            try:
                return read()
            except (FlexibleChecksumError, HTTPClientError, IncompleteReadError):
                continue
        return read()

    def _part_bytes(self) -> int:
        return PART_BYTES if self._pace is None else PIECE_BYTES

    def _size(self, target: dict[str, str]) -> int | None:
        found = self._head(target)
        return None if found is None else int(found["ContentLength"])

    def _send_parts(self, target: dict[str, str], source: Path, size: int, sent: Sent) -> None:
        from botocore.exceptions import ClientError

        for attempt in range(_UPLOAD_TRIES):
            try:
                options, part_bytes = self._encryption(), self._part_bytes()
                MultipartUpload(self._client, target, options, source, part_bytes, sent, self._pace).send()
                return
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                if self._size(target) == size:  # another sender, or a try of ours, completed it
                    return
                if attempt == _UPLOAD_TRIES - 1:
                    raise
