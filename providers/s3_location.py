"""What an s3:// URI says: bucket, prefix, and where and how to reach them; never a secret."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from providers.errors import UsageError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_OPTIONS = ("endpoint", "region", "kms_key")
_FORM = "write it as s3://bucket/prefix or s3://bucket/prefix?endpoint=https://host"


class S3Location(NamedTuple):
    """Where a store's keys lie.

    Attributes:
        bucket: Name of the bucket.
        prefix: What every key starts with: empty, or ends in `/`.
        endpoint: URL of a server that is not AWS; None leaves it to the environment (AWS_ENDPOINT_URL).
        region: None leaves it to the environment.
        kms_key: Id, alias or ARN of the KMS key that encrypts what is written; None leaves it to the bucket.
    """

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    kms_key: str | None = None


def s3_location(uri: str) -> S3Location:
    """Read an s3:// URI.

    >>> s3_location("s3://models/runs?region=eu-west-1")
    S3Location(bucket='models', prefix='runs/', endpoint=None, region='eu-west-1', kms_key=None)

    Raises:
        UsageError: It names no bucket, has an option that there is none of, or holds a password.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc) or parts.fragment:
        raise UsageError(f"{_without_options(uri)} names no S3 bucket and prefix", hint=_FORM)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in _OPTIONS:
            message = f"{_without_options(uri)} has an unknown option {name!r}"
            hint = f"options are {', '.join(_OPTIONS)}; credentials come from the environment only"
            raise UsageError(message, hint=hint)
    prefix = parts.path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise UsageError(f"{_without_options(uri)} names no S3 prefix", hint=_FORM)
    if "endpoint" in options:
        _check_endpoint(options["endpoint"])
    return S3Location(parts.netloc, f"{prefix}/" if prefix else "", **options)


def _check_endpoint(url: str) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the endpoint of an s3:// URI must not hold credentials", hint=_FORM)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError("the endpoint of an s3:// URI is no http or https URL", hint=_FORM)


def _without_options(uri: str) -> str:
    """What may be shown: a wrong option may be a secret."""
    bare = uri.partition("?")[0]
    return "the s3:// URI" if "@" in bare else bare
