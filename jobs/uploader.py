"""Commits checkpoints from a thread of its own, so that training waits only for the local save."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jobs.checkpoint import CheckpointStore, FencedError
from jobs.parts import Parts
from jobs.progress import CheckpointRef
from providers.errors import StorageError, StoreAccessError

OnCommit = Callable[[CheckpointRef, float], None]

#: Commits that the store refuses at the start of an attempt before nothing better is hoped for: rights that were
#: granted a moment ago may be late.
_REFUSALS = 2


class _Item(NamedTuple):
    """A saved checkpoint that waits."""

    directory: Path
    step: int
    best: bool


class Uploader:
    """One upload at a time; of those waiting only the newest is kept, and the newest that was the best so far.

    Directories handed in belong to the uploader and are deleted when they are committed or superseded.

    Args:
        checkpoints: Where to commit; used from the thread only, until `close`.
        others: The other processes, where each has saved a part.
        on_commit: Called in the thread with the committed checkpoint and the seconds it took.
        on_error: Called in the thread when a commit failed; the next one is tried all the same.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        on_commit: OnCommit,
        on_error: Callable[[StorageError], None],
        others: Parts | None = None,
    ) -> None:
        """Start the thread."""
        self.committed_step: int | None = None
        self.fenced: FencedError | None = None
        self.refused: StoreAccessError | None = None
        self._refusals = 0
        self._checkpoints = checkpoints
        self._on_commit = on_commit
        self._on_error = on_error
        self._others = others
        self._changed = threading.Condition()
        self._waiting: list[_Item] = []
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoint upload", daemon=True)
        self._thread.start()

    @property
    def over(self) -> StorageError | None:
        """Why nothing that is trained from here on can be committed, None if it can."""
        return self.fenced or self.refused

    def submit(self, directory: Path, step: int, *, best: bool = False) -> None:
        """Queue a saved checkpoint; returns at once.

        Args:
            directory: As saved.
            step: Optimizer steps done.
            best: It is the best so far: a newer one does not make it useless, a better one does.
        """
        with self._changed:
            superseded = [item for item in self._waiting if best or not item.best]
            kept = [item for item in self._waiting if item not in superseded]
            self._waiting = [*kept, _Item(directory, step, best)]
            self._changed.notify_all()
        for item in superseded:
            shutil.rmtree(item.directory, ignore_errors=True)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is queued or under way; False if the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and not self._waiting, timeout_s)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        if self._others is not None:
            self._others.close()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._commit(item)
            finally:
                shutil.rmtree(item.directory, ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> _Item | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            item = self._waiting.pop(0) if self._waiting else None
            self._busy = item is not None
            return item

    def _commit(self, item: _Item) -> None:
        if self.fenced:
            return
        start = time.monotonic()
        try:
            reference = self._checkpoints.publish(
                item.directory, item.step, best=item.best, others=self._others
            )
        except FencedError as error:
            self.fenced = error
        except StoreAccessError as error:
            self._count_refusal(error)
            if self.refused is None:
                self._on_error(error)
        except StorageError as error:
            self._on_error(error)
        except Exception as error:  # whatever it is, the next checkpoint must find the thread alive
            self._on_error(StorageError(f"{type(error).__name__}: {error}"))
        else:
            self.committed_step = item.step
            self._told(reference, time.monotonic() - start)

    def _count_refusal(self, error: StoreAccessError) -> None:
        """Hours of which nothing can be saved are not worth their price; after a commit, new keys may yet come."""
        self._refusals += 1
        if self.committed_step is None and self._refusals >= _REFUSALS:
            message = f"training ends, as no checkpoint of it can be committed: {error.message}"
            self.refused = StoreAccessError(message, hint=error.hint, path=error.path)

    def _told(self, reference: CheckpointRef, seconds: float) -> None:
        """Say that it is committed, which it is whatever comes of saying so."""
        try:
            self._on_commit(reference, seconds)
        except Exception as error:
            text = f"step {reference.step} is committed, but that could not be told: {error}"
            self._on_error(StorageError(text))
