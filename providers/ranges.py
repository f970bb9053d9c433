"""Downloads an object in ranges, several at a time, and hashes it on the way: no byte is read from the disk again."""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from providers.errors import StorageError

_PART_BYTES = 16 << 20
_CONNECTIONS = 4

#: What is read at once: much larger pieces cost more in fresh pages of memory than in all the rest.
CHUNK_BYTES = 1 << 18

Read = Callable[[int, int], Sequence[Any]]
"""Given the first byte and the number of bytes: those bytes, in pieces with a buffer. Called from several threads."""


def fetch_ranges(read: Read, size: int, target: Path) -> str:
    """Write an object of `size` bytes to a file, which appears when it is complete; the sha256 of what was written.

    Raises:
        OSError: The file cannot be written.
        StorageError: A range came short.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:16]}")
    digest = hashlib.sha256()
    try:
        with beside.open("wb") as file:
            for part in _in_order(read, size, target.name):
                for piece in part:
                    digest.update(piece)
                    file.write(piece)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    return digest.hexdigest()


def _in_order(read: Read, size: int, target_name: str) -> Iterator[Sequence[Any]]:
    """The parts one after the other, while the next ones are on their way."""

    def one(start: int) -> Sequence[Any]:
        length = min(_PART_BYTES, size - start)
        part = read(start, length)
        came = sum(len(piece) for piece in part)
        if came != length:
            raise StorageError(f"of {target_name} {came} of {length} bytes came", code="cut_off")
        return part

    starts = range(0, size, _PART_BYTES)
    if len(starts) < 2:
        yield from map(one, starts)
        return
    pool = ThreadPoolExecutor(_CONNECTIONS, "range")
    try:
        waiting: deque[Future[Sequence[Any]]] = deque()
        for start in starts:
            if len(waiting) > _CONNECTIONS:
                yield waiting.popleft().result()
            waiting.append(pool.submit(one, start))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
