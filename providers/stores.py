"""Opens the object store that a URI names."""

from __future__ import annotations

from providers.directory_store import DirectoryStore, directory_of
from providers.errors import UsageError
from providers.object_store import ObjectStore


def open_store(uri: str) -> ObjectStore:
    """The store whose keys lie below the URI.

    Raises:
        UsageError: The scheme is unknown or not yet supported.
        StorageError: The store cannot be opened.
    """
    scheme = uri.partition("://")[0]
    if scheme == "file":
        return DirectoryStore(directory_of(uri))
    if scheme in ("s3", "gs", "az"):
        message = f"{scheme}:// is not yet supported"
        raise UsageError(message, hint="use a file:// URI", code="not_yet_supported")
    raise UsageError(f"{uri} names no object store", hint="use file:///absolute/path")
