"""A reverse proxy before an S3 server that loses, delays, refuses and corrupts what passes, as a test tells it to."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["unavailable", "full", "hang", "lost", "cut", "corrupt", "rotten"]
Moment = Literal["arrived", "half", "forwarded", "answered"]
MOMENTS: tuple[Moment, ...] = ("arrived", "half", "forwarded", "answered")

_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}
_REFUSALS = {"unavailable": (503, "SlowDown"), "full": (500, "InternalError")}
_WRONG = ("corrupt", "rotten")  # one bit differs; the server's own checksum shows it, or not
_HANG_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class HeadWrite:
    """A write of HEAD that the server took: the tag it replaced ("" if none), the tag it got, and the body."""

    before: str
    after: str
    body: bytes


@dataclass
class FaultProxy:
    """What the proxy knows, and what it asks.

    Attributes:
        upstream: The server's URL.
        endpoint: Its own.
        fault: Asked for each request by its kind, as in `put blob`; the fault to make, None for none.
        event: Told of each moment of each request.
        head_writes: In the order in which the answers came.
    """

    upstream: str
    endpoint: str = ""
    fault: Callable[[str], Fault | None] = lambda _: None
    event: Callable[[str, Moment], None] = lambda *_: None
    head_writes: list[HeadWrite] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def choose(self, kind: str) -> Fault | None:
        """The fault of this request, counted."""
        chosen = self.fault(kind)
        if chosen in ("cut", *_WRONG) and not kind.startswith("get"):
            chosen = "lost"
        if chosen is not None:
            self.made[chosen] = self.made.get(chosen, 0) + 1
        return chosen


def kind_of(method: str, path: str) -> str:
    """What a request is about, as in `put blob`, `put part`, `get head`."""
    parts = urlsplit(path)
    if "uploads" in parts.query or "uploadId" in parts.query:
        if method == "PUT":
            return "put part"
        return "complete upload" if method == "POST" and "uploadId" in parts.query else "other upload"
    marks = {"/_inputs/": "input", "/blobs/": "blob", "/manifests/": "manifest", "/progress.json": "progress"}
    for mark, name in marks.items():
        if mark in parts.path:
            return f"{method.lower()} {name}"
    return f"{method.lower()} {'head' if parts.path.endswith('/HEAD') else 'other'}"


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Start a proxy on loopback; stop it at the end."""
    proxy = FaultProxy(upstream)

    class Handler(_Handler):
        state = proxy

    server = _Server(("127.0.0.1", 0), Handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="fault proxy", kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed in the middle is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body of an answer in one write
    state: FaultProxy
    _server: http.client.HTTPConnection | None = None

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""

    def serve(self) -> None:
        """One request."""
        kind = kind_of(self.command, self.path)
        self.state.event(kind, "arrived")
        fault = self.state.choose(kind)
        body = self._body(kind)
        if fault in _REFUSALS:
            self._refuse(*_REFUSALS[fault])
            return
        if fault == "hang":
            self.state.closing.wait(_HANG_LIMIT_S)
            self.close_connection = True
            return
        answer, content = self._forward(body)
        self._note(kind, body, answer)
        self.state.event(kind, "forwarded")
        if fault == "lost":
            self.close_connection = True
            return
        self._answer(answer, content, fault)
        self.state.event(kind, "answered")

    def handle_expect_100(self) -> bool:
        """Ask for the body at once: botocore waits a second for this."""
        done = super().handle_expect_100()
        self.wfile.flush()
        return done

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve  # noqa: N815

    def finish(self) -> None:
        """The client has gone."""
        if self._server is not None:
            self._server.close()
        super().finish()

    def _body(self, kind: str) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self._exactly(size))
                self.rfile.readline()
            self.rfile.readline()
            self.state.event(kind, "half")
            return b"".join(chunks)
        size = int(self.headers.get("Content-Length", "0"))
        first = self._exactly(size // 2)
        self.state.event(kind, "half")
        return first + self._exactly(size - size // 2)

    def _exactly(self, size: int) -> bytes:
        found = self.rfile.read(size)
        if len(found) != size:
            raise ConnectionError("the client has gone")
        return found

    def _forward(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        if self._server is None:
            parts = urlsplit(self.state.upstream)
            self._server = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
            self._server.connect()
            self._server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _HOP and name.lower() != "content-length":
                self._server.putheader(name, value)
        self._server.putheader("Content-Length", str(len(body)))
        self._server.endheaders(body)
        answer = self._server.getresponse()
        return answer, answer.read()

    def _answer(self, answer: http.client.HTTPResponse, content: bytes, fault: Fault | None) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            hidden = fault == "rotten" and name.lower().startswith("x-amz-checksum")
            if name.lower() not in _HOP and name.lower() != "content-length" and not hidden:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if fault in _WRONG and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if fault == "cut":
            content, self.close_connection = content[: len(content) // 2], True
        self.wfile.write(content)
        self.wfile.flush()

    def _refuse(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>made by the test</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else text)
        self.wfile.flush()

    def _note(self, kind: str, body: bytes, answer: http.client.HTTPResponse) -> None:
        if kind == "put head" and answer.status == 200:
            before = self.headers.get("If-Match", "")
            self.state.head_writes.append(HeadWrite(before, answer.getheader("ETag", ""), body))
