"""Brings data from elsewhere onto this machine, whole and checked: https://, s3://, gs:// and data sets of the Hub."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.download import download
from providers.errors import MissingExtraError, StorageError, UsageError
from providers.hub import HubAccess
from providers.hub_data import find_data
from providers.process_lock import held
from providers.s3 import S3Store
from providers.web import WebRequest, ask, shown_address

#: What is brought here is kept on this machine's disk.
MOST_BYTES = 2**30
_CHUNK_BYTES = 2**20
_GS = re.compile(r"gs://([a-z0-9][a-z0-9._-]+)/(.+[^/])")


@dataclass(frozen=True, slots=True)
class Source:
    """Data that is somewhere else.

    Attributes:
        kind: hub, s3, gs or https.
        place: Id of the data set, or the whole URI.
        revision: Of a data set: commit, tag or branch; of an object in s3 its version id.
        split: Of a data set.
    """

    kind: str
    place: str
    revision: str | None = None
    split: str = "train"

    @property
    def shown(self) -> str:
        """The place for a person, without what signs it."""
        return shown_address(self.place)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Data that is here now.

    Attributes:
        path: The file.
        sha256: Of its content.
        bytes: Its size.
        version: What the source calls it: a commit, a version id, an ETag, the time of its last change; empty if
            it has no name for it.
    """

    path: Path
    sha256: str
    bytes: int
    version: str


def fetch(source: Source, folder: Path, access: HubAccess) -> Fetched:
    """Bring the data into a folder as `<sha256><suffix>`; what is whole replaces nothing but its equal.

    Raises:
        UsageError: There is no such data, it is in pieces that cannot be put together, or another process is at it.
        CredentialsError: It may not be read.
        MissingExtraError: What the source needs is not installed.
        StorageError: It could not be read whole, or is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f"part-{hashlib.sha256(repr(source).encode()).hexdigest()[:16]}"
    hint = "wait until it has ended: what it brings serves everybody"
    busy = UsageError(f"another process is fetching {source.shown}", hint=hint, code="busy")
    with held(staging.with_suffix(".lock"), busy):
        staging.mkdir(exist_ok=True)
        pieces, version = _FETCHERS[source.kind](source, staging, access)
        whole = _together(pieces, staging)
        digest = _sha256(whole)
        size = whole.stat().st_size
        target = folder / f"{digest}{pieces[0].suffix.lower()}"
        os.replace(whole, target)  # noqa: PTH105 (atomic, also over an equal file)
        shutil.rmtree(staging, ignore_errors=True)
    return Fetched(target, digest, size, version)


def version_of(source: Source) -> str:
    """What the source calls its content now, without reading it; empty if it has no name for it.

    Raises:
        UsageError: There is no such data.
        CredentialsError: It may not be read.
        StorageError: The source does not answer, or is a data set, which is pinned to its commit.
    """
    if source.kind not in _VERSIONS:
        raise StorageError(f"{source.shown} is pinned to a commit", code="no_version")
    return _VERSIONS[source.kind](source)


def _unchanged(source: Source, before: str) -> str:
    """The version that was read, if it is one.

    Raises:
        StorageError: It was replaced meanwhile, so that nobody knows what was read.
    """
    if version_of(source) != before:
        raise StorageError(f"{source.shown} changed while it was read", code="data_changed", hint="try again")
    return before


def _from_hub(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    found = find_data(access, source.place, source.revision, source.split)
    secret = None if access.token is None else f"Bearer {access.token}"
    return [_get(url, staging, index, secret) for index, url in enumerate(found.urls)], found.commit


def _from_https(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    before = _https_version(source)
    pieces = [_get(source.place, staging, 0, None)]
    return pieces, _unchanged(source, before)


def _https_version(source: Source) -> str:
    """Asked with GET and not read on, since an address that was signed for one method knows no other."""
    answer = ask(WebRequest(source.place, most_bytes=0, cut=True))
    if answer.status in (404, 410):
        raise UsageError(f"{source.shown} does not exist", code="data_missing", path="data.train")
    if answer.status != 200:
        raise StorageError(f"{source.shown} answered {answer.status}", code="download_failed")
    return answer.headers.get("etag") or answer.headers.get("last-modified") or ""


def _get(url: str, staging: Path, index: int, secret: str | None) -> Path:
    target = staging / f"{index:05d}{Path(urlsplit(url).path).suffix}"
    if download(url, target, secret=secret, most_bytes=MOST_BYTES) is None:
        raise UsageError(f"{shown_address(url)} does not exist", code="data_missing", path="data.train")
    return target


def _from_s3(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    store, name = _object(source)
    found = store.look(name, source.revision)
    _refuse_large(found.bytes)
    target = staging / f"00000{Path(name).suffix}"
    store.get_version(name, found.version, target)
    return [target], found.version if source.revision else _unchanged(source, found.version)


def _s3_version(source: Source) -> str:
    store, name = _object(source)
    return store.look(name).version


def _object(source: Source) -> tuple[S3Store, str]:
    bare, mark, options = source.place.partition("?")
    parent, _, name = bare.rpartition("/")
    if not name or parent in ("s3:/", "s3:"):
        raise UsageError(
            f"{bare} names no object", path="data.train", hint="write it as s3://bucket/file.jsonl"
        )
    return S3Store(f"{parent}{mark}{options}"), name


def _from_gs(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    """Through obstore, which finds Google's credentials as its own tools do."""
    with _google(source) as (store, key, obstore):
        target = staging / f"00000{Path(key).suffix}"
        answer: Any = obstore.get(store, key)
        _refuse_large(int(answer.meta["size"]))
        with target.open("wb") as file:
            for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)
    return [target], _name_of(answer.meta)


def _gs_version(source: Source) -> str:
    with _google(source) as (store, key, obstore):
        return _name_of(obstore.head(store, key))


def _name_of(meta: Any) -> str:
    """Google's generation of an object where it is told, else its ETag."""
    return str(meta.get("version") or meta.get("e_tag") or "")


@contextmanager
def _google(source: Source) -> Iterator[tuple[Any, str, Any]]:
    """The bucket, the key in it, and obstore, whose errors become ours."""
    match = _GS.fullmatch(source.place)
    if match is None:
        raise UsageError(f"{source.shown} names no object", path="data.train", hint="gs://bucket/file.jsonl")
    try:
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import GCSStore
    except ImportError:
        raise MissingExtraError("objectstore", f"reading {source.shown}") from None
    try:
        yield GCSStore(match[1]), match[2], obstore
    except FileNotFoundError:
        raise UsageError(f"{source.shown} does not exist", code="data_missing", path="data.train") from None
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(f"cannot read {source.shown}: {reason}", code="download_failed") from error


_FETCHERS = {"hub": _from_hub, "https": _from_https, "s3": _from_s3, "gs": _from_gs}
_VERSIONS = {"https": _https_version, "s3": _s3_version, "gs": _gs_version}


def _refuse_large(size: int) -> None:
    if size > MOST_BYTES:
        raise StorageError(
            f"{size:,} bytes are more than the {MOST_BYTES:,} that are brought here", code="too_large"
        )


def _together(pieces: list[Path], staging: Path) -> Path:
    """One file of all pieces."""
    if len(pieces) == 1:
        return pieces[0]
    suffixes = {piece.suffix.lower() for piece in pieces}
    _refuse_large(sum(piece.stat().st_size for piece in pieces))
    whole = staging / "whole"
    if suffixes == {".parquet"}:
        _join_parquet(pieces, whole)
    elif suffixes <= {".jsonl", ".ndjson", ".txt"}:
        with whole.open("wb") as file:
            for line in _lines(pieces):
                file.write(line)
    else:
        names = ", ".join(sorted(suffixes))
        raise UsageError(f"files of several kinds ({names}) cannot be put together", path="data.train")
    return whole


def _lines(pieces: Iterable[Path]) -> Iterator[bytes]:
    for piece in pieces:
        with piece.open("rb") as file:
            for line in file:
                yield line if line.endswith(b"\n") else line + b"\n"


def _join_parquet(pieces: list[Path], whole: Path) -> None:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingExtraError("data", "joining parquet files") from None
    schema = parquet.read_schema(pieces[0])
    with parquet.ParquetWriter(whole, schema) as writer:
        for piece in pieces:
            for batch in parquet.ParquetFile(piece).iter_batches():
                writer.write_batch(batch.cast(schema))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
