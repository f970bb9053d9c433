"""Refuses a store that does not keep to conditional writes, before anything that matters is written to it."""

from __future__ import annotations

import uuid

from providers.errors import StorageError
from providers.object_store import ObjectStore

_HINT = (
    "use a store with conditional writes: S3, GCS, Azure, or a server that heeds If-Match and If-None-Match"
)


def check_conditions(store: ObjectStore) -> None:
    """Write an object twice: a store that takes the second one would let two attempts overwrite each other.

    Some servers that speak S3's protocol answer conditional writes as if they were plain ones.

    Raises:
        StorageError: With code `no_conditional_writes` if it does; or the store cannot be used.
    """
    key = f"conditions/{uuid.uuid4().hex}"
    try:
        first = store.compare_and_swap(key, b"1", None)
        wrong = first is None or store.compare_and_swap(key, b"2", None) is not None
        if not wrong:
            second = store.compare_and_swap(key, b"3", first)
            wrong = second is None or store.compare_and_swap(key, b"4", first) is not None
    finally:
        store.delete(key)
    if wrong:
        message = f"{store.uri} ignores the conditions of conditional writes"
        raise StorageError(message, hint=_HINT, code="no_conditional_writes")
