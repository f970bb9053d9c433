from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.cli.telling import telling
from planner.runs import utc_text
from planner.signal_book import keep_signals
from planner.spot_signals import Said
from tests.planner.test_simulate import _JOBS, _files

RunPlan = Callable[..., Result]

ROOT = Path(__file__).parents[2]
LLAMA = ROOT / "examples" / "llama-3.1-8b-lora.yaml"


def test_a_spec_is_simulated_and_drawn(run_plan: RunPlan, tmp_path: Path) -> None:
    picture = tmp_path / "risk.svg"
    words = ("simulate", LLAMA, "--jobs", "20", "--gpu", "H100", "--count", "1")
    result = run_plan(*words, "-o", "json", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    jsonschema.validate(answer, json.loads(schema_text("simulate")))
    assert answer["spot"].startswith("1 x H100:1 in ") and answer["on_demand"].startswith("1 x H100:1 in ")
    ways = {way["way"]: way for way in answer["ways"]}
    assert set(ways) == {"ours", "spot", "on_demand"}
    assert ways["ours"]["p_finish_by_deadline"] == 1
    drawn = picture.read_text()
    assert drawn.count("<svg") == 1
    assert "support-bot on meta-llama/Llama-3.1-8B-Instruct, 20 simulated jobs on 1 x H100:1 in " in drawn


def test_jobs_on_records_give_a_table_of_results(run_plan: RunPlan, tmp_path: Path) -> None:
    data, jobs = _files(tmp_path, _JOBS)
    out = tmp_path / "results.csv"
    result = run_plan("simulate", "--traces", data, "--jobs", jobs, "--policy", "greedy", "--out", out)
    assert result.exit_code == 0, result.stderr
    again = run_plan("simulate", "--traces", data, "--jobs", jobs, "--out", out, "-o", "json")
    document = json.loads(again.stdout)
    jsonschema.validate(document, json.loads(schema_text("simulate_replay")))
    assert (document["policy"], document["jobs"]) == ("ours", 3)
    run_plan("simulate", "--traces", data, "--jobs", jobs, "--policy", "greedy", "--out", out)
    rows = out.read_text().splitlines()
    assert rows[0] == "job_id,policy,cost_usd,finish_h,late,launches,spot_h,on_demand_h"
    assert [row.split(",")[:2] for row in rows[1:]] == [[name, "greedy"] for name in "abc"]
    assert all(row.split(",")[4] == "0" for row in rows[1:])


def _on_a_terminal(*words: object) -> tuple[str, str]:
    """What a command writes to stdout, and to a terminal as its stderr."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).parent / "plan"), *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True, cwd=ROOT) as running:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # Linux says so when nobody writes any more
            while part := os.read(ours, 4096):
                said += part
        out = running.communicate()[0]
    os.close(ours)
    assert running.returncode == 0, said
    return out, said.decode()


def test_a_terminal_is_told_how_far_it_has_come(run_plan: RunPlan, tmp_path: Path, plan_home: Path) -> None:
    words = ("simulate", LLAMA, "--jobs", "20", "--gpu", "H100", "--count", "1", "-o", "json")
    out, said = _on_a_terminal(*words)
    assert json.loads(out)["schema"] == "tuneplan/simulate"
    assert "\r0 of 20 jobs in 0 s" in said and said.endswith("\r\033[K")
    data, jobs = _files(tmp_path, _JOBS)
    replayed = ("simulate", "--traces", data, "--jobs", jobs, "--out", tmp_path / "results.csv")
    assert "\r0 of 3 jobs in 0 s" in _on_a_terminal(*replayed)[1]
    assert "jobs in" not in run_plan(*words).stderr  # no terminal


def test_progress_is_told_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    clock = iter([100.0, 100.1, 101.0, 101.4])
    monkeypatch.setattr("planner.cli.telling.time.monotonic", lambda: next(clock))
    with telling("records") as tell:
        tell(1)
        tell(2000)
        tell(3000)
    assert capsys.readouterr().err == "\r2,000 records in 1 s\r\033[K"


def test_half_a_request_is_a_usage_error(run_plan: RunPlan, tmp_path: Path) -> None:
    assert run_plan("simulate").exit_code == 2
    assert run_plan("simulate", "--traces", tmp_path / "x", "--jobs", "j.csv").exit_code == 2
    assert run_plan("simulate", LLAMA, "--jobs", "many").exit_code == 2
    assert run_plan("simulate", LLAMA, "--out", tmp_path / "out.csv").exit_code == 2
    data, jobs = _files(tmp_path, _JOBS)
    words = ("simulate", "--traces", data, "--jobs", jobs, "--out", tmp_path / "out.csv")
    assert run_plan(*words, "--plot", tmp_path / "risk.svg").exit_code == 2
    assert not (tmp_path / "out.csv").exists()


def test_what_nobody_can_do_in_time_is_late_and_has_no_least_cost(run_plan: RunPlan, tmp_path: Path) -> None:
    data, jobs = _files(tmp_path, [_JOBS[0], ("x", "zone-0", 310, 8, 4, 0.2, 0)])
    out = tmp_path / "out.csv"
    words = ("simulate", "--traces", data, "--jobs", jobs, "--out", out, "-o", "json", "--policy")
    document = json.loads(run_plan(*words, "omniscient").stdout)
    jsonschema.validate(document, json.loads(schema_text("simulate_replay")))
    rows = [row.split(",") for row in out.read_text().splitlines()[1:]]
    assert document["late"] == 1 and document["cost_usd"] == rows[0][2]
    assert rows[1][2:5] == ["", "", "1"]
    assert json.loads(run_plan(*words, "ours").stdout)["late"] == 1


def test_the_table_is_for_a_person(run_plan: RunPlan) -> None:
    result = run_plan("simulate", LLAMA, "--jobs", "20", "--gpu", "H100", "--count", "8")
    assert "deadline policy" in result.stdout and "in time" in result.stdout
    assert ", spot at $" in result.stdout and "\non demand: 1 x H100:8 in " in result.stdout


def test_what_clouds_said_is_simulated_and_named(run_plan: RunPlan, plan_home: Path) -> None:
    words = ("simulate", LLAMA, "--jobs", "200", "--gpu", "H100", "--count", "8")
    offers = json.loads(run_plan("offers", "--gpu", "H100:8", "--spot", "-o", "json").stdout)["offers"]
    now = datetime.now(UTC)
    rows = [
        Said(row["cloud"], row["region"], None, row["instance_type"] or "", None, "uptime", 600.0, "s", "a seller",
             utc_text(now))
        for row in offers
    ]  # fmt: skip
    before = json.loads(run_plan(*words, "-o", "json").stdout)
    keep_signals(plan_home / "cache", rows, now)
    after = json.loads(run_plan(*words, "-o", "json").stdout)
    assert "a seller" not in before["hazards"] and "; x 1.1" in after["hazards"]
    assert "a seller 600.0 (" in after["hazards"]
    usd = [
        float(next(way for way in one["ways"] if way["way"] == "spot")["mean_cost_usd"])
        for one in (before, after)
    ]
    assert usd[0] < usd[1]


def test_a_job_of_millennia_is_refused_at_once(run_plan: RunPlan, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why", "completion": "because"}\n' * 100)
    spec.write_text(
        "name: x\nmodel: llama-3.1-405b\ndata: {train: rows.jsonl}\ntrain: {steps: 1000000000000}\n"
    )
    result = run_plan("simulate", spec, "--jobs", "20")
    assert result.exit_code == 2, result.stderr
    assert "too long to simulate" in result.stderr and "--gpu" in result.stderr
