"""Sellers of capacity in processes of their own: AWS is moto with our extension, Google Cloud and Azure are ours.

`python -m tests.capacity.server CONTROL_FILE SELLER` prints its port and serves until stdin closes.
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
    seller: str = "aws"

    @property
    def environment(self) -> dict[str, str]:
        return {"aws": self._aws, "google": self._google, "azure": self._azure}[self.seller]

    @property
    def _google(self) -> dict[str, str]:
        """As gcloud names them."""
        return {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE": self.url,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER": self.url,
            "CLOUDSDK_AUTH_ACCESS_TOKEN": "test",
            "GOOGLE_CLOUD_PROJECT": "tests",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def _azure(self) -> dict[str, str]:
        return {
            "AZURE_RESOURCE_MANAGER_URL": self.url,
            "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000001",
            "AZURE_DEFAULTS_GROUP": "tuning",
            "NO_PROXY": "127.0.0.1",
        }

    @property
    def _aws(self) -> dict[str, str]:
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

    def orders(self) -> dict[str, Any]:
        """What was ordered."""
        found: dict[str, Any] = json.loads(self.control.read_text())
        return found

    def sold(self, token: str) -> list[dict[str, Any]]:
        """What was really sold with a token, from the server's journal."""
        journal = self.control.with_suffix(".journal")
        lines = journal.read_text().splitlines() if journal.exists() else []
        rows = [json.loads(line) for line in lines]
        return [row for row in rows if row["token"] == token]

    def exchanges(self) -> list[dict[str, Any]]:
        """What was asked and answered, each with method, path, query, body, status and answer; not of AWS's."""
        log = self.control.with_suffix(".exchanges")
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def capacity_server(folder: Path, seller: str = "aws") -> Iterator[Capacity]:
    """Start one and end it."""
    control = folder / "control.json"
    with (folder / "server.log").open("w") as log:
        process = _start(control, log, seller)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield Capacity(f"http://127.0.0.1:{port}", control, seller)
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(10)
        process.stdout.close()


def _start(control: Path, log: IO[str], seller: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.capacity.server", str(control), seller],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
    )


def _serve(control: Path, seller: str) -> None:
    if seller != "aws":
        from tests.capacity import azure, google

        {"google": google, "azure": azure}[seller].serve(control)
        return
    from moto.server import ThreadedMotoServer

    from tests.capacity import ec2, sagemaker

    ec2.install(control)
    sagemaker.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2])
