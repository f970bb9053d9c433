"""How the shards of a checkpoint come to the store: each process sends its own, and one commits them all or none.

The leader's thread that commits asks the others for one step after the other, over a group of their own, so that the
training goes on meanwhile.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from jobs.checkpoint import send_files
from jobs.group import Group
from jobs.manifest import FileEntry
from providers.errors import StorageError
from providers.object_store import ObjectStore

T = TypeVar("T")
R = TypeVar("R")


def part_directory(checkpoint: Path, group: Group) -> Path:
    """Where this process puts its shard of a checkpoint: processes of one machine share its directory."""
    return checkpoint if group.leads else checkpoint / f"part-{group.rank}"


class _Order(NamedTuple):
    """What the leader asks of all others: this step's shards; stored bytes of the suspects are damaged."""

    step: int
    suspects: frozenset[str]


class Part(NamedTuple):
    """What one process has sent, or why it could not."""

    entries: tuple[FileEntry, ...] = ()
    new_bytes: int = 0
    problem: str | None = None


class Parts:
    """The leader's side: asks for the shards of the others while it sends its own.

    Args:
        group: One that nobody else talks over.
    """

    def __init__(self, group: Group) -> None:
        """Nothing is asked for yet."""
        self._group = group

    @contextmanager
    def of(self, step: int, suspects: frozenset[str]) -> Iterator[list[Part]]:
        """What the others have sent of a step, known when the block ends.

        Raises:
            StorageError: One of them could not send its shard, or is gone.
        """
        parts: list[Part] = []
        _talk(self._group.share, _Order(step, suspects))
        try:
            yield parts
        finally:
            found = _talk(self._group.gather, Part())
        problem = next((part.problem for part in found if part.problem is not None), None)
        if problem is not None:
            raise StorageError(problem)
        parts += found

    def close(self) -> None:
        """Let the others end."""
        with suppress(StorageError):
            _talk(self._group.share, None)


def _talk(how: Callable[[T], R], what: T) -> R:
    try:
        return how(what)
    except RuntimeError as error:  # the connection broke
        raise StorageError(f"another process of this training is gone: {error}"[:300]) from error


class PartSender:
    """The side of every other process: a thread that sends this process's shards when it is asked to.

    Args:
        store: The run's prefix.
        group: As the leader's.
    """

    over = None  # only the leader hears of a newer attempt, or that the store refuses it

    def __init__(self, store: ObjectStore, group: Group) -> None:
        """Start the thread."""
        self._store, self._group = store, group
        self._lock = threading.Lock()
        self._held: dict[int, Path] = {}
        self._thread = threading.Thread(target=self._run, name="shard upload", daemon=True)
        self._thread.start()

    def submit(self, directory: Path, step: int, *, best: bool = False) -> None:
        """Keep a saved shard until the leader asks for it or for a later one; before the leader hears of it."""
        with self._lock:
            self._held[step] = part_directory(directory, self._group)

    def close(self) -> None:
        """Wait until the leader has all it wants."""
        self._thread.join()

    def _run(self) -> None:
        heard: _Order | None = None  # what the leader says
        try:
            while (order := self._group.share(heard)) is not None:
                self._group.gather(self._answer(order))
                self._drop(order.step)
        except RuntimeError:
            return  # the leader is gone, and this process will be told

    def _answer(self, order: _Order) -> Part:
        with self._lock:
            directory = self._held.get(order.step)
        if directory is None:
            return Part(problem=f"process {self._group.rank} has no shard of step {order.step}")
        try:
            return Part(*send_files(self._store, directory, suspects=set(order.suspects)))
        except StorageError as error:
            return Part(problem=error.message)
        except Exception as error:  # whatever it is, the leader waits for an answer
            return Part(problem=f"process {self._group.rank}: {type(error).__name__}: {error}")

    def _drop(self, step: int) -> None:
        """Delete this shard; of older checkpoints, which everybody is done with, what else this machine has."""
        with self._lock:
            shard = self._held.get(step)
            older = [self._held.pop(old) for old in list(self._held) if old < step]
        for part in ([] if shard is None else [shard]) + older:
            whole = self._group.leads_machine and part is not shard
            shutil.rmtree(part.parent if whole else part, ignore_errors=True)
