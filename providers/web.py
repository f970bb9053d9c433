"""Reads small answers over HTTPS: bounded, with time limits, through the proxy and with the CA of the environment.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are followed; `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` or `SSL_CERT_FILE`
name further certificate authorities. A secret is sent to the server it is meant for and to no other, also where that
server sends us elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import lru_cache
from http.client import HTTPException, HTTPResponse
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from providers.errors import StorageError, UsageError

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_WAITS_S = (0.5, 2.0)  # between attempts; the number of attempts is one more
_TRIED_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Neither a wrong name nor a wrong certificate is better a second later.
_LASTING = (ssl.SSLError, socket.gaierror)
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class WebRequest:
    """What to ask for.

    Attributes:
        url: https, or http on this machine.
        headers: Sent wherever the request ends up.
        secret: An `Authorization` header, for this server alone.
        body: Sent with POST; None is a GET.
        most_bytes: A longer answer is an error, or is cut where `cut` says so.
        cut: Keep the first `most_bytes` of a longer answer.
        timeout_s: For the connection and for each read.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secret: str | None = field(default=None, repr=False)
    body: bytes | None = None
    most_bytes: int = 32 * 2**20
    cut: bool = False
    timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What came back, whatever its status.

    Attributes:
        status: HTTP status.
        headers: With lower-case names.
        body: The content, of an error its first 64 KiB.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self, url: str) -> Any:
        """The content read as JSON.

        Raises:
            StorageError: It is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise StorageError(f"{shown_address(url)} did not answer with JSON", code="bad_answer") from None


class UnreachableError(StorageError):
    """No answer came: no network, a wrong name, a proxy or a certificate in the way."""

    code = "unreachable"


def shown_address(url: str) -> str:
    """An address as a person may see it: without login and query, which sign or hold a key. Anything else stays.

    >>> shown_address("https://me:key@host/a.jsonl?X-Amz-Signature=5"), shown_address("lab/goats")
    ('https://host/a.jsonl', 'lab/goats')
    """
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def check_address(url: str) -> None:
    """Refuse what could be read or changed on the way.

    Raises:
        UsageError: Neither https nor this machine, or with a login in it, which urllib takes for a part of the host.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UsageError(f"{shown_address(url)} was given with a login in it", hint="leave it out")
    local = parts.hostname in _LOCAL
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise UsageError(f"{shown_address(url)} is not an https address")


def unusable(url: str, why: str) -> StorageError:
    """The error of an answer that cannot be used; nothing was changed by it."""
    hint = "what was in use before stays in use"
    return StorageError(f"cannot use {shown_address(url)}: {why}", code="download_failed", hint=hint)


def ask(request: WebRequest, *, sleep: Callable[[float], None] = time.sleep) -> WebAnswer:
    """Send a request; a busy or broken server is tried again.

    Args:
        request: What to ask for.
        sleep: Waits between attempts.

    Raises:
        UsageError: Not an https address, or a bundle of certificates that cannot be read.
        UnreachableError: No answer after the last attempt.
        StorageError: The answer is longer than allowed.
    """
    check_address(request.url)
    for wait_s in (*_WAITS_S, None):
        try:
            answer = _once(request)
        except (OSError, HTTPException) as error:
            if wait_s is None or isinstance(getattr(error, "reason", None), _LASTING):
                raise _unreachable(request.url, error) from error
        else:
            if wait_s is None or answer.status not in _TRIED_AGAIN:
                return answer
        sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def opener() -> urllib.request.OpenerDirector:
    """What opens addresses, as the environment is now.

    Raises:
        UsageError: A bundle of certificates cannot be read.
    """
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    https = urllib.request.HTTPSHandler(context=_tls(bundle))
    return urllib.request.build_opener(urllib.request.ProxyHandler(), https, _Redirects())


@lru_cache(maxsize=4)
def _tls(bundle: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if bundle is not None:
        try:
            context.load_verify_locations(
                capath=bundle if os.path.isdir(bundle) else None,  # noqa: PTH112 (as given)
                cafile=None if os.path.isdir(bundle) else bundle,  # noqa: PTH112
            )
        except (OSError, ssl.SSLError) as error:
            names = " or ".join(_CA_VARIABLES)
            raise UsageError(
                f"cannot read certificates from {bundle}: {error}", hint=f"correct {names}"
            ) from error
    return context


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https only; the secret goes along within one server and not to another."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_address(newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        secret = req.unredirected_hdrs.get("Authorization")
        if following is not None and secret and _origin(req.full_url) == _origin(newurl):
            following.add_unredirected_header("Authorization", secret)
        return following


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _once(asked: WebRequest) -> WebAnswer:
    headers = {"Accept-Encoding": "identity", "User-Agent": "tuneplan", **asked.headers}
    request = urllib.request.Request(asked.url, data=asked.body, headers=headers)  # noqa: S310 (was checked)
    if asked.secret is not None:
        request.add_unredirected_header("Authorization", asked.secret)
    try:
        with opener().open(request, timeout=asked.timeout_s) as response:
            return WebAnswer(response.status, _lower(response.headers), _read(response, asked))
    except urllib.error.HTTPError as error:
        with error:
            return WebAnswer(error.code, _lower(error.headers), error.read(2**16))


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _read(response: HTTPResponse, asked: WebRequest) -> bytes:
    body = response.read(asked.most_bytes + (0 if asked.cut else 1))
    if len(body) > asked.most_bytes:
        raise StorageError(
            f"{shown_address(asked.url)} answered with more than {asked.most_bytes:,} bytes",
            code="bad_answer",
        )
    return body


def _unreachable(url: str, error: Exception) -> UnreachableError:
    reason = getattr(error, "reason", None) or error
    host = urlsplit(url).netloc.rpartition("@")[2]
    return UnreachableError(f"cannot reach {host}: {reason}", hint="check the network, the proxy and its CA")
