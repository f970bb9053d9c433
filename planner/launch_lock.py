"""Whether somebody is asking a run's backend for machines just now: a lock that goes with the process, however it ends.

A stop is in the ledger before it looks here, and whoever launches looks into the ledger under the lock. So a backend
that knows nothing of a launch while nobody holds the lock will not hear of it later either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from planner.places import Places
from providers.errors import TuneplanError
from providers.process_lock import held


def _busy() -> TuneplanError:
    return TuneplanError("the run is being launched just now", hint="try again in a minute", code="launching")


@contextmanager
def launching(places: Places, run_id: str) -> Iterator[None]:
    """Hold the lock, beside others who launch the same run: their backend knows how to tell them apart."""
    with held(places.launch_lock(run_id), _busy(), shared=True):
        yield


def is_launching(places: Places, run_id: str) -> bool:
    """Whether anybody holds it.

    Raises:
        StorageError: The disk refuses.
    """
    busy = _busy()
    try:
        with held(places.launch_lock(run_id), busy):
            return False
    except TuneplanError as error:
        if error is not busy:
            raise
        return True
