"""Commits checkpoints to an object store so that a crash at any moment leaves the last good one in force.

Layout below the run's prefix::

    blobs/<sha256>                    content of a file; equal files are stored once
    manifests/<step>-<fence>.json     names, sizes and hashes of one checkpoint's files; written once
    HEAD                              fence, owner, and the committed manifests with hashes, newest first

Order of a commit: blobs, manifest, HEAD. Only HEAD ever changes, by compare-and-swap; a takeover swaps in the
next fence, after which the older attempt's swaps fail.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from jobs import codec
from jobs.committed import fetch_files, hash_file, read_head, read_manifest, read_tagged_head
from jobs.manifest import (
    BLOBS,
    HEAD_KEY,
    MANIFESTS,
    FileEntry,
    Head,
    Manifest,
    Pointer,
    encode_head,
    is_known_file,
    parse_manifest,
    sha256_of,
)
from jobs.progress import CheckpointRef, utc_now
from providers.conditions import check_conditions
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore
from providers.s3_location import is_bucket

_SWAP_TRIES = 10

Check = Callable[[Path], None]


class Part(Protocol):
    """What another process has sent of a checkpoint that it is a part of."""

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        """Its files."""
        ...

    @property
    def new_bytes(self) -> int:
        """Those of them that the store did not have."""
        ...


class Others(Protocol):
    """The other processes, where each sends its own part."""

    def of(self, step: int, suspects: frozenset[str]) -> AbstractContextManager[Sequence[Part]]:
        """Ask for their parts of a step, which are there when the block ends; a StorageError if one is not."""
        ...


class FencedError(StorageError):
    """A newer attempt owns the run: this one must stop and commit nothing."""

    code = "fenced"


@dataclass(frozen=True, slots=True)
class Restored:
    """A verified checkpoint on the local disk.

    Attributes:
        manifest: What was restored.
        damaged: Why each newer checkpoint was passed over, newest first; empty if none was.
    """

    manifest: Manifest
    damaged: tuple[str, ...]


class CheckpointStore:
    """One attempt's hold on a run's checkpoints.

    Args:
        store: The run's prefix.
        run_id: Written into manifests.
        keep: Committed checkpoints that stay, the newest included.
    """

    def __init__(self, store: ObjectStore, run_id: str, *, keep: int = 2) -> None:
        """Nothing is read or written before `take_over`."""
        self.store = store
        self.run_id = run_id
        self.keep = keep
        self.owner = uuid.uuid4().hex
        self.head = Head()
        self._tag: str | None = None
        self._manifests: dict[str, Manifest] = {}
        self._suspects: set[str] = set()  # hashes whose stored bytes were found damaged

    def take_over(self) -> Head:
        """Become the owner of the run; every commit of an earlier attempt fails from here on.

        Raises:
            CorruptDataError: HEAD is damaged.
            StorageError: The store failed, HEAD kept moving, or (`no_conditional_writes`) it is none to rely on.
        """
        for _ in range(_SWAP_TRIES):
            head, tag = read_tagged_head(self.store) or (Head(), None)
            if tag is None and is_bucket(self.store.uri):
                check_conditions(self.store)
            if self._swap(replace(head, fence=head.fence + 1, owner=self.owner), tag):
                return self.head
        raise StorageError(f"HEAD of {self.store.uri} keeps moving: several attempts are taking over")

    def restore(self, target: Path, check: Check = lambda _: None) -> Restored | None:
        """Put the newest intact checkpoint into a directory; None if none was ever committed.

        Args:
            target: Directory that is replaced.
            check: Raises CorruptDataError if the files, though intact, cannot be resumed from.

        Raises:
            CorruptDataError: There are checkpoints, but none is intact.
            StorageError: The store or the disk failed: nothing is known about the checkpoints.
        """
        damaged: list[str] = []
        best = () if self.head.best is None else (self.head.best,)
        for index, pointer in enumerate(dict.fromkeys((*self.head.checkpoints, *best))):
            try:
                manifest = self._fetch(pointer, target)
                check(target)
            except CorruptDataError as error:
                damaged.append(f"step {pointer.step}: {error.message}")
                continue
            self.head = _since(self.head, index, pointer.step)
            return Restored(manifest, tuple(damaged))
        if damaged:
            raise CorruptDataError(f"no checkpoint in {self.store.uri} is intact: {'; '.join(damaged)}")
        return None

    def publish(
        self, directory: Path, step: int, *, best: bool = False, others: Others | None = None
    ) -> CheckpointRef:
        """Upload the known files of a directory and commit them as the newest checkpoint.

        Args:
            directory: As the trainer saved it.
            step: Optimizer steps done.
            best: It is also the best so far, and stays until there is a better one. It may come late, after newer
                checkpoints, which stay.
            others: Send what they have saved of it; it is committed whole or not at all.

        Raises:
            FencedError: A newer attempt owns the run.
            StorageError: The store or the disk failed; nothing was committed, or it may be tried again.
        """
        key = f"{MANIFESTS}{step:012d}-{self.head.fence:06d}.json"
        manifest, pointer = self._upload(directory, step, key, others)
        newest = self.head.newest
        if best and newest is not None and newest.step > step:
            kept = self.head.checkpoints
        else:
            older = tuple(old for old in self.head.checkpoints if old.step < step)
            kept = (pointer, *older)[: self.keep]
        before = self.head.pointers
        self._commit(lambda head: replace(head, checkpoints=kept, best=pointer if best else head.best))
        self._discard([old for old in before if old not in self.head.pointers])
        return self._reference(manifest, pointer)

    def mark_best(self, step: int) -> None:
        """Say of a committed checkpoint that it is the best so far: its step was measured after it was committed.

        Raises:
            FencedError: A newer attempt owns the run.
            StorageError: The store failed.
        """
        before = self.head.pointers
        best = next(pointer for pointer in before if pointer.step == step)
        self._commit(lambda head: replace(head, best=best))
        self._discard([old for old in before if old not in self.head.pointers])

    def publish_output(self, directory: Path, step: int) -> CheckpointRef:
        """Commit the finished model.

        Raises:
            FencedError: A newer attempt owns the run.
            StorageError: The store or the disk failed.
        """
        key = f"{MANIFESTS}output-{step:012d}-{self.head.fence:06d}.json"
        manifest, pointer = self._upload(directory, step, key)
        self._commit(lambda head: replace(head, output=pointer))
        return self._reference(manifest, pointer)

    def fetch_best(self, target: Path) -> Manifest | None:
        """Put the best checkpoint into a directory that is replaced; None if none is marked as the best.

        Raises:
            CorruptDataError: It is damaged.
            StorageError: The store or the disk failed.
        """
        return None if self.head.best is None else self._fetch(self.head.best, target)

    def sweep(self, *, grace_s: float, now_s: float | None = None) -> int:
        """Delete what no committed manifest names and is older than the grace time; the number deleted.

        The grace time must be longer than the longest upload of another attempt that may still be under way.

        Raises:
            CorruptDataError: A committed manifest cannot be read, so it is not known what is in use.
        """
        used = self._used_keys(self.head.pointers)
        limit = (time.time() if now_s is None else now_s) - grace_s
        stored = [*self.store.list(MANIFESTS), *self.store.list(BLOBS)]
        unused = [item.key for item in stored if item.key not in used and item.modified_s < limit]
        self._delete(unused)
        return len(unused)

    def _manifest(self, pointer: Pointer) -> Manifest:
        if pointer.manifest not in self._manifests:
            self._manifests[pointer.manifest] = read_manifest(self.store, pointer)
        return self._manifests[pointer.manifest]

    def _used_keys(self, pointers: Iterable[Pointer]) -> set[str]:
        used = set()
        for pointer in pointers:
            used.add(pointer.manifest)
            used.update(BLOBS + file.sha256 for file in self._manifest(pointer).files)
        return used

    def _fetch(self, pointer: Pointer, target: Path) -> Manifest:
        manifest = self._manifest(pointer)
        try:
            fetch_files(self.store, manifest, target)
        except CorruptDataError as error:
            self._suspects.update(file.sha256 for file in manifest.files if file.path == error.path)
            raise
        return manifest

    def _upload(
        self, directory: Path, step: int, key: str, others: Others | None = None
    ) -> tuple[Manifest, Pointer]:
        """Send what is new, then write the manifest under its key."""
        parts: Sequence[Part] = ()
        with nullcontext(parts) if others is None else others.of(step, frozenset(self._suspects)) as parts:
            entries, new_bytes = send_files(self.store, directory, self._known_blobs(), self._suspects)
        for part in parts:
            entries, new_bytes = entries + part.entries, new_bytes + part.new_bytes
        self._suspects.difference_update(entry.sha256 for entry in entries)
        manifest = Manifest(self.run_id, step, self.head.fence, utc_now(), entries, new_bytes)
        return manifest, self._write_manifest(manifest, key)

    def _known_blobs(self) -> set[str]:
        """Hashes that a committed manifest names: they are there, and nobody may delete them."""
        known: set[str] = set()
        for pointer in self.head.pointers:
            with contextlib.suppress(CorruptDataError):
                known.update(file.sha256 for file in self._manifest(pointer).files)
        return known

    def _write_manifest(self, manifest: Manifest, key: str) -> Pointer:
        body = codec.encode(manifest).encode()
        if not self.store.put_if_absent(key, body):
            body = self._same_manifest(manifest, key)
        self._manifests[key] = manifest
        return Pointer(manifest.step, manifest.fence, key, sha256_of(body))

    def _same_manifest(self, manifest: Manifest, key: str) -> bytes:
        """The manifest that an earlier try of ours left under the key; it may be committed, so it stays."""
        found = self.store.get(key)
        if found is not None:
            pointer = Pointer(manifest.step, manifest.fence, key, sha256_of(found[0]))
            if parse_manifest(found[0], pointer).files == manifest.files:
                return found[0]
        raise StorageError(f"{key} is there already with other files", code="conflict", path=key)

    def _commit(self, change: Callable[[Head], Head]) -> None:
        """Move HEAD; after a lost answer, find out whether it was moved."""
        for _ in range(_SWAP_TRIES):
            if self._swap(change(self.head), self._tag):
                return
            head, tag = read_tagged_head(self.store) or (None, None)
            if head is None or head.owner != self.owner:
                fence = head.fence if head else "none"
                raise FencedError(f"attempt {self.head.fence} lost {self.store.uri} to attempt {fence}")
            self._tag = tag  # an earlier swap of ours got through though its answer did not
        raise StorageError(f"HEAD of {self.store.uri} keeps moving")

    def _swap(self, head: Head, tag: str | None) -> bool:
        body = encode_head(head)
        new_tag = self.store.compare_and_swap(HEAD_KEY, body, tag)
        if new_tag is None:  # refused, or our own write whose answer was lost and that was sent again
            found = self.store.get(HEAD_KEY)
            if found is None or found[0] != body:
                return False
            new_tag = found[1]
        self.head, self._tag = head, new_tag
        return True

    def _discard(self, dropped: list[Pointer]) -> None:
        """Delete what only dropped checkpoints used; failing here costs disk, never data."""
        with contextlib.suppress(StorageError):
            if dropped:
                used = self._used_keys(self.head.pointers)
                self._delete(sorted(self._used_keys(dropped) - used))

    def _delete(self, keys: list[str]) -> None:
        """Delete while the run is still ours: a successor may have begun to use the same content."""
        head = read_head(self.store)
        if head is None or head.owner != self.owner:
            raise FencedError(f"attempt {self.head.fence} no longer owns {self.store.uri}")
        for key in keys:
            self.store.delete(key)
            self._manifests.pop(key, None)

    def _reference(self, manifest: Manifest, pointer: Pointer) -> CheckpointRef:
        return CheckpointRef(
            manifest.step, manifest.committed_at, self.store.uri, manifest.total_bytes, pointer.sha256
        )


def send_files(
    store: ObjectStore, directory: Path, known: Container[str] = (), suspects: Container[str] = ()
) -> tuple[tuple[FileEntry, ...], int]:
    """Send the known files of a directory that the store lacks.

    Args:
        store: The run's prefix.
        directory: As the trainer saved it.
        known: Hashes of what is there and will stay.
        suspects: Hashes whose stored bytes are damaged.

    Returns:
        The files, and the bytes that were new.

    Raises:
        StorageError: The store or the disk failed.
    """
    entries, new_bytes = [], 0
    for path, entry in _entries(directory):
        entries.append(entry)
        if entry.sha256 in suspects:
            store.delete(BLOBS + entry.sha256)
        if entry.sha256 not in known or entry.sha256 in suspects:
            new_bytes += entry.bytes
            store.put_file(BLOBS + entry.sha256, path)
    return tuple(entries), new_bytes


def _entries(directory: Path) -> Iterator[tuple[Path, FileEntry]]:
    """The known files of a directory with their sizes and hashes; a StorageError where the disk cannot read one."""
    try:
        for path in sorted(directory.iterdir()):
            if path.is_file() and is_known_file(path.name):
                yield path, FileEntry(path.name, path.stat().st_size, hash_file(path))
    except OSError as error:
        raise StorageError(f"cannot read {directory}: {error.strerror or error}") from error


def _since(head: Head, index: int, step: int) -> Head:
    """HEAD of an attempt that goes on from an older checkpoint: what lies after it will be done again."""
    best = head.best if head.best is not None and head.best.step <= step else None
    return replace(head, checkpoints=head.checkpoints[index:], best=best)
