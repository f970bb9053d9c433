"""An object store in a directory: for local runs, for network disks, and for every test."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from providers.errors import StorageError, UsageError
from providers.object_store import ObjectInfo, Sent, check_key, ignore

_PRIVATE = ".store"  # lock and half-written files; never a key
_PIECE_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectoryStore:
    """Objects are files below `root`; a reader never sees half of one, and what was acknowledged is on disk.

    The tag of an object is the sha256 of its body. Safe for threads and processes of one machine, and over a
    network file system that has `flock` and hard links.
    """

    def __init__(self, root: Path) -> None:
        """Open the directory, making it if need be.

        Raises:
            StorageError: It cannot be made or written.
        """
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - not resolve(): a symlinked root keeps its name
        self.uri = self.root.as_uri()
        self._private = self.root / _PRIVATE
        with _storage_errors("open", self.uri):
            self._private.mkdir(parents=True, exist_ok=True)

    def put_if_absent(self, key: str, body: bytes) -> bool:
        """Write a small object unless the key exists; True if it was written now."""
        target = self._path(key)
        with _storage_errors("write", key), self._temporary() as temporary:
            _write(temporary, body)
            return _link(temporary, target)

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        """Copy a file under a content-addressed key unless it is there in full; True if copied."""
        target = self._path(key)
        with _storage_errors("write", key):
            size = source.stat().st_size
            if target.exists():
                if target.stat().st_size == size:
                    return False
                target.unlink()
            with self._temporary() as temporary:
                shutil.copyfile(source, temporary)
                _sync(temporary)
                sent(size)
                return _link(temporary, target)

    def put(self, key: str, body: bytes) -> None:
        """Write or replace a small object that has one writer."""
        target = self._path(key)
        with _storage_errors("write", key):
            self._replace(target, body)

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> str | None:
        """Replace the object if its tag is `tag` (None: if it is absent); the new tag, None if lost."""
        target = self._path(key)
        with _storage_errors("write", key), self._locked():
            current = hashlib.sha256(target.read_bytes()).hexdigest() if target.exists() else None
            if current != tag:
                return None
            self._replace(target, body)
        return hashlib.sha256(body).hexdigest()

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Body and tag, None if absent."""
        target = self._path(key)
        with _storage_errors("read", key):
            try:
                body = target.read_bytes()
            except FileNotFoundError:
                return None
        return body, hashlib.sha256(body).hexdigest()

    def get_file(self, key: str, target: Path) -> str:
        """Copy an object to a file; the sha256 (hexadecimal) of what was written.

        Raises:
            StorageError: With code `not_found` if the key is absent.
        """
        source = self._path(key)
        with _storage_errors("read", key):
            digest = hashlib.sha256()
            with source.open("rb") as read, target.open("wb") as written:
                while piece := read.read(_PIECE_BYTES):
                    digest.update(piece)
                    written.write(piece)
            return digest.hexdigest()

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with the prefix, in key order."""
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        with _storage_errors("list", prefix):
            found = sorted(_files(start, self.root))
        for key in found:
            if not key.startswith(prefix):
                continue
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                stat = (self.root / key).stat()
                yield ObjectInfo(key, stat.st_size, stat.st_mtime)

    def delete(self, key: str) -> None:
        """Remove; absent is fine."""
        target = self._path(key)
        with _storage_errors("delete", key):
            target.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        check_key(key)
        parts = key.split("/")
        if parts[0] == _PRIVATE:
            raise StorageError(f"{key!r} is not a key", code="bad_key")
        path = self.root.joinpath(*parts)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise StorageError(f"{key!r} leads out of {self.uri}", code="bad_key")
        return path

    def _replace(self, target: Path, body: bytes) -> None:
        with self._temporary() as temporary:
            _write(temporary, body)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(target)
            _sync(target.parent)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        descriptor, name = tempfile.mkstemp(dir=self._private)
        os.close(descriptor)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._private / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed, also by kill -9
            yield


def _files(start: Path, root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(start):
        if Path(folder) == root and _PRIVATE in folders:
            folders.remove(_PRIVATE)
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _write(path: Path, body: bytes) -> None:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _link(temporary: Path, target: Path) -> bool:
    """Give a finished file its name, unless the name is taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    _sync(target.parent)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(action: str, what: str) -> Iterator[None]:
    """The one place where the operating system's errors become ours."""
    try:
        yield
    except OSError as error:
        hint = "free some disk space" if error.errno in _FULL else None
        code = "not_found" if error.errno == errno.ENOENT else None
        text = f"cannot {action} {what}: {error.strerror or error}"
        raise StorageError(text, hint=hint, code=code, path=what) from error


def directory_of(uri: str) -> Path:
    """The directory a file:// URI means.

    Raises:
        UsageError: It is not an absolute file URI of this machine.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise UsageError(f"{uri} is not a file URI", hint="write it as file:///absolute/path")
    return Path(unquote(parts.path))
