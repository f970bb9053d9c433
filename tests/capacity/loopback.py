"""A small HTTP server for JSON interfaces: routes by method and path, every exchange written down."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request."""

    path: re.Match[str]
    query: dict[str, str]
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Said:
    """An answer."""

    answer: dict[str, Any]
    status: int = 200


class LostError(Exception):
    """The connection breaks: what was done stands, nobody hears of it."""


Route = tuple[str, str, Callable[[Asked], Said]]


def serve(control: Path, routes: list[Route]) -> None:
    """Print the port and answer until stdin closes."""
    log, lock = control.with_suffix(".exchanges"), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            said, lost = Said({"error": {"code": 404, "message": "no such thing"}}, 404), False
            try:
                said = _routed(routes, self.command, parts.path, query, body, dict(self.headers)) or said
            except LostError:
                lost = True
            row = {"method": self.command, "path": parts.path, "query": query, "body": body}
            row |= {"status": None if lost else said.status, "answer": None if lost else said.answer}
            with lock, log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if lost:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            text = json.dumps(said.answer).encode() if said.status != 204 else b""
            self.send_response(said.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


def _routed(
    routes: list[Route],
    method: str,
    path: str,
    query: dict[str, str],
    body: dict[str, Any],
    headers: dict[str, str],
) -> Said | None:
    for known, pattern, answer in routes:
        found = re.fullmatch(pattern, path, re.IGNORECASE)
        if known == method and found is not None:
            return answer(Asked(found, query, body, headers))
    return None
