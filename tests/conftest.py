"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from planner.cli.main import cli


@pytest.fixture(autouse=True)
def plan_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep config, state and cache of every test in a directory of its own."""
    home = tmp_path_factory.mktemp("plan-home")
    monkeypatch.setenv("PLAN_HOME", str(home))
    monkeypatch.delenv("PLAN_DEBUG", raising=False)
    return home


@pytest.fixture
def run_plan() -> Callable[..., Result]:
    """Run `plan` in this process: `run_plan("estimate", path, obj=App(...))`; stdout and stderr apart."""

    def run(*args: object, **options: Any) -> Result:
        return CliRunner(mix_stderr=False).invoke(cli, [str(arg) for arg in args], **options)

    return run
