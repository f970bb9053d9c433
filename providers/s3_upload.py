"""Sends a file in parts; an upload that was cut off goes on with the parts that had arrived.

The key is content-addressed, so two senders of one key send the same bytes, and may share an upload.

A machine's own rights end at its run's prefix, and to list unfinished uploads S3 grants for a whole bucket or not at
all. Such a machine begins anew, and takes back what it could not finish, which nobody would find to go on with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.object_store import Sent, ignore
from providers.pace import Pace
from providers.s3_errors import status_of

PART_BYTES = 32 << 20
_MOST_PARTS = 10_000  # of one upload, S3's limit
_CONNECTIONS = 4
_CHECKSUM = "ChecksumCRC32"
_FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """One file on its way to one key.

    Attributes:
        client: boto3's S3 client.
        target: `Bucket` and `Key`.
        options: More arguments of a new upload, as those of encryption.
        source: The file.
        part_bytes: Size of every part but the last.
        sent: Told of each part that has arrived, also of those that had before.
        pace: Bandwidth to keep to, None for all there is.
    """

    client: Any
    target: Mapping[str, str]
    options: Mapping[str, str]
    source: Path
    part_bytes: int
    sent: Sent = ignore
    pace: Pace | None = None

    def send(self) -> None:
        """Send what is missing and complete the object.

        Raises:
            botocore.exceptions.ClientError: `NoSuchUpload` if another sender completed it meanwhile.
        """
        listed = self._listed()
        same = [upload for upload in listed or () if upload["Key"] == self.target["Key"]]
        if same:
            found = max(same, key=lambda upload: upload["Initiated"])["UploadId"]
        else:
            found = self.client.create_multipart_upload(**self.target, **self.options)["UploadId"]
        upload = {**self.target, "UploadId": str(found)}
        with contextlib.nullcontext() if listed is not None else self._taken_back(upload):
            self._complete(upload)

    def _listed(self) -> list[Any] | None:
        """Unfinished uploads of this key and longer ones; None where they may not be listed."""
        from botocore.exceptions import ClientError

        try:
            found = self.client.list_multipart_uploads(
                Bucket=self.target["Bucket"], Prefix=self.target["Key"]
            )
        except ClientError as error:
            if status_of(error) == _FORBIDDEN:
                return None
            raise
        return list(found.get("Uploads", []))

    @contextlib.contextmanager
    def _taken_back(self, upload: Mapping[str, str]) -> Iterator[None]:
        """Abort the upload if the block fails: its parts would be paid for, and never used."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except BaseException:
            with contextlib.suppress(BotoCoreError, ClientError):
                self.client.abort_multipart_upload(**upload)
            raise

    def _complete(self, upload: Mapping[str, str]) -> None:
        size = self.source.stat().st_size
        part_bytes = max(self.part_bytes, -(-size // _MOST_PARTS))
        arrived = self._arrived(upload)
        descriptor = os.open(self.source, os.O_RDONLY)

        def part(number: int) -> dict[str, Any]:
            body = os.pread(descriptor, part_bytes, (number - 1) * part_bytes)
            known = arrived.get(number)
            if known is None or not _is_same(known, body):
                if self.pace is not None:
                    self.pace.take(len(body))
                known = self.client.upload_part(**upload, PartNumber=number, Body=body)
            self.sent(len(body))
            checksum = {_CHECKSUM: known[_CHECKSUM]} if _CHECKSUM in known else {}
            return {"PartNumber": number, "ETag": known["ETag"], **checksum}

        try:
            parts = _in_threads(part, range(1, -(-size // part_bytes) + 1))
        finally:
            os.close(descriptor)
        self.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})

    def _arrived(self, upload: Mapping[str, str]) -> dict[int, Any]:
        pages = self.client.get_paginator("list_parts").paginate(**upload)
        return {part["PartNumber"]: part for page in pages for part in page.get("Parts", [])}


def _is_same(part: Mapping[str, Any], body: bytes) -> bool:
    """Whether a part that lies at the server is this one; a doubt is a no."""
    if part["Size"] != len(body):
        return False
    if _CHECKSUM in part:
        return bool(part[_CHECKSUM] == base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode())
    return bool(part["ETag"].strip('"') == hashlib.md5(body, usedforsecurity=False).hexdigest())


def _in_threads(act: Any, numbers: range) -> list[dict[str, Any]]:
    pool = ThreadPoolExecutor(_CONNECTIONS, "s3 part")
    try:
        return list(pool.map(act, numbers))
    finally:
        pool.shutdown(cancel_futures=True)  # waits for those under way: nobody may read a closed file
