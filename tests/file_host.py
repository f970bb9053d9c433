"""An HTTP server on this machine that serves files and fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Trouble:
    """What goes wrong with one path.

    Attributes:
        statuses: Status codes of the next answers, then normal again.
        cut_after: The next answers end after so many bytes, then normal again.
        stall_after: Sends so many bytes, then nothing until `FileHost.release` is set.
        wrong_md5: Times the named checksum is not that of the content.
    """

    statuses: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    stall_after: int | None = None
    wrong_md5: int = 0


@dataclass
class FileHost:
    """Files by path, with ETags, ranges and checksums as object stores have them."""

    files: dict[str, bytes] = field(default_factory=dict)
    troubles: dict[str, Trouble] = field(default_factory=dict)
    posts: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    strong_etags: bool = True
    content_md5: bool = False
    last_modified: str | None = None
    release: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def trouble(self, path: str) -> Trouble:
        return self.troubles.setdefault(path, Trouble())


@contextmanager
def file_host() -> Iterator[FileHost]:
    host = FileHost()
    handler = type("Handler", (_Handler,), {"host": host})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    host.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        host.release.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    host: FileHost

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = self.host.posts.get(self.path)
        self.host.requests.append((self.path, None))
        if body is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return None

    def do_GET(self) -> None:
        host, path = self.host, self.path
        host.requests.append((path, self.headers.get("Range")))
        trouble = host.trouble(path)
        if trouble.statuses:
            return self.send_error(trouble.statuses.pop(0))
        if path not in host.files:
            return self.send_error(404)
        body = host.files[path]
        etag = f'"{hashlib.md5(body).hexdigest()}"' if host.strong_etags else 'W/"1"'
        if self.headers.get("If-None-Match") == etag:
            self.send_response(304)
            self.end_headers()
            return None
        start = self._start(etag)
        self._answer(body, start, etag, trouble)
        return None

    def do_HEAD(self) -> None:
        body = self.host.files.get(self.path)
        self.host.requests.append((self.path, None))
        if body is None:
            return self.send_error(404)
        self._heads(body, f'"{hashlib.md5(body).hexdigest()}"')
        return None

    def _heads(self, body: bytes, etag: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", etag)
        if self.host.last_modified:
            self.send_header("Last-Modified", self.host.last_modified)
        self.end_headers()

    def _start(self, etag: str) -> int:
        wanted = self.headers.get("Range")
        if wanted is None or self.headers.get("If-Range") != etag:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _answer(self, body: bytes, start: int, etag: str, trouble: Trouble) -> None:
        part = body[start:]
        wrong = trouble.wrong_md5 > 0
        trouble.wrong_md5 -= wrong
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{"0" * 32}"' if wrong else etag)
        if self.host.content_md5:
            digest = hashlib.md5(b"other" if wrong else part).digest()
            self.send_header("Content-MD5", base64.b64encode(digest).decode())
        if self.host.last_modified:
            self.send_header("Last-Modified", self.host.last_modified)
        self.end_headers()
        if trouble.stall_after is not None:
            self.wfile.write(part[: trouble.stall_after])
            self.wfile.flush()
            trouble.stall_after = None
            self.host.stalled.set()
            self.host.release.wait(60)
            return
        if trouble.cut_after:
            part = part[: trouble.cut_after.pop(0)]
        self.wfile.write(part)
