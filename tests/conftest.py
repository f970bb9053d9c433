"""Fixtures for all tests."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

from planner.cli.main import cli
from tests.capacity.server import Capacity, capacity_server
from tests.jobs.zygote import Zygote
from tests.seaweed import Seaweed, seaweed

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile("tuneplan", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("tuneplan")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--update-golden`: write the texts that tests compare with instead of comparing."""
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/*.txt anew")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes start first, so that no core waits for another's last one (`--no-loadscope-reorder`)."""

    def rank(item: pytest.Item) -> int:
        return 0 if item.get_closest_marker("slurm") else 1 if item.get_closest_marker("train") else 2

    first: dict[Path, int] = {}
    for item in items:
        first[item.path] = min(first.get(item.path, 2), rank(item))
    items.sort(key=lambda item: first[item.path])


def pytest_collection_finish() -> None:
    """What is there before the first test stays: looking for garbage in it took a tenth of the time of all tests."""
    gc.freeze()


@pytest.fixture
def golden(pytestconfig: pytest.Config) -> Callable[[str, str], None]:
    """`golden(name, text)`: the text is that of tests/golden/NAME.txt, to the last character."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if pytestconfig.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        expected = path.read_text(encoding="utf-8")
        lines = unified_diff(expected.splitlines(), text.splitlines(), "golden", "now", lineterm="")
        assert text == expected, "\n".join(lines)

    return check


@pytest.fixture(autouse=True)
def plan_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep config, state and cache of every test in a directory of its own."""
    home = tmp_path_factory.mktemp("plan-home")
    monkeypatch.setenv("PLAN_HOME", str(home))
    monkeypatch.delenv("PLAN_DEBUG", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a test that means the Hub brings its own
    return home


@pytest.fixture
def run_plan() -> Callable[..., Result]:
    """Run `plan` in this process: `run_plan("estimate", path, obj=App(...))`; stdout and stderr apart."""

    def run(*args: object, **options: Any) -> Result:
        return CliRunner(mix_stderr=False).invoke(cli, [str(arg) for arg in args], **options)

    return run


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One S3 server for all tests; use `s3_server`."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3_server(s3_process: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Seaweed:
    """An S3 server, and an environment that leads to it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_MAX_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    return s3_process


@pytest.fixture(scope="session")
def capacity_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capacity]:
    """One AWS that sells capacity, for all tests; use `capacity`."""
    with capacity_server(tmp_path_factory.mktemp("capacity")) as server:
        yield server


@pytest.fixture
def capacity(capacity_process: Capacity, monkeypatch: pytest.MonkeyPatch) -> Capacity:
    """An AWS that sells capacity, nothing ordered to go wrong, and an environment that leads to it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in capacity_process.environment.items():
        monkeypatch.setenv(name, value)
    capacity_process.order()
    return capacity_process


@pytest.fixture(scope="session")
def google_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capacity]:
    """One Google Cloud that sells capacity, for all tests; use `google`."""
    with capacity_server(tmp_path_factory.mktemp("google"), "google") as server:
        yield server


@pytest.fixture
def google(google_process: Capacity, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capacity]:
    """A Google Cloud that sells capacity; what it was asked and said must be what the client library knows."""
    yield from _official(google_process, monkeypatch)


@pytest.fixture(scope="session")
def azure_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capacity]:
    """One Azure that sells capacity, for all tests; use `azure`."""
    with capacity_server(tmp_path_factory.mktemp("azure"), "azure") as server:
        yield server


@pytest.fixture
def azure(azure_process: Capacity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capacity]:
    """An Azure that sells capacity, checked as `google`, and a stand-in for `az` that is logged in."""
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "IDENTITY_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    stand_in = tmp_path / "bin" / "az"
    stand_in.parent.mkdir()
    token = {"accessToken": "test", "expiresOn": "2099-01-01 00:00:00.000000", "tokenType": "Bearer"}
    stand_in.write_text(f"#!/bin/sh\necho '{json.dumps(token)}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    yield from _official(azure_process, monkeypatch)


def _official(server: Capacity, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capacity]:
    """An environment that leads to a server, and a look at everything that was said in the end."""
    from tests.capacity import official

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    server.order()
    before = len(server.exchanges())
    yield server
    {"google": official.check_google, "azure": official.check_azure}[server.seller](
        server.exchanges()[before:]
    )


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """A process that has everything of a training imported."""
    one = Zygote()
    yield one
    one.close()
