"""A directory store on which a test can make things go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from providers.directory_store import DirectoryStore
from providers.errors import StorageError, StoreAccessError
from providers.object_store import ObjectInfo, Sent, ignore

Fault = Callable[[str, str, int], str | None]


class FaultyStore:
    """Asks `fault(operation, key, count)` before each operation; `count` is that of the operation so far.

    The answer None lets it through, "refused" fails before anything happens, "denied" does so for want of rights,
    "lost" does it and then fails, and "retried" does it twice and gives the second answer, as a client does whose
    first answer was lost.
    """

    def __init__(self, root: Path, fault: Fault) -> None:
        self.inner = DirectoryStore(root)
        self.uri = self.inner.uri
        self.fault = fault
        self.calls: list[tuple[str, str]] = []

    def put_if_absent(self, key: str, body: bytes) -> bool:
        return self._do("put_if_absent", key, lambda: self.inner.put_if_absent(key, body))

    def put_file(self, key: str, source: Path, sent: Sent = ignore) -> bool:
        return self._do("put_file", key, lambda: self.inner.put_file(key, source, sent))

    def put(self, key: str, body: bytes) -> None:
        return self._do("put", key, lambda: self.inner.put(key, body))

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> str | None:
        return self._do("compare_and_swap", key, lambda: self.inner.compare_and_swap(key, body, tag))

    def get(self, key: str) -> tuple[bytes, str] | None:
        return self._do("get", key, lambda: self.inner.get(key))

    def get_file(self, key: str, target: Path) -> str:
        return self._do("get_file", key, lambda: self.inner.get_file(key, target))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._do("list", prefix, lambda: self.inner.list(prefix))

    def delete(self, key: str) -> None:
        return self._do("delete", key, lambda: self.inner.delete(key))

    def count(self, operation: str, key: str = "") -> int:
        """Calls of an operation on keys that start so."""
        return sum(name == operation and where.startswith(key) for name, where in self.calls)

    def _do(self, operation: str, key: str, act: Callable[[], Any]) -> Any:
        self.calls.append((operation, key))
        fault = self.fault(operation, key, self.count(operation))
        if fault == "refused":
            raise StorageError("503 slow down", code="unavailable")
        if fault == "denied":
            raise StoreAccessError("403 AccessDenied")
        answer = act()
        if fault == "lost":
            raise StorageError("connection reset")
        return act() if fault == "retried" else answer


def no_fault(operation: str, key: str, count: int) -> str | None:
    """Nothing goes wrong."""
    return None
