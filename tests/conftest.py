"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def plan_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep config, state and cache of every test in a directory of its own."""
    home = tmp_path_factory.mktemp("plan-home")
    monkeypatch.setenv("PLAN_HOME", str(home))
    monkeypatch.delenv("PLAN_DEBUG", raising=False)
    return home
