from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text

RunPlan = Callable[..., Result]
LLAMA = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-lora.yaml"
ASK = ("deadline", LLAMA, "--gpu", "H100", "--count", "1", "--jobs", "20")


@pytest.fixture
def ask(run_plan: RunPlan) -> Callable[..., Result]:
    return lambda *words: run_plan(*ASK, *words)


def test_backwards_from_the_date(ask: Callable[..., Result], run_plan: RunPlan) -> None:
    result = ask("-o", "json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    jsonschema.validate(answer, json.loads(schema_text("deadline")))
    ways = {way["way"]: way for way in answer["ways"]}
    assert set(ways) == {"on_demand", "spot", "fastest"}
    for way in ways.values():
        assert way["latest_start_h"] == pytest.approx(24 - way["finish_h"]["p90"])
    assert float(ways[answer["chosen"]]["mean_cost_usd"]) == min(
        float(w["mean_cost_usd"]) for w in ways.values()
    )
    mixes = answer["start_delays"]
    assert mixes[0]["delay_h"] == 0 and all(row["p_in_time"] == 1 for row in mixes)
    assert float(mixes[0]["mean_cost_usd"]) < float(ways["on_demand"]["mean_cost_usd"])
    parts = {row["part"]: row for row in answer["time_to_model"]}
    finish = ways[answer["chosen"]]["finish_h"]["p50"]
    assert sum(row["hours"] for row in parts.values()) == pytest.approx(finish, rel=0.05)
    assert all(row["saves_h"] >= 0 for row in parts.values())
    assert answer["chosen"] == "spot"  # then waiting and lost work are cut by the same machine on demand
    steady_usd = float(ways["on_demand"]["mean_cost_usd"]) - float(ways["spot"]["mean_cost_usd"])
    for cut in ("waiting", "lost work"):
        assert float(parts[cut]["extra_usd"]) == pytest.approx(steady_usd, abs=0.01)


def test_the_arrow_of_the_way_to_take_is_explained(ask: Callable[..., Result]) -> None:
    lines = ask().stdout.splitlines()
    heads, *ways = lines[2:6]
    assert all(line[heads.index("where") :].startswith("1 x ") for line in ways)
    assert sum(" UTC -> 1 x " in line for line in ways) == 1
    assert any(line.startswith("-> the cheapest that is in time in 90% of cases") for line in lines)


def test_the_arrow_says_what_it_stands_for_where_no_way_is_sure(ask: Callable[..., Result]) -> None:
    """With little time the likeliest, with too little the earliest; then no wait that may not happen is cut first."""
    legends = {
        within: next(line for line in ask("--within", within).stdout.splitlines() if line.startswith("-> "))
        for within in ("24h", "2h", "50m")
    }
    assert legends["24h"] == "-> the cheapest that is in time in 90% of cases"
    assert legends["2h"].startswith("-> none is in time in 90% of cases: the likeliest")
    assert legends["50m"].startswith("-> none has an even chance: the earliest by its p50")
    assert "\ncut training first" in ask("--within", "50m").stdout


def test_where_spot_alone_is_sure_the_mix_is_said_not_to_be_needed(ask: Callable[..., Result]) -> None:
    assert (
        "it is not needed: the way with the arrow is sure enough by itself" in ask("--within", "24h").stdout
    )


def test_a_date_that_is_too_soon_names_the_nearest(ask: Callable[..., Result]) -> None:
    result = ask("--within", "20m")
    assert result.exit_code == 9
    assert "was earlier" in result.stdout and "no mix" in result.stdout
    assert "not possible by" in result.stderr and "the nearest date is" in result.stderr
    answer = json.loads(ask("--within", "20m", "-o", "json").stdout)
    assert answer["possible"] is False and answer["nearest_at"]["p90"] > answer["deadline_at"]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Days of work for one machine, hours for several."""
    spec = tmp_path / "large.yaml"
    spec.write_text(
        "name: x\nmodel: meta-llama/Llama-3.1-70B\nmethod: {kind: full}\n"
        "data: {samples: 500000, tokens_per_sample: 1000}\n"
        "train: {sequence_length: 2048, packing: true, global_batch: 64, epochs: 2}\n"
    )
    return spec


def test_a_date_that_more_machines_keep_names_the_fewest_that_do(run_plan: RunPlan, large: Path) -> None:
    words = ("deadline", large, "--within", "12h", "--jobs", "20")
    refused = run_plan(*words)
    assert refused.exit_code == 9
    answer = json.loads(run_plan(*words, "-o", "json").stdout)
    jsonschema.validate(answer, json.loads(schema_text("deadline")))
    assert answer["possible"] is False and all(way["p_in_time"] < 0.1 for way in answer["ways"])
    more = answer["more_machines"]
    assert more["p_in_time"] >= 0.9 and more["set"] == {"where.nodes": f"1..{more['nodes']}"}
    assert f"`where.nodes: 1..{more['nodes']}` would be in time" in refused.stderr
    training = next(part for part in answer["time_to_model"] if part["part"] == "training")
    assert training["cut"] == more["where"] and "cut training first" in refused.stdout
    allowed = large.with_name("allowed.yaml")
    allowed.write_text(large.read_text() + f"where: {{nodes: 1..{more['nodes']}}}\n")
    met = run_plan("deadline", allowed, *words[2:], "-o", "json")
    assert met.exit_code == 0 and json.loads(met.stdout)["more_machines"] is None
    fewer = large.with_name("fewer.yaml")
    fewer.write_text(large.read_text() + f"where: {{nodes: 1..{more['nodes'] // 2}}}\n")
    best = max(
        way["p_in_time"]
        for way in json.loads(run_plan("deadline", fewer, *words[2:], "-o", "json").stdout)["ways"]
    )
    assert best < 0.9


def test_ways_that_are_all_too_late_are_the_earliest_and_more_choice_makes_none_worse(
    run_plan: RunPlan, large: Path
) -> None:
    def ways(nodes: str) -> dict[str, tuple[float, float]]:
        spec = large.with_name(f"{nodes}.yaml")
        spec.write_text(large.read_text() + f"where: {{nodes: {nodes}}}\n")
        answer = json.loads(run_plan("deadline", spec, "--within", "4h", "--jobs", "20", "-o", "json").stdout)
        return {way["way"]: (way["finish_h"]["p50"], way["p_in_time"]) for way in answer["ways"]}

    one, several = ways("1"), ways("1..8")
    for name in ("on_demand", "spot"):
        assert several[name][0] <= 1.02 * one[name][0] or several[name][1] > one[name][1] + 0.05


def test_a_budget_that_is_too_small_names_what_is_needed(run_plan: RunPlan, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(LLAMA.read_text().replace("60usd", "1usd"))
    words = ("deadline", spec, "--gpu", "H100", "--count", "1", "--jobs", "20")
    result = run_plan(*words)
    assert result.exit_code == 5
    assert "being in time costs about $" in result.stderr and "budget" in result.stderr


def test_the_mix_is_what_being_in_time_costs_where_spot_alone_is_unsure(
    run_plan: RunPlan, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(LLAMA.read_text().replace("60usd", "1usd"))
    words = ("deadline", spec, "--gpu", "H100", "--count", "1", "--jobs", "40", "--within", "125m")
    answer = json.loads(run_plan(*words, "-o", "json").stdout)
    jsonschema.validate(answer, json.loads(schema_text("deadline")))
    mix, now = answer["mix"], answer["start_delays"][0]
    on_demand = next(way for way in answer["ways"] if way["way"] == "on_demand")
    assert answer["chosen"] == "on_demand"
    assert mix["is_best"] and "spot in" in mix["spot"] and "on-demand in" in mix["on_demand"]
    assert now["p_in_time"] >= 0.9
    assert answer["needed_usd"] == now["mean_cost_usd"]
    assert float(answer["needed_usd"]) < float(on_demand["mean_cost_usd"])
    spec.write_text(LLAMA.read_text().replace("60usd", f"{float(on_demand['mean_cost_usd']) - 0.1:.2f}usd"))
    enough = run_plan(*words)  # for the mix, not for on-demand
    assert enough.exit_code == 0 and "the mix is the cheapest that is in time" in enough.stdout


def test_what_is_asked_wrongly(ask: Callable[..., Result], run_plan: RunPlan, tmp_path: Path) -> None:
    assert ask("--by", "soon").exit_code == 2
    assert ask("--by", "2027-01-01", "--within", "3h").exit_code == 2
    spec = tmp_path / "spec.yaml"
    goal = "within: 24h"
    assert goal in LLAMA.read_text()
    text = (
        LLAMA.read_text().replace(goal, "").replace("objective: cheapest_by_deadline", "objective: cheapest")
    )
    spec.write_text(text)
    refused = run_plan("deadline", spec)
    assert refused.exit_code == 2 and "no date to plan for" in refused.stderr


def test_a_job_of_millennia_has_an_answer(run_plan: RunPlan, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why", "completion": "because"}\n' * 100)
    spec.write_text(
        "name: x\nmodel: llama-3.1-405b\ndata: {train: rows.jsonl}\ntrain: {steps: 1000000000000}\n"
    )
    result = run_plan("deadline", spec, "--within", "3d", "--jobs", "20")
    assert result.exit_code == 9, result.stderr
    assert "not possible by" in result.stderr
