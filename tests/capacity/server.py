"""The AWS that sells capacity: moto and our extension in a process of their own.

`python -m tests.capacity.server CONTROL_FILE` prints its port and serves until stdin closes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Capacity:
    """A running server."""

    url: str
    control: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    def order(self, **orders: Any) -> None:
        """What happens from now on; replaces what was ordered before."""
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps(orders))
        new.replace(self.control)

    def sold(self, token: str) -> list[dict[str, Any]]:
        """What was really sold with a token, from the server's journal."""
        journal = self.control.with_suffix(".journal")
        lines = journal.read_text().splitlines() if journal.exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if any(tag["Value"] == token for tag in row["tags"])]


@contextmanager
def capacity_server(folder: Path) -> Iterator[Capacity]:
    """Start one and end it."""
    control = folder / "control.json"
    with (folder / "server.log").open("w") as log:
        process = _start(control, log)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield Capacity(f"http://127.0.0.1:{port}", control)
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(10)
        process.stdout.close()


def _start(control: Path, log: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.capacity.server", str(control)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )


def _serve(control: Path) -> None:
    from moto.server import ThreadedMotoServer

    from tests.capacity import ec2

    ec2.install(control)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
