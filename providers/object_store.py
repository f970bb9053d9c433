"""Where checkpoints, progress and results live: a small interface that a directory and S3 both satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from providers.errors import StorageError

#: Told the number of bytes each time some of a file have arrived; called from several threads.
Sent = Callable[[int], None]


def ignore(sent_bytes: int) -> None:
    """For those who do not want to know how a file comes along."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One stored object: key below the store's prefix, size and last change (seconds since the epoch)."""

    key: str
    bytes: int
    modified_s: float


class ObjectStore(Protocol):
    """Keys are relative, `/`-separated; bytes are immutable but for keys moved by compare-and-swap.

    Every method raises StorageError if the store refuses or cannot be reached after its own retries.
    """

    uri: str

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Write a small object unless the key exists; True if it was written now."""
        ...

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        """Write a file under a content-addressed key unless it is there already; True if bytes were sent."""
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write or replace a small object that has one writer (progress, logs)."""
        ...

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> str | None:
        """Replace the object if its tag is `tag` (None: if it is absent); the new tag, None if lost."""
        ...

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and tag, None if absent."""
        ...

    def get_file(self, key: str, target: Path) -> str:
        """Download to a file; the sha256 (hexadecimal) of what was written.

        Raises:
            StorageError: With code `not_found` if the key is absent.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with the prefix, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        ...


def check_key(key: str) -> None:
    """Refuse what is not a relative, `/`-separated key.

    Raises:
        StorageError: With code `bad_key`.
    """
    if any(part in ("", ".", "..") or "\0" in part for part in key.split("/")):
        raise StorageError(f"{key!r} is not a key", code="bad_key")
