"""Every example is estimated here; the tiny one is also run, in tests/e2e."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from planner.cli.main import cli

EXAMPLES = Path(__file__).parents[1] / "examples"


def best_of(*words: str) -> dict[str, Any]:
    result = CliRunner(mix_stderr=False).invoke(cli, ["estimate", *words, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    best: dict[str, Any] = json.loads(result.stdout)["candidates"][0]
    return best


def specs() -> list[Path]:
    return sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*/spec.yaml")])


def test_there_are_as_many_examples_as_the_readme_says() -> None:
    names = {path.stem if path.parent == EXAMPLES else path.parent.name for path in specs()}
    assert names == {
        "goat-7b-lora",
        "llama-3.1-8b-lora",
        "llama-3-70b-qlora",
        "roberta-sentiment",
        "tiny-goat",
    }


@pytest.mark.parametrize("path", specs(), ids=lambda path: path.parent.name + "-" + path.stem)
def test_each_says_what_how_and_what_to_expect(path: Path) -> None:
    header = path.read_text(encoding="utf-8").partition("spec_version")[0]
    assert all(word in header for word in ("What", "How", "Expect", "plan "))
    assert "yaml-language-server" in header


def test_support_bot_fits_one_gpu_for_a_few_hours() -> None:
    best = best_of(str(EXAMPLES / "llama-3.1-8b-lora.yaml"))
    assert best["nodes"] == 1 and best["verdict"] == "fits"
    assert best["wall_clock_h"]["p50"] < 8 and float(best["cost_usd"]["p50"]) < 20
    assert best["p_finish_by_deadline"] > 0.9


def test_70b_qlora_needs_more_than_40_gib() -> None:
    spec = str(EXAMPLES / "llama-3-70b-qlora.yaml")
    small = CliRunner(mix_stderr=False).invoke(
        cli, ["estimate", spec, "--gpu", "A100", "--count", "1", "-o", "json"]
    )
    assert small.exit_code == 3
    best = best_of(spec, "--gpu", "A100-80GB", "--count", "1")
    assert best["verdict"] in ("fits", "borderline")
    assert best["memory_gib_per_gpu"]["components"]["weights"] > 33  # 70.6 G parameters in half a byte


def test_roberta_is_cheap_and_small() -> None:
    best = best_of(str(EXAMPLES / "roberta-sentiment.yaml"))
    assert float(best["cost_usd"]["p50"]) < 2
    assert best["memory_gib_per_gpu"]["reserved"] < 24


def test_tiny_goat_is_minutes_on_this_machine() -> None:
    best = best_of(str(EXAMPLES / "tiny-goat" / "spec.yaml"), "--infra", "local")
    assert best["offer"]["market"] == "local"
    assert best["wall_clock_h"]["p50"] < 0.1
