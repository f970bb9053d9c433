"""Servers of several clouds on this machine that answer as the real ones do, and note what they were asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Asked:
    """One request."""

    method: str
    path: str
    authorization: str | None
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


Answer = tuple[int, Any] | Callable[[Asked], tuple[int, Any]]


@dataclass
class Advisers:
    """Answers by the beginning of the path."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        for beginning, answer in self.answers.items():
            if asked.path.startswith(beginning):
                return answer(asked) if callable(answer) else answer
        return 404, {"error": asked.path}


@contextmanager
def advisers() -> Iterator[Advisers]:
    served = Advisers()
    handler = type("Handler", (_Handler,), {"served": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Advisers

    def log_message(self, *args: object) -> None:
        """Stay quiet."""

    def _reply(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        text = self.rfile.read(size).decode()
        asked = Asked(self.command, self.path, self.headers.get("Authorization"), text)
        status, value = self.served.answer(asked)
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()
