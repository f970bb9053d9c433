"""How the shards of a checkpoint come to the store: each process sends its own, and one commits them all or none.

The leader's thread that commits asks the others for one step after the other, over a group of their own, so that the
training goes on meanwhile.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
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


class _Wanted(NamedTuple):
    """What the leader says after each try: of the steps up to `newest`, only these may be asked for again."""

    newest: int
    steps: frozenset[int]


class Part(NamedTuple):
    """What one process has sent, or why it could not."""

    entries: tuple[FileEntry, ...] = ()
    new_bytes: int = 0
    problem: str | None = None
    code: str | None = None


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
        failed = next((part for part in found if part.problem is not None), None)
        if failed is not None:
            raise StorageError(str(failed.problem), code=failed.code)
        parts += found

    def keep(self, newest: int, steps: Iterable[int]) -> None:
        """Let the others delete their shards of the steps up to the newest one known here, but for these."""
        with suppress(StorageError):  # one of them is gone, as the next order will say
            _talk(self._group.share, _Wanted(newest, frozenset(steps)))

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
        """Keep a saved shard until the leader wants it no more; before the leader hears of it."""
        with self._lock:
            self._held[step] = part_directory(directory, self._group)

    def close(self) -> None:
        """Wait until the leader has all it wants."""
        self._thread.join()

    def _run(self) -> None:
        heard: _Order | _Wanted | None = None  # what the leader says
        try:
            while (said := self._group.share(heard)) is not None:
                if isinstance(said, _Wanted):
                    self._drop(said)
                else:
                    self._group.gather(self._answer(said))
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
            return Part(problem=error.message, code=error.code)
        except Exception as error:  # whatever it is, the leader waits for an answer
            return Part(problem=f"process {self._group.rank}: {type(error).__name__}: {error}")

    def _drop(self, wanted: _Wanted) -> None:
        """Delete the shards that nobody asks for any more, and what else this machine has of their checkpoints."""
        with self._lock:
            over = [step for step in self._held if step <= wanted.newest and step not in wanted.steps]
            parts = [self._held.pop(step) for step in over]
        for part in parts:
            shutil.rmtree(part.parent if self._group.leads_machine else part, ignore_errors=True)
