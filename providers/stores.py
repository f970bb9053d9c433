"""Opens the object store that a URI names."""

from __future__ import annotations

from providers.directory_store import DirectoryStore, directory_of
from providers.errors import UsageError
from providers.object_store import ObjectStore
from providers.obstore_store import ObstoreStore
from providers.pace import Pace
from providers.s3 import S3Store
from providers.s3_location import is_bucket, s3_location


def open_store(uri: str, *, upload_limit_bytes_per_s: float | None = None) -> ObjectStore:
    """The store whose keys lie below the URI.

    Args:
        uri: file://, s3://, gs:// or az://.
        upload_limit_bytes_per_s: What files sent to a bucket may take of the line, None for all of it.

    Raises:
        UsageError: The scheme is unknown, or the URI is wrong.
        MissingExtraError: What it needs is not installed.
        StoreAccessError: AWS_PROFILE names no profile.
        StorageError: The store cannot be opened.
    """
    scheme = uri.partition("://")[0]
    if scheme == "file":
        return DirectoryStore(directory_of(uri))
    pace = None if upload_limit_bytes_per_s is None else Pace(upload_limit_bytes_per_s)
    if scheme == "s3" and s3_location(uri).client == "boto3":
        return S3Store(uri, pace)
    if is_bucket(uri):
        return ObstoreStore(uri, pace)
    hint = "use s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///absolute/path"
    raise UsageError(f"{uri} names no object store", hint=hint)


def below(uri: str, name: str) -> str:
    """The URI of a prefix below another.

    >>> below("s3://bucket/runs?region=eu-west-1", "a")
    's3://bucket/runs/a?region=eu-west-1'
    """
    place, mark, options = uri.partition("?") if is_bucket(uri) else (uri, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"
