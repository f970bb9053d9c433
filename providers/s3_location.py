"""What the URI of a bucket says: its name, a prefix, and where and how to reach them; never a secret."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from providers.errors import UsageError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._\-]{1,220}[a-z0-9]")
_S3_BUCKET = re.compile(r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")
_S3_OPTIONS = ("endpoint", "region", "kms_key", "client")
_CLIENTS = ("boto3", "obstore")
_OPTIONS = {"gs": ("endpoint", "region"), "az": ("endpoint", "region", "account")}


class S3Location(NamedTuple):
    """Where a store's keys lie.

    Attributes:
        bucket: Name of the bucket.
        prefix: What every key starts with: empty, or ends in `/`.
        endpoint: URL of a server that is not AWS; None leaves it to the environment (AWS_ENDPOINT_URL).
        region: None leaves it to the environment.
        kms_key: Id, alias or ARN of the KMS key that encrypts what is written; None leaves it to the bucket.
        client: Library that speaks to it: boto3, or obstore, which needs less CPU and cannot resume an upload.
    """

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    kms_key: str | None = None
    client: str = "boto3"


class CloudLocation(NamedTuple):
    """Where a gs:// or az:// store's keys lie.

    Attributes:
        scheme: gs or az.
        bucket: Name of the bucket, or of the container.
        prefix: What every key starts with: empty, or ends in `/`.
        endpoint: URL of a server that is not the cloud's own, None for that one.
        region: Where it lies, for a person and for `data.regions`; None if it is not said.
        account: Of az: storage account; None leaves it to the environment (AZURE_STORAGE_ACCOUNT_NAME).
    """

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None
    account: str | None = None


def is_bucket(uri: str) -> bool:
    """Whether a URI names a bucket of some cloud, which a rented machine can reach too.

    >>> is_bucket("gs://models/runs"), is_bucket("file:///runs")
    (True, False)
    """
    return uri.startswith(("s3://", "gs://", "az://"))


def s3_location(uri: str) -> S3Location:
    """Read an s3:// URI.

    >>> s3_location("s3://models/runs?region=eu-west-1").prefix
    'runs/'

    Raises:
        UsageError: It names no bucket, has an option that there is none of, or holds a password.
    """
    _, bucket, prefix, options = _read(uri, ("s3",), _S3_BUCKET, _S3_OPTIONS)
    client = options.get("client", "boto3")
    if client not in _CLIENTS:
        raise UsageError(f"{_without_options(uri)} names no client that there is", hint=" or ".join(_CLIENTS))
    return S3Location(bucket, prefix, **options)


def cloud_location(uri: str) -> CloudLocation:
    """Read a gs:// or az:// URI.

    >>> cloud_location("az://models/runs?account=me")
    CloudLocation(scheme='az', bucket='models', prefix='runs/', endpoint=None, region=None, account='me')

    Raises:
        UsageError: As of `s3_location`.
    """
    scheme = uri.partition("://")[0]
    scheme, bucket, prefix, options = _read(uri, tuple(_OPTIONS), _BUCKET, _OPTIONS.get(scheme, ()))
    return CloudLocation(scheme, bucket, prefix, **options)


def stated_region(uri: str) -> str | None:
    """Region that a bucket's URI says, None if it says none.

    Raises:
        UsageError: The URI is wrong.
    """
    return s3_location(uri).region if uri.startswith("s3://") else cloud_location(uri).region


def _read(
    uri: str, schemes: tuple[str, ...], bucket: re.Pattern[str], known: tuple[str, ...]
) -> tuple[str, str, str, dict[str, str]]:
    """Scheme, bucket, prefix and options."""
    parts = urlsplit(uri)
    form = f"write it as {schemes[0]}://bucket/prefix or {schemes[0]}://bucket/prefix?endpoint=https://host"
    if parts.scheme not in schemes or not bucket.fullmatch(parts.netloc) or parts.fragment:
        what = {"s3": "S3 bucket"}.get(schemes[0], "bucket")
        raise UsageError(f"{_without_options(uri)} names no {what} and prefix", hint=form)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name not in known:
            message = f"{_without_options(uri)} has an unknown option {name!r}"
            hint = f"options are {', '.join(known)}; credentials come from the environment only"
            raise UsageError(message, hint=hint)
    prefix = parts.path.strip("/")
    if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
        raise UsageError(f"{_without_options(uri)} names no prefix", hint=form)
    if "endpoint" in options:
        _check_endpoint(options["endpoint"], form)
    return parts.scheme, parts.netloc, f"{prefix}/" if prefix else "", options


def _check_endpoint(url: str, form: str) -> None:
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the endpoint of a bucket must not hold credentials", hint=form)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError("the endpoint of a bucket is no http or https URL", hint=form)


def _without_options(uri: str) -> str:
    """What may be shown: a wrong option may be a secret."""
    bare = uri.partition("?")[0]
    return f"the {bare.partition('://')[0]}:// URI" if "@" in bare else bare
