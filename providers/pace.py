"""Holds uploads to a bandwidth, so that they leave some to whoever else uses the line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from providers.object_store import Sent

#: What is sent at once where a bandwidth is to be kept; S3 takes no smaller part.
PIECE_BYTES = 5 << 20


class Pace:
    """What all threads send together is at most so many bytes a second, averaged over a few pieces.

    Args:
        bytes_per_s: The limit.
        clock: Seconds, monotonic.
        sleep: Waits.
    """

    def __init__(
        self,
        bytes_per_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing was sent yet."""
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at_s = clock()

    def take(self, size: int) -> None:
        """Wait until what was taken before has had its time."""
        with self._lock:
            now_s = self._clock()
            start_s = max(self._free_at_s, now_s)
            self._free_at_s = start_s + size / self._bytes_per_s
        if start_s > now_s:
            self._sleep(start_s - now_s)


def pieces(source: Path, size: int, pace: Pace | None, sent: Sent) -> Iterator[bytes]:
    """A file piece by piece; `sent` is told of a piece when the next one is asked for.

    Raises:
        OSError: It cannot be read.
    """
    with source.open("rb") as file:
        while piece := file.read(size):
            if pace is not None:
                pace.take(len(piece))
            yield piece
            sent(len(piece))
