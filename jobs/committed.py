"""Reads what is committed: HEAD, manifests and files, each verified, and read again if that fails.

Bytes may be damaged on their way or where they lie; the first is cured by asking again, the second is an error.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Container
from pathlib import Path
from typing import TypeVar

from jobs.manifest import BLOBS, HEAD_KEY, FileEntry, Head, Manifest, Pointer, parse_head, parse_manifest
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore

_READ_TRIES = 3  # what is wrong three times in a row is wrong where it lies

T = TypeVar("T")


def read_head(store: ObjectStore) -> Head | None:
    """HEAD as it is now, None before the first attempt.

    Raises:
        CorruptDataError: It is damaged.
        StorageError: Unreachable, or of a newer format.
    """
    found = read_tagged_head(store)
    return found[0] if found else None


def read_tagged_head(store: ObjectStore) -> tuple[Head, str] | None:
    """HEAD and the tag to swap it with, None before the first attempt.

    Raises:
        CorruptDataError: It is damaged.
        StorageError: Unreachable, or of a newer format.
    """

    def read() -> tuple[Head, str] | None:
        found = store.get(HEAD_KEY)
        return (parse_head(found[0]), found[1]) if found else None

    return _insist(read)


def read_manifest(store: ObjectStore, pointer: Pointer) -> Manifest:
    """The verified manifest that a pointer means.

    Raises:
        CorruptDataError: Missing or damaged.
        StorageError: Unreachable, or of a newer format.
    """

    def read() -> Manifest:
        found = store.get(pointer.manifest)
        if found is None:
            raise CorruptDataError(f"{pointer.manifest} is missing", path=pointer.manifest)
        return parse_manifest(found[0], pointer)

    return _insist(read)


def fetch_files(store: ObjectStore, manifest: Manifest, target: Path) -> None:
    """Download and verify every file of a manifest into a directory, which then holds nothing else.

    What a try that was interrupted has left there whole is not downloaded again.

    Raises:
        CorruptDataError: A file is missing or does not match its hash.
        StorageError: The store or the disk failed.
    """
    if target.exists():
        _drop_others(target, {entry.path for entry in manifest.files})
    target.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        if not is_here(entry, target / entry.path):
            fetch_file(store, entry, target / entry.path)


def is_here(entry: FileEntry, target: Path) -> bool:
    """Whether a file has the size and the hash of an entry."""
    return target.is_file() and target.stat().st_size == entry.bytes and hash_file(target) == entry.sha256


def verify_files(store: ObjectStore, manifest: Manifest, scratch: Path) -> None:
    """Download, hash and drop each file of a manifest in turn.

    Raises:
        CorruptDataError: A file is missing or does not match its hash.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    for entry in manifest.files:
        fetch_file(store, entry, scratch / entry.path)
        (scratch / entry.path).unlink()


def fetch_file(store: ObjectStore, entry: FileEntry, target: Path) -> None:
    """Download one file and verify it.

    Raises:
        CorruptDataError: It is missing or does not match its hash; nothing is left at the target.
        StorageError: The store or the disk failed.
    """

    def fetch() -> None:
        try:
            sha256 = store.get_file(BLOBS + entry.sha256, target)
        except StorageError as error:
            if error.code != "not_found":
                raise
            raise CorruptDataError(f"{entry.path} is missing", path=entry.path) from error
        size = target.stat().st_size
        if size != entry.bytes or sha256 != entry.sha256:
            target.unlink()
            problem = f"{size} of {entry.bytes} bytes" if size != entry.bytes else "its hash is wrong"
            raise CorruptDataError(f"{entry.path} is damaged: {problem}", path=entry.path)

    _insist(fetch)


def hash_file(path: Path) -> str:
    """Hexadecimal sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _drop_others(directory: Path, names: Container[str]) -> None:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.name not in names:
            path.unlink()


def _insist(read: Callable[[], T]) -> T:
    for _ in range(_READ_TRIES - 1):
        try:
            return read()
        except CorruptDataError:
            continue
    return read()
