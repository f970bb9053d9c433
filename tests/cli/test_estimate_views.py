"""`plan estimate --explain`, `--why` and `--plot -`: texts of fixed numbers, and whole commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result

from planner.candidates import Candidate, CandidateMemory
from planner.cli.estimate_plot import plot_estimate
from planner.cli.estimate_table import render_estimate, render_job
from planner.cli.explain_text import render_explanation
from planner.cli.terminal_plot import plot_in_terminal
from planner.cli.why_text import render_changes, render_rejected
from planner.estimate import Estimate, Rejection, build_estimate
from planner.explain import Explanation, Section, Term
from planner.lengths import Lengths
from planner.quantiles import Quantiles
from planner.setup import Parallelism
from planner.whatif import WhatIf
from tests.planner.factories import offer_of, question_of, snapshot_of, spec_of

RunPlan = Callable[..., Result]
Golden = Callable[[str, str], None]
EXAMPLES = Path(__file__).parents[2] / "examples"
LLAMA = EXAMPLES / "llama-3.1-8b-lora.yaml"
SCHEMA = json.loads((Path(__file__).parents[2] / "planner" / "schemas" / "estimate.json").read_text())


def around(value: float) -> Quantiles:
    return Quantiles(value / 2, value, value * 2)


def candidate_of(rank: int = 1, cost: float = 4.0, hours: float = 2.0, **fields: Any) -> Candidate:
    return Candidate(
        candidate_id=f"c-{rank:010d}",
        rank=rank,
        offer=fields.pop("offer", offer_of()),
        nodes=fields.pop("nodes", 1),
        parallelism=Parallelism(),
        micro_batch=4,
        grad_accum=4,
        gradient_checkpointing=True,
        verdict=fields.pop("verdict", "fits"),
        memory=CandidateMemory(20.0, 22.0, 23.0, 29.0, 79.0, {"weights": 15.0, "activations": 8.0}),
        host_ram_gib=32.0,
        disk_gib=50.0,
        step_time_s=around(3.0),
        tokens_per_s_total=around(9000.0),
        wall_clock_h=around(hours),
        gpu_hours=around(hours),
        cost_usd=around(cost),
        cost_tree_usd={"compute": cost, "egress": None},
        **{"pareto": True, **fields},
    )


def estimate_of(*candidates: Candidate, **goal: Any) -> Estimate:
    question = question_of(goal=goal)
    return build_estimate(question, snapshot_of(offer_of()))._replace(candidates=candidates)


def test_terms_as_text(golden: Golden) -> None:
    terms = (
        Term("weights", 14.957, "GiB", "parameters x bytes of one", {"bytes": 2.0, "shards": 1}),
        Term("egress", None, "USD", "unknown until the place of the checkpoints is"),
        Term(
            "compute",
            12.5,
            "USD",
            "hours x price",
            {"USD/h": None},
            source="price list",
            interval=around(12.5),
        ),
        Term(
            "verdict",
            "fits",
            "",
            "a formula that is long enough to need a second line of text " * 3,
            error="none",
        ),
    )
    total = Term("total", 8_030_261_248, "", "sum")
    section = Section(
        "any", "all kinds of terms", "a source", terms, total, (Term("note", 0.00012, "h", "why"),)
    )
    golden("explain", render_explanation(Explanation(candidate_of(), (section,)), 100) + "\n")


def test_changes_and_reasons_as_text(golden: Golden) -> None:
    rows = [
        WhatIf({"train.packing": True}, candidate_of(), -1.25, -0.5, 12.0, "changes what is learned"),
        WhatIf({"method.kind": "qlora", "quantization": None}, candidate_of(nodes=2), 0.5, 1.0, -10.0),
        WhatIf({"where.market": ["spot", "on_demand"]}, candidate_of(), -2.0, 0.0, 0.0),
    ]
    rejected = [Rejection("oom", "1 x T4: too little memory", 1234, offer_of("T4", 1, 0.5))]
    texts = (render_rejected(rejected), render_changes("one change", rows), render_changes("nothing", []))
    golden("why", "\n\n".join(texts) + "\n")


def test_a_machine_short_of_memory_is_tight_and_both_numbers_are_told() -> None:
    offers = snapshot_of(offer_of(count=8, ram_gib=8.0), offer_of("H100", 8, cloud="vast", ram_gib=64.0))
    question = question_of(model="meta-llama/Llama-3.1-70B", method={"kind": "lora", "rank": 8})
    text = render_estimate(build_estimate(question, offers), spec_of(), rows=10, width=400)
    assert text.count("tight") == 2
    assert "needed; 64 GiB stated" in text or "needed; 8 GiB stated" in text
    assert "see the source" not in text and "Vast's catalog" in text


def test_a_model_has_the_name_that_the_spec_gives_it(run_plan: RunPlan, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    name = "meta-llama/Llama-3.1-8B-Instruct"
    spec.write_text(f"name: x\nmodel: {name}\ndata: {{samples: 1000, tokens_per_sample: 1000}}\n")
    said = run_plan("estimate", spec).stdout
    assert f"on {name} (counted as meta-llama/Llama-3.1-8B)\n" in said
    model = json.loads(run_plan("estimate", spec, "-o", "json").stdout)["model"]
    assert (model["id"], model["counted_as"]) == (name, "meta-llama/Llama-3.1-8B")
    spec.write_text(spec.read_text().replace("-Instruct", ""))
    assert "counted as" not in run_plan("estimate", spec).stdout


@pytest.mark.parametrize(
    ("tokens", "text"),
    [(999, "999"), (1_000, "1 k"), (999_600, "1 M"), (1_000_000, "1 M"), (12_345_678, "12.3 M")],
)
def test_a_round_number_has_the_next_unit_and_no_exponent(tokens: int, text: str) -> None:
    estimate = build_estimate(question_of(train={"packing": False, "steps": 1}), snapshot_of(offer_of()))
    rows = Lengths((tokens / estimate.question.job.global_batch,))
    job = estimate.question.job._replace(lengths=rows)
    shown = render_job(estimate._replace(question=estimate.question._replace(job=job)), spec_of())
    assert f", {text} tokens, " in shown


def test_plot_as_text(golden: Golden) -> None:
    candidates = [
        candidate_of(1, 4.0, 8.0),
        candidate_of(2, 9.0, 2.0, offer=offer_of("H100", 8, 20.0, market="spot")),
        candidate_of(3, 20.0, 0.5, nodes=2, offer=offer_of("H200", 8, 30.0)),
        candidate_of(4, 30.0, 4.0, pareto=False),
        candidate_of(5, 12.0, 20.0, pareto=False),
        candidate_of(6, 2.0, 1.0, pareto=False, verdict="borderline"),
    ]
    estimate = estimate_of(*candidates, within="24h", budget="50usd", objective="cheapest_by_deadline")
    golden("plot", plot_in_terminal(estimate, 90) + "\n")


def test_what_may_not_fit_is_drawn_hollow_and_apart(tmp_path: Path) -> None:
    sure, doubtful = candidate_of(1, 4.0, 8.0), candidate_of(2, 2.0, 1.0, pareto=False, verdict="borderline")
    for candidates, front in (((sure, doubtful), 1), ((doubtful,), 0)):
        path = tmp_path / f"{front}.svg"
        plot_estimate(estimate_of(*candidates), "x", path)
        text = path.read_text()
        assert "may not fit their memory" in text
        assert ("no other that surely fits is both cheaper" in text) == bool(front)
        assert "fill: none; stroke:" in text
        in_terminal = plot_in_terminal(estimate_of(*candidates), 80)
        assert "o may not fit their memory" in in_terminal
        assert ("numbered" in in_terminal) == bool(front)
    assert "may not fit" not in plot_in_terminal(estimate_of(sure), 80)


def test_plot_of_what_costs_nothing() -> None:
    text = plot_in_terminal(estimate_of(candidate_of(cost=0.0)), 80)
    assert "$0.00" in text and "  1  " in text
    assert plot_in_terminal(estimate_of(), 80) == "there is no candidate to draw"


def test_a_picture_of_what_costs_nothing_shows_no_money_below_it(tmp_path: Path) -> None:
    path = tmp_path / "free.svg"
    plot_estimate(estimate_of(candidate_of(cost=0.0)), "free", path)
    assert "\N{MINUS SIGN}" not in path.read_text()


def test_plot_keeps_to_the_width_and_to_ascii(run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    result = run_plan("estimate", LLAMA, "--plot", "-", "--limit", "1")
    assert result.exit_code == 0 and result.stdout.isascii()
    plot = result.stdout.partition("total $\n")[2]
    assert "deadline" in plot and "budget" in plot and "\x1b" not in result.stdout
    assert max(len(line) for line in plot.splitlines() if "numbered" not in line) <= 110


@pytest.mark.parametrize(
    "words",
    [["--explain", LLAMA], [LLAMA, "--explain"], [LLAMA, "--explain", "1"], ["--explain=best", LLAMA]],
)
def test_explain_leaves_the_spec_alone(run_plan: RunPlan, words: list[object]) -> None:
    result = run_plan("estimate", *words)
    assert result.exit_code == 0, result.stderr
    for text in (
        "candidate 1 (c-",
        "memory of one GPU",
        "FLOPs a token",
        "interruptions an hour",
        "price of a machine",
    ):
        assert text in result.stdout


def test_explain_and_why_add_keys_only_when_asked(run_plan: RunPlan) -> None:
    plain = json.loads(run_plan("estimate", LLAMA, "-o", "json").stdout)
    result = run_plan("estimate", LLAMA, "-o", "json", "--explain", "2", "--why")
    full = json.loads(result.stdout)
    assert set(full) - set(plain) == {"explanation", "relaxations", "other_gpus"}
    jsonschema.validate(full, SCHEMA)
    assert full["explanation"]["candidate"] == full["candidates"][1]["id"]
    cost = next(row for row in full["explanation"]["sections"] if row["key"] == "cost")
    assert {term["name"]: term["value"] for term in cost["terms"]} == full["candidates"][1]["cost_tree_usd"]


def test_an_unknown_candidate_is_a_usage_error(run_plan: RunPlan) -> None:
    result = run_plan("estimate", LLAMA, "--explain", "c-000000", "-o", "json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["schema"] == "tuneplan/error"


def test_why_names_reasons_and_changes_that_save(run_plan: RunPlan, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: x\nmodel: meta-llama/Llama-3.1-8B\ndata: {samples: 20000, tokens_per_sample: 300}\n"
        "train: {sequence_length: 4096, precision: fp32}\nwhere: {market: on_demand, clouds: aws}\n"
    )
    result = run_plan("estimate", spec, "--why", "-o", "json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["relaxations"]
    saved = {next(iter(row["set"])): float(row["saves_usd"]) for row in rows}
    assert list(saved.values()) == sorted(saved.values(), reverse=True)
    for key in ("train.precision", "where.market"):
        assert saved[key] > 0, key
    text = run_plan("estimate", spec, "--why").stdout
    assert "not in where.clouds" in text and "where.market: [spot, on_demand]" in text


def test_why_tells_what_would_fit(run_plan: RunPlan) -> None:
    words = (EXAMPLES / "llama-3-70b-qlora.yaml", "--gpu", "T4", "--count", "1", "--why")
    result = run_plan("estimate", *words)
    assert result.exit_code == 3
    assert "each of these changes would make it fit" in result.stdout and "T4" in result.stdout
    document = json.loads(run_plan("estimate", *words, "-o", "json").stdout)
    assert document["relaxations"] == [] and document["nearest_fits"]


def test_a_missing_spec_is_a_usage_error(run_plan: RunPlan) -> None:
    for words in ((), ("--explain",), ("--explain", "2")):
        result = run_plan("estimate", *words)
        assert result.exit_code == 2 and "SPEC" in result.stderr


@pytest.mark.parametrize("width", [72, 90, 250])
def test_only_the_place_gives_way_on_a_narrow_terminal(width: int) -> None:
    offers = (offer_of(region="a-region-with-a-very-long-name", zone=None), offer_of("H100", 8, 20.0))
    estimate = build_estimate(question_of(), snapshot_of(*offers))
    table = render_estimate(estimate, spec_of(), rows=5, width=width).split("\n\n")[1].splitlines()
    assert len(table) == 3 and max(map(len, table)) <= max(width, 80)
    assert any("\u2026" in line for line in table) == (width < 100)
    for line, candidate in zip(table[1:], estimate.candidates, strict=True):
        assert f"{candidate.cost_usd.p50:,.2f} ({candidate.cost_usd.p10:,.2f}-" in line
        assert f"{candidate.offer.gpu}:{candidate.offer.gpus_per_node}" in line


def test_a_plot_of_text_has_no_place_in_json(run_plan: RunPlan) -> None:
    result = run_plan("estimate", LLAMA, "--plot", "-", "-o", "json")
    assert result.exit_code == 2 and json.loads(result.stdout)["schema"] == "tuneplan/error"
