"""A real server of Azure's blob protocol on loopback: Azurite, from the npm registry."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
# the key that the emulator documents, and that opens nothing else
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "tuneplan"
_START_LIMIT_S = 60.0
_API = "2021-08-06"


def install(root: Path) -> Path:
    """The server's program, installed below `root` once.

    Raises:
        FileNotFoundError: There is no npm.
        subprocess.CalledProcessError: npm cannot install it.
    """
    program = root / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm")
        root.mkdir(parents=True, exist_ok=True)
        subprocess.run([npm, "install", "--silent", "--prefix", str(root), f"azurite@{VERSION}"], check=True)
    return program


@contextmanager
def azurite(program: Path, root: Path) -> Iterator[str]:
    """Start it with one empty container; its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(program), "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    process = subprocess.Popen([*words, "--skipApiVersionCheck"], cwd=root, stdout=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    try:
        _make_container(endpoint, process)
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _make_container(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            urllib.request.urlopen(_request(endpoint), timeout=5).close()
            return
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.1)


def _request(endpoint: str) -> urllib.request.Request:
    """Creates the container; signed as Azure's shared keys sign."""
    date = formatdate(usegmt=True)
    text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{_API}\n"
    text += f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": _API,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        "Content-Length": "0",
    }
    url = f"{endpoint}/{CONTAINER}?restype=container"
    return urllib.request.Request(url, method="PUT", headers=headers)
