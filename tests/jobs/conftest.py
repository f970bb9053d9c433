"""Real training runs in processes that are forked from one that has everything imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs.runs import Runs
from tests.jobs.zygote import Zygote


@pytest.fixture
def runs(zygote: Zygote, tmp_path: Path) -> Runs:
    return Runs(zygote, tmp_path)
