"""Fetches one file over HTTPS so that it arrives whole or not at all.

An interrupted download leaves `<name>.part` and `<name>.tag`, which says what it belongs to. The next attempt, also
of another process, asks for the rest only if the server still has that version (`If-Range` with its ETag), and a
whole file is not fetched again (`If-None-Match`). What arrives is checked against the length and, where the server
names one, the checksum: `Content-MD5`, `x-amz-checksum-sha256`, or an ETag that is an MD5 as object stores give.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from providers.errors import StorageError
from providers.web import check_address, opener, shown_address

MAX_BYTES = 256 * 2**20
_CHUNK_BYTES = 2**16
_TIMEOUT_S = 30.0
_WAITS_S = (1.0, 4.0, 10.0)  # between attempts; the number of attempts is one more
_MD5_ETAG = re.compile(r'^"([0-9a-f]{32})"$')
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file that arrived.

    Attributes:
        bytes: Its size.
        resumed_bytes: How many of them were there from an earlier attempt.
        checksum: What its content was checked against: md5, sha256, "length" where the server names no
            checksum, "unchanged" if it was there already.
        modified: ISO date of its last change at the server, None if the server does not say.
    """

    bytes: int
    resumed_bytes: int
    checksum: str
    modified: str | None


class _AttemptError(Exception):
    """An attempt failed in a way that another may not."""


def download(
    url: str,
    target: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
    secret: str | None = None,
    most_bytes: int | None = None,
) -> Downloaded | None:
    """Fetch a file, None if the server answers and does not have it.

    The target is replaced only by a file that arrived whole and undamaged.

    Args:
        url: https, or http on this machine.
        target: Where it goes; its folder exists.
        sleep: Waits between attempts.
        secret: An `Authorization` header, for this server alone.
        most_bytes: A longer file is an error; None is `MAX_BYTES`.

    Raises:
        UsageError: Not an https address.
        StorageError: After the last attempt; what arrived so far is kept for the next call.
    """
    check_address(url)
    for wait_s in (*_WAITS_S, None):
        try:
            return _attempt(url, target, secret, MAX_BYTES if most_bytes is None else most_bytes)
        except _AttemptError as error:
            if wait_s is None:
                raise _failed(f"cannot fetch {shown_address(url)}: {error}") from error
            sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _attempt(url: str, target: Path, secret: str | None, most_bytes: int) -> Downloaded | None:
    part = _beside(target, ".part")
    request = urllib.request.Request(url, headers=_headers(url, target, part))  # noqa: S310 (scheme was checked)
    if secret is not None:
        request.add_unredirected_header("Authorization", secret)
    try:
        with opener().open(request, timeout=_TIMEOUT_S) as response:
            return _receive(response, url, target, part, most_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        return _without_content(url, error, target, part)
    except (OSError, HTTPException) as error:
        raise _AttemptError(str(error) or type(error).__name__) from error


def _without_content(url: str, error: urllib.error.HTTPError, target: Path, part: Path) -> Downloaded | None:
    if error.code == 304:
        size = target.stat().st_size
        return Downloaded(size, size, "unchanged", _date(error.headers.get("Last-Modified")))
    if error.code in (404, 410):
        return None
    if error.code == 416:  # what we have is longer than what there is
        _forget(part)
        raise _AttemptError("the file changed at the server") from error
    if error.code in _RETRIED:
        raise _AttemptError(f"the server answered {error.code} {error.reason}") from error
    raise _failed(f"cannot fetch {shown_address(url)}: {error.code} {error.reason}") from error


def _failed(message: str) -> StorageError:
    hint = "what was in use before stays in use; the same command goes on where it stopped"
    return StorageError(message, code="download_failed", hint=hint)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _forget(part: Path) -> None:
    """Remove a part and what says which version it is: an older whole file must not be taken for that version."""
    part.with_suffix(".tag").unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _headers(url: str, target: Path, part: Path) -> dict[str, str]:
    """Ask for what is missing of the version we have, or for all."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "tuneplan"}
    try:
        known = json.loads(_beside(target, ".tag").read_text(encoding="utf-8"))
        if known["url"] != url:
            return headers
        if part.exists():  # then the tag is of the part, and says nothing of the target
            size = part.stat().st_size
            return headers | {"Range": f"bytes={size}-", "If-Range": str(known["etag"])} if size else headers
        return headers | {"If-None-Match": str(known["etag"])} if target.exists() else headers
    except (OSError, ValueError, KeyError, TypeError):
        return headers  # no tag, or not one of ours: fetch it all


def _receive(response: HTTPResponse, url: str, target: Path, part: Path, most_bytes: int) -> Downloaded:
    check_address(response.url)
    resumed = part.stat().st_size if response.status == 206 else 0
    if not resumed:  # before the tag: bytes of another version must not be taken for some of this one
        part.write_bytes(b"")
    _keep_tag(response, url, _beside(target, ".tag"))
    length = response.headers.get("Content-Length")
    expected = None if length is None else resumed + int(length)
    _copy(response, part, resumed, most_bytes)
    size = part.stat().st_size
    if expected is not None and size != expected:
        raise _AttemptError(f"{size:,} of {expected:,} bytes arrived")
    checksum = _verified(response, part, resumed)
    part.replace(target)
    return Downloaded(size, resumed, checksum, _date(response.headers.get("Last-Modified")))


def _keep_tag(response: HTTPResponse, url: str, tag_file: Path) -> None:
    """A weak ETag does not promise the same bytes, so it is of no use here."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        tag_file.write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")
    else:
        tag_file.unlink(missing_ok=True)


def _copy(response: HTTPResponse, part: Path, resumed: int, most_bytes: int) -> None:
    size = resumed
    with part.open("r+b" if resumed else "wb") as file:
        file.seek(resumed)
        while chunk := response.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > most_bytes:
                raise _failed(f"{shown_address(response.url)} is larger than {most_bytes:,} bytes")
            file.write(chunk)


def _verified(response: HTTPResponse, part: Path, resumed: int) -> str:
    """The checksum that the content matches; a part that does not match is removed, not resumed."""
    name, expected = _expected_digest(response, resumed)
    if expected is None:
        return "length"
    digest = hashlib.new(name, part.read_bytes(), usedforsecurity=False).digest()
    if digest != expected:
        _forget(part)
        raise _AttemptError(f"what arrived does not match its {name} checksum")
    return name


def _expected_digest(response: HTTPResponse, resumed: int) -> tuple[str, bytes | None]:
    headers = response.headers
    if sha256 := headers.get("x-amz-checksum-sha256"):
        return "sha256", _decoded(sha256)
    # Content-MD5 is of what this answer carries, so it says nothing of a resumed file.
    if not resumed and (md5 := headers.get("Content-MD5")):
        return "md5", _decoded(md5)
    match = _MD5_ETAG.match(headers.get("ETag") or "")
    return "md5", bytes.fromhex(match[1]) if match else None


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _date(modified: str | None) -> str | None:
    try:
        return None if modified is None else parsedate_to_datetime(modified).date().isoformat()
    except ValueError:
        return None
