"""Google Cloud Storage on loopback, as far as its XML API is published and obstore speaks it.

A real emulator that takes uploads over the XML API comes in no package; this keeps to the documented conditions
(`x-goog-if-generation-match`), headers and multipart uploads, and holds everything in memory.
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "tuneplan"
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_PAGE = 3  # objects of one listing: every test lists more than a page


@dataclass(frozen=True, slots=True)
class Stored:
    body: bytes
    generation: int
    metadata: dict[str, str]


@dataclass
class GcsHost:
    """The server's state; `url` is where it answers."""

    url: str = ""
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, tuple[dict[str, str], dict[int, bytes]]] = field(default_factory=dict)
    heeds_conditions: bool = True
    lose_answers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _generation: int = 1_700_000_000_000_000

    def write(self, name: str, body: bytes, metadata: dict[str, str], condition: str | None) -> Stored | None:
        """What is stored now, None if the condition does not hold."""
        with self.lock:
            there = self.objects.get(name)
            now = str(there.generation) if there else "0"
            if condition is not None and condition != now and self.heeds_conditions:
                return None
            self._generation += 1
            self.objects[name] = Stored(body, self._generation, metadata)
            return self.objects[name]


@contextmanager
def gcs_host() -> Iterator[GcsHost]:
    """Start it; stop it at the end."""
    host = GcsHost()

    class Handler(_Handler):
        state = host

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: GcsHost

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""

    def _asked(self) -> tuple[str, str, dict[str, str], bytes]:
        """Bucket, object, query, body."""
        parts = urlsplit(self.path)
        bucket, _, name = parts.path.lstrip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return bucket, unquote(name), query, body

    def do_GET(self) -> None:
        bucket, name, query, _ = self._asked()
        if bucket != BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not name:
            self._list(query)
        elif (found := self.state.objects.get(name)) is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif (wanted := _RANGE.fullmatch(self.headers.get("Range", ""))) is not None:
            first, last = int(wanted[1]), min(int(wanted[2]), len(found.body) - 1)
            where = {"Content-Range": f"bytes {first}-{last}/{len(found.body)}"}
            self._answer(206, found.body[first : last + 1], _headers(found) | where)
        else:
            self._answer(200, found.body, _headers(found))

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        bucket, name, query, body = self._asked()
        if bucket != BUCKET:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif "uploadId" in query:
            self.state.uploads[query["uploadId"]][1][int(query["partNumber"])] = body
            self._answer(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        else:
            self._stored(self.state.write(name, body, self._metadata(), self._condition()))

    def do_POST(self) -> None:
        _, name, query, _ = self._asked()
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self.state.uploads[upload] = (self._metadata(), {})
            text = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            self._answer(200, text.encode())
            return
        metadata, parts = self.state.uploads.pop(query["uploadId"])
        found = self.state.write(name, b"".join(body for _, body in sorted(parts.items())), metadata, None)
        assert found is not None
        text = f"<CompleteMultipartUploadResult><ETag>{_headers(found)['ETag']}</ETag></CompleteMultipartUploadResult>"
        self._answer(200, text.encode(), _headers(found))

    def do_DELETE(self) -> None:
        _, name, _, _ = self._asked()
        self._answer(404 if self.state.objects.pop(name, None) is None else 204, b"")

    def _condition(self) -> str | None:
        return self.headers.get("x-goog-if-generation-match")

    def _metadata(self) -> dict[str, str]:
        return {key: value for key, value in self.headers.items() if key.lower().startswith("x-goog-meta-")}

    def _stored(self, found: Stored | None) -> None:
        if self.state.lose_answers and found is not None:
            self.state.lose_answers -= 1
            self.close_connection = True
        elif found is None:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            self._answer(200, b"", _headers(found))

    def _list(self, query: dict[str, str]) -> None:
        after = query.get("continuation-token", "")
        names = [n for n in sorted(self.state.objects) if n.startswith(query.get("prefix", "")) and n > after]
        rows = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.state.objects[name].body)}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
            for name in names[:_PAGE]
        )
        more = (
            f"<NextContinuationToken>{escape(names[_PAGE - 1])}</NextContinuationToken>"
            if names[_PAGE:]
            else ""
        )
        self._answer(200, f"<ListBucketResult>{rows}{more}</ListBucketResult>".encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _headers(found: Stored) -> dict[str, str]:
    return {
        "ETag": f'"{hashlib.md5(found.body).hexdigest()}"',
        "x-goog-generation": str(found.generation),
        "Last-Modified": formatdate(usegmt=True),
        "Content-Type": "application/octet-stream",
        **found.metadata,
    }
