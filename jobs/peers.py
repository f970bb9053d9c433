"""A process of the group that is gone: taken away with its machine, or failed by itself.

The others hear of both in the same words, as torch's connection to it is closed. So who fails by itself writes why into
the run's prefix before it ends, `failures/<fence>.json`, the first of an attempt alone; who loses a connection looks
there. Found: the run has failed, for that reason. Not found: a machine was taken away, and the run goes on elsewhere.
"""

from __future__ import annotations

import json
from contextlib import suppress

from jobs.patience import insist
from jobs.preemption import StopSignal
from providers.errors import StorageError, TuneplanError
from providers.object_store import ObjectStore

#: Why an attempt stopped whose peer is gone without a word.
LOST = "a machine of the group is gone, or a process on it was killed"
_PREFIX = "failures/"
_LONGEST_CHARS = 500
_KINDS = ("DistBackendError", "DistNetworkError")  # of torch.distributed, which may not be loaded
# gloo raises a plain RuntimeError (gloo/transport/tcp/pair.cc); NCCL's errors of a peer are kinds of their own, and
# those that are not say this (ncclRemoteError in nccl.h)
_WORDS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "remote process exited or there was a network error",
)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a connection to another process of the group that is gone.

    >>> is_lost(RuntimeError("[pair.cc:553] Connection closed by peer [10.0.0.2]:27055")), is_lost(ValueError("no"))
    (True, False)
    """
    while error is not None:
        if type(error).__name__ in _KINDS:
            return True
        if isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def tell(store: ObjectStore, fence: int, rank: int, reason: str) -> None:
    """Let the others know why this process fails; it fails whether or not they can be told."""
    body = json.dumps({"rank": rank, "reason": reason[:_LONGEST_CHARS]}).encode()
    with suppress(StorageError):
        store.put_if_absent(_key(fence), body)


def failure(store: ObjectStore, fence: int, stop: StopSignal) -> TuneplanError | None:
    """Why the process that is gone failed; None if it said nothing.

    Raises:
        Stopped: The store stayed away, so that nobody knows.
    """
    found = insist(lambda: store.get(_key(fence)), stop)
    if found is None:
        return None
    said = json.loads(found[0])
    return TuneplanError(f"process {said['rank']}: {said['reason']}")


def _key(fence: int) -> str:
    return f"{_PREFIX}{fence:06d}.json"
