"""Commits checkpoints from a thread of its own, so that training waits only for the local save."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jobs.checkpoint import CheckpointStore, FencedError
from jobs.progress import CheckpointRef
from providers.errors import StorageError

OnCommit = Callable[[CheckpointRef, float], None]


class Uploader:
    """One upload at a time; of those waiting only the newest is kept, since it makes the others useless.

    Directories handed in belong to the uploader and are deleted when they are committed or superseded.

    Args:
        checkpoints: Where to commit; used from the thread only, until `close`.
        on_commit: Called in the thread with the committed checkpoint and the seconds it took.
        on_error: Called in the thread when a commit failed; the next one is tried all the same.
    """

    def __init__(
        self, checkpoints: CheckpointStore, on_commit: OnCommit, on_error: Callable[[StorageError], None]
    ) -> None:
        """Start the thread."""
        self.committed_step: int | None = None
        self.fenced: FencedError | None = None
        self._checkpoints = checkpoints
        self._on_commit = on_commit
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: tuple[Path, int] | None = None
        self._busy = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="checkpoint upload", daemon=True)
        self._thread.start()

    def submit(self, directory: Path, step: int) -> None:
        """Queue a saved checkpoint; returns at once."""
        with self._changed:
            superseded, self._waiting = self._waiting, (directory, step)
            self._changed.notify_all()
        if superseded:
            shutil.rmtree(superseded[0], ignore_errors=True)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is queued or under way; False if the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and self._waiting is None, timeout_s)

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                self._commit(*item)
            finally:
                shutil.rmtree(item[0], ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _next(self) -> tuple[Path, int] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            item, self._waiting = self._waiting, None
            self._busy = item is not None
            return item

    def _commit(self, directory: Path, step: int) -> None:
        if self.fenced:
            return
        start = time.monotonic()
        try:
            reference = self._checkpoints.publish(directory, step)
        except FencedError as error:
            self.fenced = error
        except StorageError as error:
            self._on_error(error)
        else:
            self.committed_step = step
            self._on_commit(reference, time.monotonic() - start)
