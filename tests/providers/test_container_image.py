"""Whether an image can be pulled, asked of a registry with Docker's token service, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from planner.permits import unavailable_image
from providers.container_image import Image, why_not_pulled
from providers.errors import StorageError, UsageError

DIGEST = f"sha256:{'a' * 64}"


class Registry:
    """Gives a token to anybody, and shows a manifest to who brings one for its repository."""

    def __init__(self) -> None:
        self.scopes: list[str] = []
        self.broken = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = outer.answer(self.path, self.headers.get("Authorization"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, path: str, secret: str | None) -> tuple[int, dict[str, str], bytes]:
        parts = urlsplit(path)
        if self.broken:
            return 418, {}, b""
        if parts.path == "/token":
            scope = parse_qs(parts.query)["scope"][0]
            self.scopes.append(scope)
            return 200, {}, json.dumps({"token": scope}).encode()
        repository, _, reference = parts.path.removeprefix("/v2/").partition("/manifests/")
        scope = f"repository:{repository}:pull"
        if secret != f"Bearer {scope}":
            realm = f'Bearer realm="http://{self.host}/token",service="here",scope="{scope}"'
            return 401, {"WWW-Authenticate": realm}, b""
        if repository == "lab/closed":
            return 403, {}, b""
        return (200, {}, b"{}") if reference in ("2.8", DIGEST) else (404, {}, b"")


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_an_image_that_is_there_can_be_pulled(registry: Registry) -> None:
    assert why_not_pulled(f"{registry.host}/lab/train:2.8") is None
    assert why_not_pulled(f"docker:{registry.host}/lab/train@{DIGEST}") is None
    assert registry.scopes == ["repository:lab/train:pull"] * 2


@pytest.mark.parametrize(
    ("name", "why"),
    [("lab/train:2.9", "there is no image"), ("lab/train", "no image"), ("lab/closed:2.8", "is private")],
)
def test_one_that_is_not_stands_in_the_way(registry: Registry, name: str, why: str) -> None:
    (finding,) = unavailable_image(f"{registry.host}/{name}")
    assert (finding.code, finding.path) == ("image_missing", "environment.image")
    assert why in finding.message and finding.hint


def test_a_registry_that_cannot_be_asked_is_no_reason_to_wait(registry: Registry) -> None:
    registry.broken = True
    image = f"{registry.host}/lab/train:2.8"
    with pytest.raises(StorageError, match="status 418"):
        why_not_pulled(image)
    assert list(unavailable_image(image)) == list(unavailable_image(None)) == []


@pytest.mark.parametrize("text", ["", "UPPER/case", "a b", "x:../../etc", "ghcr.io/", f"a@sha256:{'g' * 64}"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no name of a container image"):
        Image.of(text)


def test_names_are_read_as_docker_reads_them() -> None:
    assert Image.of("ubuntu:24.04") == Image("registry-1.docker.io", "library/ubuntu", "24.04")
    assert Image.of("nvcr.io/nvidia/pytorch:25.08-py3") == Image("nvcr.io", "nvidia/pytorch", "25.08-py3")
    assert Image.of("localhost:5000/a") == Image("localhost:5000", "a", "latest")
