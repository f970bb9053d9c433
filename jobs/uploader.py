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
from jobs.patience import is_passing
from jobs.progress import CheckpointRef
from providers.errors import StorageError, StoreAccessError

OnCommit = Callable[[CheckpointRef, float], None]

#: Commits that the store refuses at the start of an attempt before nothing better is hoped for: rights that were
#: granted a moment ago may be late.
_REFUSALS = 2
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 600.0


class _Item(NamedTuple):
    """A saved checkpoint that waits."""

    directory: Path
    step: int
    best: bool
    not_before_s: float
    pause_s: float


class Uploader:
    """One upload at a time; of those waiting only the newest is kept, and the newest that was the best so far.

    Directories handed in belong to the uploader and are deleted when they are committed or superseded. A commit that
    failed is tried again: of the newest if the store is away, since the next one may be long in coming, and of the
    best so far whatever the reason, since no later one makes up for it.

    Args:
        checkpoints: Where to commit; used from the thread only, until `close`.
        others: The other processes, where each has saved a part.
        pause_s: Before a commit that failed is tried again; doubled from try to try.
        on_commit: Called in the thread with the committed checkpoint and the seconds it took.
        on_error: Called in the thread when a commit failed; the next one is tried all the same.
    """

    def __init__(
        self,
        checkpoints: CheckpointStore,
        on_commit: OnCommit,
        on_error: Callable[[StorageError], None],
        others: Parts | None = None,
        *,
        pause_s: float = _FIRST_PAUSE_S,
    ) -> None:
        """Start the thread."""
        self.committed_step: int | None = None
        self.fenced: FencedError | None = None
        self.refused: StoreAccessError | None = None
        self.away: StorageError | None = None
        """Why the last commit failed, if the store stayed away for as long as it was waited for at the end."""
        self._refusals = 0
        self._checkpoints = checkpoints
        self._on_commit = on_commit
        self._on_error = on_error
        self._others = others
        self._pause_s = pause_s
        self._changed = threading.Condition()
        self._waiting: list[_Item] = []
        self._busy = False
        self._again: Callable[[], bool] | None = None
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
            kept = [self._due(item) for item in self._waiting if item not in superseded]
            self._waiting = [*kept, _Item(directory, step, best, 0.0, self._pause_s)]
            self._changed.notify_all()
        for item in superseded:
            shutil.rmtree(item.directory, ignore_errors=True)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is queued or under way; False if the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and not self._waiting, timeout_s)

    def close(self, again: Callable[[], bool] | None = None) -> None:
        """Finish what is queued and end the thread.

        Args:
            again: Pauses after a commit that failed; whether to try it once more. Without it, all are tried once.
        """
        with self._changed:
            self._closed = True
            self._again = again
            self._changed.notify_all()
        self._thread.join()
        if self._others is not None:
            self._others.close()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            later = None
            error: StorageError | None = None
            try:
                error = self._commit(item)
                later = None if error is None else self._later(item, error)
            finally:
                self._put_away(item, later, is_back=error is None)

    def _next(self) -> _Item | None:
        """The first that is due, waiting for it; None if nothing will come any more."""
        with self._changed:
            while self._waiting or not self._closed:
                now_s = time.monotonic()
                due = [item for item in self._waiting if self._closed or item.not_before_s <= now_s]
                if due:
                    self._waiting.remove(due[0])
                    self._busy = True
                    return due[0]
                first_s = min((item.not_before_s for item in self._waiting), default=None)
                self._changed.wait(None if first_s is None else first_s - now_s)
            return None

    def _due(self, item: _Item) -> _Item:
        """To be tried before anything newer: what is resumed from later names the best step, which must be there."""
        return item._replace(not_before_s=0.0, pause_s=self._pause_s)

    def _later(self, item: _Item, error: StorageError) -> _Item | None:
        """What is tried again of an item that failed."""
        if self.over is not None or not item.directory.exists():
            return None
        if self._closed:
            return item if self._is_waited_for(error) else None
        if not item.best and not is_passing(error):
            return None
        pause_s = min(2 * item.pause_s, _LONGEST_PAUSE_S)
        return item._replace(not_before_s=time.monotonic() + item.pause_s, pause_s=pause_s)

    def _is_waited_for(self, error: StorageError) -> bool:
        """Whether to try again at the end, after a pause."""
        if self._again is None or not is_passing(error):
            return False
        again = self._again()
        self.away = None if again else error
        return again

    def _put_away(self, item: _Item, later: _Item | None, *, is_back: bool) -> None:
        with self._changed:
            if is_back:  # the store is: what waits for it need not wait longer
                self._waiting = [self._due(other) for other in self._waiting]
            if any(other.best if item.best else other.step > item.step for other in self._waiting):
                later = None  # a better one came meanwhile, or a newer one
            if later is not None:
                self._waiting.insert(0, later)
            wanted = [one.step for one in self._waiting]
        if self._others is not None:
            self._others.keep(max([item.step, *wanted]), wanted)
        if later is None:
            shutil.rmtree(item.directory, ignore_errors=True)
        with self._changed:
            self._busy = False
            self._changed.notify_all()

    def _commit(self, item: _Item) -> StorageError | None:
        """Why it is not committed, None if it is."""
        if self.fenced:
            return self.fenced
        start = time.monotonic()
        try:
            reference = self._checkpoints.publish(
                item.directory, item.step, best=item.best, others=self._others
            )
        except Exception as error:  # whatever it is, the next checkpoint must find the thread alive
            known = (
                error if isinstance(error, StorageError) else StorageError(f"{type(error).__name__}: {error}")
            )
            self._failed(known)
            return known
        self.committed_step = max(item.step, self.committed_step or 0)
        self.away = None
        self._told(reference, time.monotonic() - start)
        return None

    def _failed(self, error: StorageError) -> None:
        if isinstance(error, FencedError):
            self.fenced = error
            return
        if isinstance(error, StoreAccessError):
            self._count_refusal(error)
        if self.refused is None:
            self._on_error(error)

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
