"""Opens the object store that a URI names."""

from __future__ import annotations

from providers.directory_store import DirectoryStore, directory_of
from providers.errors import UsageError
from providers.object_store import ObjectStore
from providers.s3 import S3Store


def open_store(uri: str) -> ObjectStore:
    """The store whose keys lie below the URI.

    Raises:
        UsageError: The scheme is unknown or not yet supported, or the URI is wrong.
        MissingExtraError: What it needs is not installed.
        StoreAccessError: AWS_PROFILE names no profile.
        StorageError: The store cannot be opened.
    """
    scheme = uri.partition("://")[0]
    if scheme == "file":
        return DirectoryStore(directory_of(uri))
    if scheme == "s3":
        return S3Store(uri)
    if scheme in ("gs", "az"):
        message = f"{scheme}:// is not yet supported"
        raise UsageError(message, hint="use an s3:// or file:// URI", code="not_yet_supported")
    raise UsageError(f"{uri} names no object store", hint="use s3://bucket/prefix or file:///absolute/path")


def below(uri: str, name: str) -> str:
    """The URI of a prefix below another.

    >>> below("s3://bucket/runs?region=eu-west-1", "a")
    's3://bucket/runs/a?region=eu-west-1'
    """
    place, mark, options = uri.partition("?") if uri.startswith("s3://") else (uri, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
