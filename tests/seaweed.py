"""A real S3 server on loopback, from the wheel of SeaweedFS."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET = "testkey", "canary-of-a-secret"
BUCKET = "tuneplan"
_PARTS = ("master", "volume", "filer", "s3")
_START_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Seaweed:
    """A running server: its URL, and the login that it takes."""

    endpoint: str
    environment: dict[str, str]


def weed() -> Path:
    """The server's program, which may be missing."""
    return Path(sys.executable).with_name("weed")


@contextmanager
def seaweed(root: Path) -> Iterator[Seaweed]:
    """Start a server that keeps everything below `root`, with one empty bucket; stop it at the end."""
    ports = _free_ports(2 * len(_PARTS))
    (root / "data").mkdir(parents=True)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (root / "s3.json").write_text(json.dumps({"identities": [identity]}))
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(_command(root, ports), stdout=log, stderr=log, cwd=root)
    try:
        endpoint = f"http://127.0.0.1:{ports[_PARTS.index('s3')]}"
        _await_answer(endpoint, process, root / "log")
        _make_bucket(endpoint, process)
        login = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        yield Seaweed(endpoint, {**login, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"})
    finally:
        process.kill()
        process.wait()


def _command(root: Path, ports: list[int]) -> list[str]:
    words = [str(weed()), "-logtostderr=true", "-v=0", "server", f"-dir={root / 'data'}", "-filer", "-s3"]
    words += [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        f"-s3.config={root / 's3.json'}",
    ]
    for index, part in enumerate(_PARTS):
        words += [f"-{part}.port={ports[index]}", f"-{part}.port.grpc={ports[index + len(_PARTS)]}"]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=1000", "-master.volumeSizeLimitMB=64"]
    return [*words, "-volume.preStopSeconds=1"]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _await_answer(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
        except urllib.error.HTTPError:  # it answers, if only with a refusal
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"no S3 server came up: {log.read_text()[-2000:]}")


def _make_bucket(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Also waits until a volume can be written to."""
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.session.Session(KEY, SECRET, region_name="us-east-1").client("s3", endpoint_url=endpoint)
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        except ClientError:
            if time.monotonic() > deadline or process.poll() is not None:
                raise
            time.sleep(0.1)
