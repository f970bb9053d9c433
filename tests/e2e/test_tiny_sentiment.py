"""The real twin of the RoBERTa examples: really trained, better than its base, compared with a linear probe."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/tiny-sentiment"
STEM_LETTERS = 5

pytestmark = pytest.mark.train


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (EXAMPLE / name).read_text().splitlines()]


def stems(name: str) -> set[str]:
    """Beginnings of the words that stand in the sentences."""
    sentences = ("the service was ", "i found the product ", "my review: ", " experience overall")
    texts = (row["text"] for row in rows(name))
    return {
        next(text.replace(part, "") for part in sentences if part in text)[:STEM_LETTERS] for text in texts
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The example with its base from the installed package."""
    for path in EXAMPLE.glob("*.*"):
        shutil.copy(path, tmp_path / path.name)
    subprocess.run([sys.executable, tmp_path / "make_base.py"], check=True)
    return tmp_path


def train(home: Path, limit_s: float = 550) -> dict[str, Any]:
    """Metrics of the finished run by name."""
    environment = {**os.environ, "PLAN_HOME": str(home / "plan"), "OMP_NUM_THREADS": "1"}
    plan = str(Path(sys.executable).with_name("plan"))
    words = [plan, "launch", str(home / "spec.yaml"), "--infra", "local", "--run-id", "words", "--yes"]
    subprocess.run([*words, "--wait"], env=environment, check=True, capture_output=True, timeout=limit_s)
    report = [plan, "report", "words", "-o", "json"]
    answer = subprocess.run(report, env=environment, check=True, capture_output=True)
    return {row["name"]: row for row in json.loads(answer.stdout)["metrics"]}


def test_no_held_out_word_begins_like_one_that_is_learned() -> None:
    assert len(rows("eval.jsonl")) == 1069
    assert stems("train.jsonl").isdisjoint(stems("eval.jsonl"))


@pytest.mark.long
def test_the_real_encoder_trains_here(home: Path) -> None:
    spec = (home / "spec.yaml").read_text()
    assert "steps: 200" in spec
    (home / "spec.yaml").write_text(spec.replace("steps: 200", "steps: 24"))
    held_out = (home / "eval.jsonl").read_text().splitlines(keepends=True)
    (home / "eval.jsonl").write_text("".join(held_out[::10]))
    loss = train(home)["loss"]
    assert loss["tuned"] < 0.95 * loss["base"]


@pytest.mark.long
def test_it_beats_its_base_by_far_and_is_no_worse_than_a_linear_probe(home: Path) -> None:
    accuracy = train(home, limit_s=7200)["accuracy"]
    assert accuracy["base"] < 0.7 and accuracy["tuned"] > 0.91
    spec = importlib.util.spec_from_file_location("linear_probe", home / "linear_probe.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    probe = module.accuracy(home / "base")
    assert probe == pytest.approx(0.924, abs=0.01)
    assert accuracy["tuned"] > probe - 0.01
