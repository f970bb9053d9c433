"""The metadata server of a cloud, on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

GCP_QUIET = {"preempted": "FALSE", "maintenance-event": "NONE"}
EVENTS = "/metadata/scheduledevents"
SPOT = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"


class MetadataServer:
    """Answers for one cloud, with the headers that this cloud insists on; `says` maps paths to bodies.

    Its clock is `behind_s` behind this machine's.
    """

    def __init__(self, cloud: str) -> None:
        self.cloud = cloud
        self.says: dict[str, str] = {}
        self.token = "t1"
        self.asked = 0
        self.broken = False
        self.behind_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                status, body = outer.answer(self.path, dict(self.headers))
                self.send(status, body)

            def do_PUT(self) -> None:
                right = outer.cloud == "aws" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
                self.send(200 if right else 405, outer.token)

            def send(self, status: int, body: str) -> None:
                self.send_response(status)
                if outer.cloud == "gcp":
                    self.send_header("Metadata-Flavor", "Google")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() - outer.behind_s, usegmt=True)

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        lower = {name.lower(): value for name, value in headers.items()}
        allowed = {
            "aws": lower.get("x-aws-ec2-metadata-token") == self.token,
            "gcp": lower.get("metadata-flavor") == "Google",
            "azure": lower.get("metadata") == "true" and "api-version=" in path,
        }
        if self.broken:
            return 500, "out of order"
        if not allowed[self.cloud]:
            return 401 if self.cloud == "aws" else 403, "refused"
        body = self.says.get(urlsplit(path).path)
        return (404, "none") if body is None else (200, body)


@contextmanager
def metadata_server(cloud: str) -> Iterator[MetadataServer]:
    """Start one that has nothing to say yet; stop it at the end."""
    server = MetadataServer(cloud)
    if cloud == "gcp":
        server.says = {f"/computeMetadata/v1/instance/{name}": value for name, value in GCP_QUIET.items()}
    if cloud == "azure":
        server.says = {EVENTS: json.dumps({"DocumentIncarnation": 1, "Events": []})}
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
