"""A Hugging Face Hub on this machine: API, files with ranges, gates, renamed repositories."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "f" * 40


@dataclass
class HostedModel:
    """A repository.

    Attributes:
        files: Name to content; of safetensors files only the beginning is there.
        info: Further keys of the API's answer.
        gate: False, "auto" or "manual"; then files need the token.
        revisions: Branches and tags to commits.
    """

    files: dict[str, bytes]
    info: dict[str, Any] = field(default_factory=dict)
    gate: str | bool = False
    private: bool = False
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, "v1": OLDER})


@dataclass
class HubHost:
    """What the server has and what it was asked."""

    models: dict[str, HostedModel] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    token: str = "hf_secret"
    files_elsewhere: str | None = None
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    meet: threading.Barrier | None = None  # questions wait for each other here
    url: str = ""

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


def safetensors_head(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """The beginning of a safetensors file with such tensors, without their numbers."""
    sizes = {"BF16": 2, "F16": 2, "F32": 4, "I32": 4, "U8": 1, "F8_E4M3": 1}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in tensors.items():
        start = end
        count = 1
        for side in shape:
            count *= side
        end += count * sizes[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@contextmanager
def hub_host(tls: tuple[Path, Path] | None = None) -> Iterator[HubHost]:
    """Serve; with `tls` (certificate, key) over https."""
    host = HubHost()
    handler = type("Handler", (_Handler,), {"host": host})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    host.url = f"{'http' if tls is None else 'https'}://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    host: HubHost

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("http://"):  # asked as a proxy
            path = "/" + path.split("/", 3)[3]
        self.host.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if self.host.statuses:
            return self._refuse(self.host.statuses.pop(0))
        if self.host.meet is not None:
            self.host.meet.wait(60)
        if path.startswith("/api/") and "/tree/" in path:
            return self._refuse(404, "EntryNotFound")
        if path.startswith("/api/"):
            name, _, revision = path.split("/", 3)[3].partition("/revision/")
            return self._api(name, unquote(revision))
        name, _, rest = path.strip("/").removeprefix("datasets/").partition("/resolve/")
        commit, _, file = rest.partition("/")
        return self._file(name, commit, unquote(file))

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.host.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if self.host.statuses:
            return self._refuse(self.host.statuses.pop(0))
        if path == "/api/validate-yaml":
            return self._send(200, b'{"errors": [], "warnings": []}')
        if self.headers.get("Authorization") != f"Bearer {self.host.token}":
            return self._refuse(401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        name, _, rest = path.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        if rest == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for file in json.loads(body)["files"]]  # fmt: skip
            return self._send(200, json.dumps({"files": files}).encode())
        return self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.host.models
        if not known:
            self.host.models[name] = HostedModel({}, private=asked.get("visibility") == "private")
        self._send(409 if known else 200, json.dumps({"url": f"{self.host.url}/{name}"}).encode())

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                self.host.models[name].files[line["value"]["path"]] = b64decode(line["value"]["content"])
            if line["key"] == "deletedFile":
                del self.host.models[name].files[line["value"]["path"]]
        url = f"{self.host.url}/{name}/commit/{COMMIT}"
        told = {"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None, "success": True}
        self._send(200, json.dumps(told).encode())

    def _api(self, name: str, revision: str) -> None:
        if name in self.host.renamed:
            there = f"/api/models/{self.host.renamed[name]}/revision/{revision}"
            return self._go(307, self.host.url + there)
        model = self._allowed(name, to_files=False)
        if model is None:
            return None
        commit = revision if revision in model.revisions.values() else model.revisions.get(revision or "main")
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        siblings = [{"rfilename": file} for file in model.files]
        body = {
            "id": name,
            "sha": commit,
            "gated": model.gate,
            "private": model.private,
            "siblings": siblings,
        }
        return self._send(200, json.dumps({**body, **model.info}).encode())

    def _file(self, name: str, commit: str, file: str) -> None:
        model = self._allowed(self.host.renamed.get(name, name), to_files=True)
        if model is None:
            return None
        if file not in model.files:
            named = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": model.revisions.get(commit, commit)}
            return self._send(404, b"{}", named)
        if self.host.files_elsewhere is not None:
            return self._go(302, f"{self.host.files_elsewhere}{self.path}")
        content = model.files[file]
        asked = self.headers.get("Range")
        known = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": model.revisions.get(commit, commit),
        }
        if asked is None:
            return self._send(200, content, known)
        start, _, end = asked.removeprefix("bytes=").partition("-")
        part = content[int(start) : int(end) + 1 if end else None]
        return self._send(206 if part else 416, part, known)

    def _allowed(self, name: str, *, to_files: bool) -> HostedModel | None:
        model = self.host.models.get(name)
        known = self.headers.get("Authorization") == f"Bearer {self.host.token}"
        if model is None or (model.private and not known):
            self._refuse(404 if known else 401, "RepoNotFound")
            return None
        if to_files and model.gate and not known:
            self._refuse(401, "GatedRepo")
            return None
        return model

    def _refuse(self, status: int, code: str = "") -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _go(self, status: int, url: str) -> None:
        self._send(status, b"", {"Location": url})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
