"""Lines of a run's worker: from its backend while it has them, else from the object store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from jobs.run_log import StoredLog
from planner.runs import Run
from providers.errors import StorageError, TuneplanError
from providers.launcher import Launcher
from providers.stores import open_store

_POLL_S = 2.0


def lines_of(
    run: Run, launcher: Launcher, is_over: Callable[[], bool], *, follow: bool = False, stored: bool = False
) -> Iterator[str]:
    """The run's log, oldest first.

    Args:
        run: As the ledger has it.
        launcher: Its backend.
        is_over: Whether nothing more comes; asked again and again.
        follow: Go on until it is over.
        stored: Read the store even where the backend has the log.

    Raises:
        TuneplanError: Neither has it, or the backend's log broke off.
    """
    told = False
    trouble: TuneplanError | None = None
    if not stored:
        try:
            for line in launcher.logs(run.run_id, follow=follow):
                told = True
                yield line
        except TuneplanError as error:
            if told:
                raise  # the rest is missing; from the store all would come once more
            trouble = error
        if told:
            return
    try:
        for line in _stored(run, is_over, follow=follow):
            told = True
            yield line
    except StorageError as error:
        raise trouble or error from None
    if trouble is not None and not told:
        raise trouble


def _stored(run: Run, is_over: Callable[[], bool], *, follow: bool) -> Iterator[str]:
    """Lines that the worker sent to the run's store."""
    log = StoredLog(open_store(run.terms.checkpoint_uri))
    while True:
        over = not follow or is_over()
        yield from log.lines(last=over)
        if over:
            return
        time.sleep(_POLL_S)
