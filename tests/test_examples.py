"""Every example is estimated here; the tiny one is also run, in tests/e2e."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from planner.cli.main import cli

EXAMPLES = Path(__file__).parents[1] / "examples"
README = EXAMPLES.parent / "README.md"


def best_of(*words: str) -> dict[str, Any]:
    result = CliRunner(mix_stderr=False).invoke(cli, ["estimate", *words, "-o", "json"])
    assert result.exit_code == 0, result.stderr
    best: dict[str, Any] = json.loads(result.stdout)["candidates"][0]
    return best


def specs() -> list[Path]:
    return sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("*/spec.yaml")])


def test_there_are_as_many_examples_as_the_readme_says() -> None:
    rows = re.findall(r"^\| \[([^]]+)\]\(examples/", README.read_text(encoding="utf-8"), re.MULTILINE)
    names = {path.stem if path.parent == EXAMPLES else path.parent.name for path in specs()}
    assert names == {
        "goat-7b-lora",
        "llama-3-70b-qlora",
        "llama-3.1-70b-full",
        "llama-3.1-8b-lora",
        "mixtral-8x7b-lora",
        "monthly-support",
        "reward-model",
        "roberta-domain",
        "roberta-sentiment",
        "tiny-goat",
        "tiny-sentiment",
        "zephyr-dpo",
    }
    assert sorted(rows) == sorted(names)


@pytest.mark.parametrize("path", specs(), ids=lambda path: path.parent.name + "-" + path.stem)
def test_each_says_what_how_and_what_to_expect(path: Path) -> None:
    header = path.read_text(encoding="utf-8").partition("spec_version")[0]
    assert all(word in header for word in ("What", "How", "Expect", "plan "))
    assert "yaml-language-server" in header


def expected(path: Path, words: str) -> None:
    """Its header and the README's table say this."""
    header = path.read_text(encoding="utf-8").partition("spec_version")[0]
    row = next(line for line in README.read_text(encoding="utf-8").splitlines() if f"[{path.stem}](" in line)
    assert words in header and words in row


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


def refused(*words: str) -> dict[str, Any]:
    result = CliRunner(mix_stderr=False).invoke(cli, ["estimate", *words, "-o", "json"])
    assert result.exit_code == 3, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_mixtral_does_not_fit_on_one_80_gib_gpu() -> None:
    spec = str(EXAMPLES / "mixtral-8x7b-lora.yaml")
    refused(spec, "--gpu", "A100-80GB", "--count", "1")
    best = best_of(spec, "--gpu", "A100-80GB", "--count", "8")
    weights = best["memory_gib_per_gpu"]["components"]["weights"]
    assert best["parallelism"]["kind"] == "fsdp" and weights == pytest.approx(87.0 / 8, rel=0.01)
    hours = best_of(spec)["wall_clock_h"]
    assert hours["p90"] / hours["p10"] > 4


def test_dpo_holds_no_second_model_with_an_adapter() -> None:
    best = best_of(str(EXAMPLES / "zephyr-dpo.yaml"), "--gpu", "A100-80GB", "--count", "1")
    parts = best["memory_gib_per_gpu"]["components"]
    assert parts["reference_models"] == 0 and parts["weights"] == pytest.approx(13.5, abs=0.1)
    assert best["wall_clock_h"]["p50"] < 24 and float(best["cost_usd"]["p50"]) < 100
    expected(EXAMPLES / "zephyr-dpo.yaml", "48-96 GB GPU for some hours")
    assert 44 <= best_of(str(EXAMPLES / "zephyr-dpo.yaml"))["memory_gib_per_gpu"]["limit"] <= 96


def test_a_reward_model_has_no_logits_to_hold() -> None:
    best = best_of(str(EXAMPLES / "reward-model.yaml"))
    assert best["memory_gib_per_gpu"]["components"]["logits_loss"] < 0.2
    assert best["wall_clock_h"]["p50"] < 24 and float(best["cost_usd"]["p50"]) < 60


def test_domain_adaptation_is_a_dollar() -> None:
    best = best_of(str(EXAMPLES / "roberta-domain.yaml"))
    assert float(best["cost_usd"]["p50"]) < 1 and best["wall_clock_h"]["p50"] < 3


def test_the_monthly_job_keeps_its_limits_and_says_when_it_would_not() -> None:
    spec = str(EXAMPLES / "monthly-support.yaml")
    best = best_of(spec, "--fail-over", "10usd", "--fail-after", "8h")
    assert float(best["cost_usd"]["p90"]) < 10 and best["p_finish_by_deadline"] > 0.9
    result = CliRunner(mix_stderr=False).invoke(cli, ["estimate", spec, "--fail-over", "0.01usd"])
    assert result.exit_code == 5


def test_a_full_70b_needs_several_machines() -> None:
    spec = str(EXAMPLES / "llama-3.1-70b-full.yaml")
    refused(spec, "--gpu", "H100:8", "--nodes", "1")
    best = best_of(spec)
    assert best["nodes"] >= 2 and best["gpus_total"] >= 16 and best["parallelism"]["kind"] == "fsdp"
    expected(EXAMPLES / "llama-3.1-70b-full.yaml", "hundreds to thousands of dollars")
    assert 300 < float(best["cost_usd"]["p50"]) < 5000
    states = best["memory_gib_per_gpu"]["components"]
    assert states["weights"] * best["gpus_total"] == pytest.approx(70.55e9 * 4 / 2**30, rel=0.02)
