"""Brings data from elsewhere onto this machine, whole and checked: https://, s3://, gs:// and data sets of the Hub."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.download import download
from providers.errors import MissingExtraError, StorageError, UsageError
from providers.hub import HubAccess
from providers.hub_data import find_data
from providers.stores import open_store

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
        revision: Of a data set: commit, tag or branch.
        split: Of a data set.
    """

    kind: str
    place: str
    revision: str | None = None
    split: str = "train"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Data that is here now.

    Attributes:
        path: The file.
        sha256: Of its content.
        bytes: Its size.
        version: What the source calls it: a commit, else empty.
    """

    path: Path
    sha256: str
    bytes: int
    version: str


def fetch(source: Source, folder: Path, access: HubAccess) -> Fetched:
    """Bring the data into a folder as `<sha256><suffix>`; what is whole replaces nothing but its equal.

    Raises:
        UsageError: There is no such data, or it is in pieces that cannot be put together.
        CredentialsError: It may not be read.
        MissingExtraError: What the source needs is not installed.
        StorageError: It could not be read whole, or is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / f"part-{hashlib.sha256(repr(source).encode()).hexdigest()[:16]}"
    staging.mkdir(exist_ok=True)
    pieces, version = _FETCHERS[source.kind](source, staging, access)
    whole = _together(pieces, staging)
    digest = _sha256(whole)
    size = whole.stat().st_size
    target = folder / f"{digest}{pieces[0].suffix.lower()}"
    os.replace(whole, target)  # noqa: PTH105 (atomic, also over an equal file)
    shutil.rmtree(staging, ignore_errors=True)
    return Fetched(target, digest, size, version)


def _from_hub(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    found = find_data(access, source.place, source.revision, source.split)
    secret = None if access.token is None else f"Bearer {access.token}"
    return [_get(url, staging, index, secret) for index, url in enumerate(found.urls)], found.commit


def _from_https(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    return [_get(source.place, staging, 0, None)], ""


def _get(url: str, staging: Path, index: int, secret: str | None) -> Path:
    target = staging / f"{index:05d}{Path(urlsplit(url).path).suffix}"
    if download(url, target, secret=secret, most_bytes=MOST_BYTES) is None:
        raise UsageError(f"{url} does not exist", code="data_missing", path="data.train")
    return target


def _from_s3(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    bare, mark, options = source.place.partition("?")
    parent, _, name = bare.rpartition("/")
    if not name or parent in ("s3:/", "s3:"):
        raise UsageError(
            f"{bare} names no object", path="data.train", hint="write it as s3://bucket/file.jsonl"
        )
    target = staging / f"00000{Path(name).suffix}"
    _refuse_large(
        sum(info.bytes for info in open_store(f"{parent}{mark}{options}").list(name) if info.key == name)
    )
    open_store(f"{parent}{mark}{options}").get_file(name, target)
    return [target], ""


def _from_gs(source: Source, staging: Path, access: HubAccess) -> tuple[list[Path], str]:
    """Through obstore, which finds Google's credentials as its own tools do."""
    match = _GS.fullmatch(source.place)
    if match is None:
        raise UsageError(f"{source.place} names no object", path="data.train", hint="gs://bucket/file.jsonl")
    try:
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import GCSStore
    except ImportError:
        raise MissingExtraError("objectstore", f"reading {source.place}") from None
    target = staging / f"00000{Path(match[2]).suffix}"
    try:
        answer: Any = obstore.get(GCSStore(match[1]), match[2])
        _refuse_large(int(answer.meta["size"]))
        with target.open("wb") as file:
            for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)
    except FileNotFoundError:
        raise UsageError(f"{source.place} does not exist", code="data_missing", path="data.train") from None
    except BaseError as error:
        reason = str(error).partition("\n")[0]
        raise StorageError(f"cannot read {source.place}: {reason}", code="download_failed") from error
    return [target], ""


_FETCHERS = {"hub": _from_hub, "https": _from_https, "s3": _from_s3, "gs": _from_gs}


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
