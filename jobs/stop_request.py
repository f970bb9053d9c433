"""A stop that whoever watches a run asks its worker for, through the run's prefix.

SkyPilot ends machines without a word to the worker, or with one and no time to heed it. So `stop.json` is written
first; it names one launch, on whatever machines, and means nothing to any other.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.spec import JobSpec
from providers.errors import TuneplanError
from providers.object_store import ObjectStore

KEY = "stop.json"
SCHEMA = "tuneplan/stop"
POLL_S = 5.0


def stop_request(run_id: str, launch: int, launched_at: str | None) -> bytes:
    """What asks the worker of one launch to commit a checkpoint and end.

    Args:
        run_id: Of the run.
        launch: Number of the launch.
        launched_at: When it was decided on; tells it from one of the same number in a ledger that was lost.
    """
    names = {"schema": SCHEMA, "run_id": run_id, "launch": launch, "launched_at": launched_at}
    return json.dumps(names, sort_keys=True).encode()


@contextmanager
def heeding(tell: Callable[[], None], store: ObjectStore, job: JobSpec) -> Iterator[None]:
    """Look for a request every few seconds, from a thread of its own, and tell of it once.

    Args:
        tell: Called in the thread.
        store: The run's prefix.
        job: Whose launch must be meant.
    """
    mine = stop_request(job.run_id, job.limits.launch, job.limits.launched_at)
    end = threading.Event()

    def look() -> None:
        while not end.is_set():
            if _found(store) == mine:
                tell()
                return
            end.wait(POLL_S)

    thread = threading.Thread(target=look, name="stop-request", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()


def _found(store: ObjectStore) -> bytes | None:
    try:
        found = store.get(KEY)
    except TuneplanError:  # the next look may be better; who asked does not wait for ever
        return None
    return None if found is None else found[0]
