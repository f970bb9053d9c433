"""A machine that gives itself back: with its own rights, and never one that is not what it should be."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from providers import self_release
from providers.self_release import LEFT, bare_environment, can_release, power_off, release
from tests.jobs.metadata_server import metadata_server


def fail(cloud: str) -> None:
    raise AssertionError(f"{cloud}: powered off")


class Ec2:
    """The one request of EC2 that a machine needs, on loopback; it remembers who asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.asked.append((body, self.headers["Authorization"]))
                answer = b"<TerminateInstancesResponse><instancesSet/></TerminateInstancesResponse>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    server = Ec2()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_machine_of_aws_terminates_itself_with_the_keys_of_its_role(
    ec2: Ec2, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)  # as `bare_environment` leaves it
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", ec2.url)
    keys = {
        "Code": "Success",
        "AccessKeyId": "AKIAROLE",
        "SecretAccessKey": "s",
        "Token": "t",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    with metadata_server("aws") as server:
        roles = "/latest/meta-data/iam/security-credentials/"
        server.says = {
            "/latest/meta-data/instance-id": "i-0123",
            "/latest/meta-data/placement/region": "eu-west-1",
            roles: "tuneplan-goat",
            f"{roles}tuneplan-goat": json.dumps(keys),
        }
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        release("aws", os.environ, fail)
    ((body, signed),) = ec2.asked
    assert parse_qs(body)["Action"] == ["TerminateInstances"]
    assert parse_qs(body)["InstanceId.1"] == ["i-0123"]
    assert "Credential=AKIAROLE/" in signed and "/eu-west-1/ec2/" in signed


def test_a_machine_of_aws_that_may_not_is_powered_off(monkeypatch: pytest.MonkeyPatch) -> None:
    off: list[str] = []
    with metadata_server("aws") as server:  # which knows nothing of an instance
        monkeypatch.setattr(self_release, "_METADATA", server.endpoint)
        release("aws", {}, off.append)
        assert off == ["aws"]
        with pytest.raises(ValueError, match="not powered off"):
            release("aws", {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint}, fail)


def test_a_machine_that_is_not_of_the_cloud_is_never_powered_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vendor, told = tmp_path / "sys_vendor", tmp_path / "told"
    for name in ("sudo", "shutdown"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$0 $@" >> {told}\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(self_release, "_VENDOR", vendor)
    vendor.write_text("LENOVO\n")
    with pytest.raises(ValueError, match="LENOVO"):
        power_off("gcp")
    assert not told.exists()
    vendor.write_text("Google\n")
    power_off("gcp")
    assert "-h now" in told.read_text()


def test_a_pod_removes_itself_with_the_seller_s_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    (tmp_path / "runpodctl").write_text(f'#!/bin/sh\necho "$@ $RUNPOD_API_KEY" > {told}\n')
    (tmp_path / "runpodctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    environ = {"RUNPOD_POD_ID": "p1", "RUNPOD_API_KEY": "k", "PATH": os.environ["PATH"]}
    release("runpod", environ, fail)
    assert told.read_text() == "remove pod p1 k\n"
    first = tmp_path / "environ"  # the seller's own, where a worker was given another of the same name
    first.write_text("A=b\0RUNPOD_API_KEY=own\0")
    monkeypatch.setattr(self_release, "_FIRST_PROCESS", first)
    release("runpod", environ, fail)
    assert told.read_text() == "remove pod p1 own\n"


@pytest.mark.parametrize("cloud", ["slurm", "azure", "lambda", "", "kubernetes"])
def test_elsewhere_it_says_that_it_cannot(cloud: str) -> None:
    assert not can_release(cloud)
    with pytest.raises(ValueError, match="cannot give itself back"):
        release(cloud, {}, fail)


def test_it_uses_nothing_that_was_given_to_the_worker() -> None:
    given = {"AWS_ACCESS_KEY_ID": "bucket", "AWS_SESSION_TOKEN": "t", "HOME": "/root"}
    assert bare_environment(given) == {"HOME": "/root"}
    assert set(LEFT) == {"aws", "gcp", "runpod", "vast"}
