"""The wheel by itself: built, installed in an empty environment, and the whole chain run from it in an empty directory.

`make wheel-check` runs this; it installs everything that training needs, which takes minutes and the network.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.workers import eventually

ROOT = Path(__file__).parents[2]
GOAT = ROOT / "examples" / "tiny-goat"
LOCK = ROOT / "requirements.lock"

pytestmark = pytest.mark.long


class Installed:
    """`plan` of an environment that has the wheel and what it asks for, and nothing else."""

    def __init__(self, environment: Path, place: Path) -> None:
        self.python = environment / "bin" / "python"
        self.place = place

    def plan(self, *words: object, code: int = 0) -> str:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PLAN_", "COV"))
        }
        result = subprocess.run(
            [self.python.with_name("plan"), *map(str, words)],
            cwd=self.place,
            env={**kept, "PLAN_HOME": str(self.place / "home"), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == code, (words, result.stdout, result.stderr)
        return result.stdout

    def answer(self, *words: object, code: int = 0) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.plan(*words, "-o", "json", code=code))
        return document


def called(*words: object) -> None:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, (words, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    called(sys.executable, "-m", "build", "--outdir", out)
    assert len(list(out.glob("*.tar.gz"))) == 1
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """torch by pip, as `make venv` does: a machine that offers its own build to pip gets that one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    torch = next(line for line in LOCK.read_text().splitlines() if line.startswith("torch=="))
    called(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", torch)
    uv = Path(sys.executable).with_name("uv")
    called(uv, "pip", "install", "--quiet", "--python", python, "--constraint", LOCK, f"{wheel}[train]")
    return Installed(environment, tmp_path_factory.mktemp("empty"))


def test_the_wheel_holds_the_packages_and_their_data_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "planner",
        "jobs",
        "providers",
        "tuneplan",
    }
    tracked = subprocess.run(
        ["git", "ls-files", "planner", "jobs", "providers"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(tracked) <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_the_whole_chain_in_an_empty_directory(installed: Installed) -> None:
    place = installed.place
    assert "planner" in str(subprocess.run(
        [installed.python, "-c", "import planner; print(planner.__file__)"], cwd=place, capture_output=True, text=True
    ).stdout) and not list(place.iterdir())  # fmt: skip
    installed.plan("init", "first.yaml", "--yes")
    assert installed.answer("estimate", "first.yaml")["candidates"]
    assert installed.answer("doctor")["worst"] != "blocking"
    shutil.copytree(GOAT, place / "goat", ignore=shutil.ignore_patterns("*.py"))
    spec = place / "goat" / "spec.yaml"
    text = spec.read_text().replace("steps: 600", "steps: 300").replace("every: 100 steps", "every: 50 steps")
    spec.write_text(text)
    assert installed.answer("estimate", spec, "--infra", "local")["recommended"] is not None

    def run() -> dict[str, Any]:
        found: dict[str, Any] = installed.answer("status", "goat-1")["run"]
        return found

    installed.plan("launch", spec, "--infra", "local", "--run-id", "goat-1", "--no-cap", "--yes")
    eventually(lambda: run()["last_checkpoint"] is not None, limit_s=600)
    for pid in run()["pids"]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: run()["state"] == "preempted", limit_s=60)
    killed_at = run()["last_checkpoint"]["step"]
    installed.plan("resume", "goat-1", "--yes")
    installed.plan("wait", "goat-1")
    done = run()
    assert (done["state"], done["recoveries"], done["step"]) == ("succeeded", 1, 300)
    assert done["attempts"][1]["first_step"] >= killed_at > 0
    report = installed.answer("report", "goat-1")
    (metric,) = (row for row in report["metrics"] if row["name"] == "exact_match")
    assert metric["tuned"] > metric["base"]
    installed.plan("pull", "goat-1", "--to", "model")
    assert (place / "model" / "adapter_model.safetensors").stat().st_size > 0
