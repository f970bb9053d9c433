"""What clouds said of their spot machines, from the question to the estimate that it moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.runs import utc_text
from planner.signal_book import keep_signals
from planner.spot_signals import Said
from tests.file_host import file_host

Run = Callable[..., Result]
SPEC = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-lora.yaml"
UNIT = "share of machines interrupted in the month before, a band"


def estimated(run_plan: Run, *words: str) -> list[dict[str, Any]]:
    result = run_plan("estimate", SPEC, "--market", "spot", "--limit", "0", "-o", "json", *words)
    document = json.loads(result.stdout)
    jsonschema.Draft7Validator(json.loads(schema_text("estimate"))).validate(document)
    return [row for row in document["candidates"] if row["offer"]["cloud"] == "aws"]


def test_a_signal_moves_its_own_machines_and_says_so(run_plan: Run, plan_home: Path) -> None:
    before = {row["id"]: row for row in estimated(run_plan)}
    assert all((row["risk"]["signals_factor"], row["risk"]["signals"]) == (1, []) for row in before.values())
    first = next(iter(before.values()))
    region, machine = first["offer"]["region"], first["offer"]["instance_type"]
    at = datetime.now(UTC) - timedelta(days=3)
    said = Said("aws", region, None, machine, None, "interruption_band", "<5%", UNIT, "AWS", utc_text(at))
    keep_signals(plan_home / "cache", [said], at)
    after = {row["id"]: row for row in estimated(run_plan)}
    assert after.keys() == before.keys()
    for key, row in after.items():
        named = (row["offer"]["region"], row["offer"]["instance_type"]) == (region, machine)
        risk, was = row["risk"], before[key]["risk"]
        if named:
            assert risk["interruptions"] < was["interruptions"] and 0.7 < risk["signals_factor"] < 0.8
            assert [(one["kind"], one["value"], one["as_of_at"]) for one in risk["signals"]] == [
                ("interruption_band", "<5%", utc_text(at))
            ]
        else:
            assert risk == was
    text = run_plan("estimate", SPEC, "--market", "spot", "--limit", "0", "--explain", first["id"]).stdout
    assert "interruption band" in text and "age 3 d" in text and "[AWS]" in text


def test_without_any_the_prior_stays_and_the_explanation_says_how_to_ask(run_plan: Run) -> None:
    first = estimated(run_plan)[0]["id"]
    text = run_plan("estimate", SPEC, "--market", "spot", "--limit", "0", "--explain", first).stdout
    assert "none is known of this machine: the prior stays" in text and "plan prices refresh" in text


def test_what_find_hears_is_kept(
    run_plan: Run, plan_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("providers.web._WAITS_S", ())
    words = ("find", SPEC, "--cloud", "aws", "--limit", "100", "-o", "json")
    offers = [
        row["offer"] for row in json.loads(run_plan(*words, "--offline").stdout)["machines"]
        if row["offer"]["market"] == "spot"
    ]  # fmt: skip
    assert not (plan_home / "cache" / "spot_signals.json").exists()
    advice = {
        "ranges": [{"index": 0, "label": "<5%"}],
        "spot_advisor": {row["region"]: {"Linux": {row["instance_type"]: {"r": 0}}} for row in offers},
    }
    with file_host() as host:
        host.files["/advisor"] = json.dumps(advice).encode()
        assert run_plan(*words, "--url", f"aws-advisor={host.url}/advisor").exit_code == 0
    kept = json.loads((plan_home / "cache" / "spot_signals.json").read_text())["signals"]
    assert {(row["region"], row["instance_type"]) for row in kept} <= {
        (row["region"], row["instance_type"]) for row in offers
    }
    assert kept and {row["value"] for row in kept} == {"<5%"}
