import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from planner.cli.estimate_table import _dropped
from planner.cli.main import cli
from planner.estimate import Rejection
from planner.plan import load_plan
from tests.planner.factories import offer_of

EXAMPLES = Path(__file__).parents[2] / "examples"
LLAMA = str(EXAMPLES / "llama-3.1-8b-lora.yaml")
SCHEMA = json.loads((Path(__file__).parents[2] / "planner" / "schemas" / "estimate.json").read_text())


def run(*words: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(cli, ["estimate", *words])


def answer(*words: str) -> dict[str, Any]:
    result = run(*words, "-o", "json")
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    return document


@pytest.mark.parametrize("spec", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_answers_keep_to_the_schema(spec: Path) -> None:
    document = answer(str(spec))
    assert list(document)[:4] == ["schema", "schema_version", "tuneplan_version", "generated_at"]
    assert document["recommended"] == document["candidates"][0]["id"]
    ranks = [candidate["rank"] for candidate in document["candidates"]]
    assert ranks == sorted(ranks) and ranks[0] == 1
    assert {row["reason_code"] for row in document["rejected"]} <= {
        "oom", "no_price", "no_gpu_facts", "filtered", "indivisible", "over_budget"
    }  # fmt: skip


def test_every_reason_for_dropping_an_offer_is_described() -> None:
    rejected = SCHEMA["properties"]["rejected"]["items"]["properties"]["reason_code"]
    assert {"indivisible", "oom", "stale_price"} <= set(rejected["enum"])
    assert all(code in rejected["description"] for code in rejected["enum"])


def test_no_offer_is_lost() -> None:
    document = answer(LLAMA, "--limit", "0")
    assert len(document["candidates"]) == document["candidates_total"]
    refused = sum(row["count"] for row in document["rejected"])
    assert refused + document["candidates_total"] == sum(
        cloud["rows"] for cloud in document["prices"]["coverage"]
    )


def test_a_number_of_gpus_that_no_machine_has_is_answered_with_those_that_they_have() -> None:
    offered = {
        row["offer"]["gpus_per_node"] for row in answer(LLAMA, "--gpu", "H100", "--limit", "0")["candidates"]
    }
    refused = run(LLAMA, "--gpu", "H100", "--count", "3")
    assert refused.exit_code == 3 and 3 not in offered
    said = refused.stderr.partition("H100 is offered with ")[2].partition(" in a machine")[0]
    assert {int(number) for number in said.replace(" or ", ", ").split(", ")} >= offered
    assert "machines are offered with 1, 2" in run(LLAMA, "--count", "999").stderr
    too_small = run(LLAMA, "--gpu", "T4", "--count", "1")  # there are such machines
    assert too_small.exit_code == 3 and "is offered with" not in too_small.stderr


def test_goat_on_one_a10_meets_its_publication() -> None:
    best = answer(str(EXAMPLES / "goat-7b-lora.yaml"), "--gpu", "A10", "--count", "1")["candidates"][0]
    assert best["verdict"] in ("fits", "borderline")
    assert best["memory_gib_per_gpu"]["limit"] < 24
    hours = best["wall_clock_h"]
    assert hours["p10"] <= 2 and hours["p90"] >= 1


def test_strict_takes_no_old_price(plan_home: Path) -> None:
    result = run(LLAMA, "--strict", "-o", "json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    assert "stale_price" in {row["reason_code"] for row in document["rejected"]}
    assert "`plan prices update` fetches fresh prices" in result.stderr
    (plan_home / "config.yaml").write_text("prices: {max_age: 3650d}\n")
    assert {row["offer"]["as_of_at"] is None for row in answer(LLAMA, "--strict")["candidates"]} == {False}


def test_a_line_that_would_stand_for_a_single_reason_says_it() -> None:
    def told(reasons: int) -> list[str]:
        rows = [
            Rejection("indivisible", f"reason {number}", 9 - number, offer_of()) for number in range(reasons)
        ]
        return list(_dropped(rows))

    assert told(6)[-1] == "dropped 4 offers: reason 5"
    assert told(7)[-1] == "dropped 7 offers for 2 more reasons"


def test_a_fixed_configuration_is_kept() -> None:
    document = answer(
        LLAMA, "--gpu", "A100-80GB", "--count", "1", "--market", "on_demand", "--micro-batch", "1"
    )
    for candidate in document["candidates"]:
        offer = candidate["offer"]
        assert (offer["gpu"], offer["gpus_per_node"], offer["market"]) == ("A100-80GB", 1, "on_demand")
        assert (candidate["micro_batch"], candidate["nodes"]) == (1, 1)


def test_nothing_fits_is_exit_3_with_the_whole_answer() -> None:
    result = run(str(EXAMPLES / "llama-3-70b-qlora.yaml"), "--gpu", "T4", "--count", "1", "-o", "json")
    document = json.loads(result.stdout)
    jsonschema.validate(document, SCHEMA)
    assert result.exit_code == 3
    assert document["candidates"] == [] and document["nearest_fits"]
    assert document["recommended"] is None and document["goal"]["met"] is None
    assert "hint: this would fit" in result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--fail-over", "1cent"], 2),
        (["--fail-over", "0.01"], 5),
        (["--fail-after", "1s"], 9),
        (["--gpu", "Q9"], 2),
    ],
)
def test_limits_and_their_exit_codes(words: list[str], code: int) -> None:
    assert run(LLAMA, *words).exit_code == code


def test_a_short_limit_is_told_in_its_own_unit() -> None:
    assert " h, over 1 min\n" in run(LLAMA, "--fail-after", "1m").stderr


def test_a_base_that_a_script_makes_names_the_script(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\nmodel: ./base\ndata: {samples: 10, tokens_per_sample: 10}\n")
    (tmp_path / "make_base.py").touch()
    said = f"hint: `python {tmp_path}/make_base.py` makes it"
    assert said in run(str(spec)).stderr
    launched = CliRunner(mix_stderr=False).invoke(cli, ["launch", str(spec), "--infra", "local", "--yes"])
    assert launched.exit_code == 2 and said in launched.stderr


def test_one_is_no_plural(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "name: x\nmodel: roberta-large\ndata: {samples: 1, tokens_per_sample: 10}\ntrain: {global_batch: 1}\n"
    )
    assert "1 step of 1 row, " in run(str(spec)).stdout


@pytest.mark.parametrize(
    ("line", "where", "code"),
    [
        ("model: gpt-99", (2, 8, "model.id"), "unknown_model"),
        ("model: roberta-large\ndata: {train: gone.jsonl}", (3, 15, "data.train"), None),
        ("model: roberta-large", (1, 1, "data.samples"), "data_size_unknown"),
    ],
)
def test_what_is_wrong_with_the_contents_has_a_line(
    tmp_path: Path, line: str, where: tuple[int, int, str], code: str | None
) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(f"name: x\n{line}\n")
    result = run(str(spec), "-o", "json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["errors"][0]
    assert (error["line"], error["column"], error["path"]) == where
    assert code in (None, error["code"])


def test_table_names_units_and_what_was_dropped() -> None:
    result = run(LLAMA)
    assert result.exit_code == 0
    for text in ("$/h", "total $", "best ", "shown 10 of", "dropped", "partial", "US dollars before tax"):
        assert text in result.stdout
    assert "│" not in result.stdout


def test_a_plot_names_its_points_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "p.svg"
    assert run(LLAMA, "--plot", str(path)).exit_code == 0
    picture = path.read_text(encoding="utf-8")
    for text in ("budget $60", "deadline", "US dollars before tax", "billed hours", "frontier", ">1  "):
        assert text in picture


def test_a_plot_of_what_costs_nothing_works_too(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    assert (
        run(str(EXAMPLES / "tiny-goat" / "spec.yaml"), "--infra", "local", "--plot", str(path)).exit_code == 0
    )
    assert path.read_bytes().startswith(b"\x89PNG")
    assert run(LLAMA, "--plot", str(tmp_path / "p.gif")).exit_code == 2
    assert run(LLAMA, "--plot", str(tmp_path / "none" / "p.svg")).exit_code == 2


def test_a_plan_file_is_written(tmp_path: Path) -> None:
    result = run(LLAMA, "--out", str(tmp_path / "plan.json"))
    assert result.exit_code == 0
    plan = load_plan(tmp_path / "plan.json")
    assert plan.spec.name == "support-bot" and plan.recommended == plan.candidates[0].candidate_id


def test_this_machine_can_be_estimated() -> None:
    document = answer(str(EXAMPLES / "tiny-goat" / "spec.yaml"), "--infra", "local")
    assert [c["offer"]["market"] for c in document["candidates"]] == ["local"]
    assert document["candidates"][0]["cost_usd"] == {"p10": "0", "p50": "0", "p90": "0"}


def test_no_heavy_module_is_imported() -> None:
    script = (
        "import sys\nfrom planner.cli.main import cli\n"
        f"try: cli.main(['estimate', {LLAMA!r}])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'sky', 'torch', 'transformers', 'boto3', 'pandas', 'apscheduler', 'numpy', 'peft', 'matplotlib'}\n"
        "heavy |= {'ssl', 'urllib.request', 'asyncio'}  # a known model needs no network\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
