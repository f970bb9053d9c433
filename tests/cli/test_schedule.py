"""`plan schedule` and `plan scheduler`, with a real launch on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from click.testing import Result

from planner.cli.context import App
from planner.cli.schema import schema_text
from tests.workers import eventually

RunPlan = Callable[..., Result]
ROOT = Path(__file__).parents[2]
SPEC = ROOT / "examples" / "tiny-goat" / "spec.yaml"
MONTHLY = (
    "schedule",
    "add",
    SPEC,
    "--cron",
    "0 2 1 * *",
    "--tz",
    "Europe/Berlin",
    "--infra",
    "local",
    "--yes",
)
NOW = datetime(2026, 12, 1, 0, 59, tzinfo=UTC)


def app(moment: datetime = NOW) -> App:
    return App(now=lambda: moment)


def answer(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, (result.stdout, result.stderr)
    document: dict[str, Any] = json.loads(result.stdout)
    jsonschema.validate(document, json.loads(schema_text(document["schema"].removeprefix("tuneplan/"))))
    return document


def test_a_monthly_schedule(run_plan: RunPlan) -> None:
    (row,) = answer(
        run_plan(*MONTHLY, "--budget-per-period", "300usd", "--name", "m", "-o", "json", obj=app())
    )["schedules"]
    assert row["next_at"] == "2026-12-01T01:00:00.000Z"
    assert row["budget_per_period_usd"] == "300"
    assert run_plan(*MONTHLY, "--no-cap", "--name", "m", obj=app()).exit_code == 2
    (paused,) = answer(run_plan("schedule", "pause", "m", "-o", "json", obj=app()))["schedules"]
    assert (paused["state"], paused["next_at"]) == ("paused", None)
    later = app(NOW + timedelta(days=40))
    (resumed,) = answer(run_plan("schedule", "resume", "m", "-o", "json", obj=later))["schedules"]
    assert resumed["next_at"] == "2027-02-01T01:00:00.000Z"
    assert run_plan("schedule", "rm", "m", "--yes", obj=later).exit_code == 0
    assert answer(run_plan("schedule", "list", "-o", "json", obj=later))["schedules"] == []
    assert run_plan("schedule", "resume", "m", obj=later).exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--cron", "0 2 1 * *"),
        ("--cron", "nonsense", "--no-cap"),
        ("--cron", "0 0 30 2 *", "--no-cap"),
        ("--in", "2h", "--at", "2027-01-01T00:00", "--no-cap"),
        ("--at", "2020-01-01T00:00", "--no-cap"),
        ("--in", "2h", "--window", "sometimes", "--no-cap"),
        ("--cron", "0 2 1 * *", "--no-cap", "--budget-per-period", "3usd"),
    ],
)
def test_what_cannot_be_scheduled_is_said(run_plan: RunPlan, words: tuple[str, ...]) -> None:
    result = run_plan("schedule", "add", SPEC, "--infra", "local", "--yes", *words, obj=app())
    assert result.exit_code == 2 and result.stderr.count("error:") == 1


def written(folder: Path, train: str = "train.jsonl", model: str = "gpt2", **more: str) -> Path:
    """A spec beside its data."""
    (folder / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    keys = {"train": "{sequence_length: 512, steps: 500}", **more}
    data = "{samples: 5}" if train == "" else f"{{train: {train}}}"
    text = f"name: x\nmodel: {model}\ndata: {data}\n" + "".join(
        f"{key}: {value}\n" for key, value in keys.items()
    )
    path = folder / "spec.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train": ""}, "there is no data to train on"),
        ({"task": "classification", "model": "swiss-ai/Apertus-8B-Instruct-2509"}, "no classifier"),
        ({"train": "train.jsonl", "quantization": "fp8"}, "fp8"),
    ],
)
def test_a_spec_that_never_starts_is_refused(
    run_plan: RunPlan, tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    spec = written(tmp_path, **fields)
    result = run_plan(
        "schedule", "add", spec, "--in", "2h", "--no-cap", "--infra", "local", "--yes", obj=app()
    )
    assert result.exit_code == 2 and said in result.stderr
    assert answer(run_plan("schedule", "list", "-o", "json", obj=app()))["schedules"] == []


def test_what_may_be_mended_until_then_is_warned_of(
    run_plan: RunPlan, tmp_path: Path, plan_home: Path
) -> None:
    words = ("--in", "2h", "--infra", "local", "--yes")
    gone = run_plan("schedule", "add", written(tmp_path, "gone.jsonl"), *words, "--no-cap", obj=app())
    assert gone.exit_code == 0 and "a launch would refuse it" in gone.stderr and "gone.jsonl" in gone.stderr
    (plan_home / "config.yaml").write_text("local:\n  usd_per_hour: 1000\n")
    spec = written(tmp_path)
    dear = run_plan(
        "schedule", "add", spec, *words, "--budget-per-period", "1usd", "--name", "dear", obj=app()
    )
    assert dear.exit_code == 0 and "and --budget-per-period is $1.00" in dear.stderr
    fine = run_plan(
        "schedule", "add", spec, *words, "--budget-per-period", "9000000usd", "--name", "fine", obj=app()
    )
    assert fine.exit_code == 0 and "warning" not in fine.stderr


def test_a_run_that_does_not_start_now_has_the_exit_code_of_its_launch(
    run_plan: RunPlan, tmp_path: Path
) -> None:
    spec = written(tmp_path, "gone.jsonl")
    run_plan(
        "schedule",
        "add",
        spec,
        "--in",
        "2h",
        "--no-cap",
        "--infra",
        "local",
        "--name",
        "x",
        "--yes",
        obj=app(),
    )
    result = run_plan("schedule", "run-now", "x", "--yes", "-o", "json", obj=app())
    (row,) = answer(result, 2)["firings"]
    assert (row["state"], row["reason"][:7]) == ("failed", "exit 2:")
    assert "no run was started" in result.stderr and "gone.jsonl" in result.stderr


def test_once_on_the_clock_of_a_place(run_plan: RunPlan) -> None:
    words = ("--at", "2027-07-01T02:00", "--tz", "Europe/Berlin", "--no-cap", "--name", "once", "-o", "json")
    (row,) = answer(run_plan("schedule", "add", SPEC, "--infra", "local", "--yes", *words, obj=app()))[
        "schedules"
    ]
    assert row["next_at"] == "2027-07-01T00:00:00.000Z"
    soon = ("--in", "2 hours", "--no-cap", "--name", "soon", "-o", "json")
    (row,) = answer(run_plan("schedule", "add", SPEC, "--infra", "local", "--yes", *soon, obj=app()))[
        "schedules"
    ]
    assert row["next_at"] == "2026-12-01T02:59:00.000Z"


def test_missed_times_reach_the_person(run_plan: RunPlan, plan_home: Path) -> None:
    heard = plan_home / "heard"
    hook = plan_home / "notify"
    hook.write_text(f"#!/bin/sh\ncat >> {heard}\n")
    hook.chmod(0o700)
    run_plan(*MONTHLY, "--no-cap", "--name", "m", obj=app())
    late = app(NOW + timedelta(hours=20))
    document = answer(run_plan("scheduler", "tick", "-o", "json", obj=late))
    assert [notice["subject"] for notice in document["notices"]] == ["schedule m"]
    assert "missed" in json.loads(heard.read_text())["text"]
    again = answer(run_plan("scheduler", "tick", "-o", "json", obj=late))
    assert again["notices"] == [] and again["firings"] == []
    (row,) = answer(run_plan("schedule", "history", "m", "-o", "json", obj=late))["firings"]
    assert row["state"] == "missed"


def test_a_hook_that_fails_is_asked_again(run_plan: RunPlan, plan_home: Path) -> None:
    hook = plan_home / "notify"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o700)
    run_plan(*MONTHLY, "--no-cap", "--name", "m", obj=app())
    late = app(NOW + timedelta(hours=20))
    assert answer(run_plan("scheduler", "tick", "-o", "json", obj=late))["notices"] == []
    hook.write_text("#!/bin/sh\nexit 0\n")
    assert len(answer(run_plan("scheduler", "tick", "-o", "json", obj=late))["notices"]) == 1


def test_status_without_a_scheduler(run_plan: RunPlan) -> None:
    assert not answer(run_plan("scheduler", "status", "-o", "json", obj=app()))["alive"]
    run_plan(*MONTHLY, "--no-cap", "--name", "m", obj=app())
    document = answer(run_plan("scheduler", "status", "-o", "json", obj=app()), 9)
    assert (document["waiting"], document["schedules_active"]) == (True, 1)


@pytest.mark.parametrize("name", ["unit", "containerfile"])
def test_what_runs_it_is_printed(run_plan: RunPlan, name: str) -> None:
    result = run_plan("scheduler", name)
    assert result.exit_code == 0 and "scheduler" in result.stdout


@pytest.mark.train
def test_the_scheduler_launches_a_due_run_once(run_plan: RunPlan, plan_home: Path) -> None:
    """A real daemon, a real child, a real launch; the worker is cancelled as soon as it is known to exist."""
    words = ("--in", "1s", "--no-cap", "--name", "now", "--infra", "local", "--yes")
    assert run_plan("schedule", "add", SPEC, *words).exit_code == 0
    code = "import sys; from planner.cli.main import main; sys.argv[0] = 'plan'; main()"
    command = [sys.executable, "-c", code, "scheduler", "run", "--every", "1s"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            eventually(lambda: _history(run_plan)[0]["state"] == "started", limit_s=120)
            memory = psutil.Process(daemon.pid).memory_info().rss
            assert answer(run_plan("scheduler", "status", "-o", "json"))["alive"]
            second = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
            )
            assert second.returncode == 2 and "already" in second.stderr
        finally:
            os.kill(daemon.pid, signal.SIGTERM)
            daemon.wait(30)
            (run,) = answer(run_plan("runs", "-o", "json"))["runs"]
            run_plan("cancel", run["run_id"])
    assert memory < 60 << 20
    assert run["run_id"] == _history(run_plan)[0]["run_id"]
    assert answer(run_plan("scheduler", "status", "-o", "json"))["scheduler"]["ended_at"] is not None


@pytest.mark.train
def test_a_tick_starts_what_an_earlier_one_could_not(run_plan: RunPlan, plan_home: Path) -> None:
    """Real children and launches; the worker is cancelled as soon as it is known to exist."""
    in_the_way = plan_home / "state" / "local"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file in the way")
    words = ("--in", "1s", "--no-cap", "--name", "now", "--infra", "local", "--yes")
    assert run_plan("schedule", "add", SPEC, *words).exit_code == 0
    eventually(
        lambda: run_plan("scheduler", "tick").exit_code == 0 and _history(run_plan)[0]["state"] == "due"
    )
    assert "exit 6" in _history(run_plan)[0]["reason"]
    in_the_way.unlink()
    try:
        eventually(
            lambda: (
                run_plan("scheduler", "tick").exit_code == 0 and _history(run_plan)[0]["state"] == "started"
            ),
            limit_s=120,
        )
        (run,) = answer(run_plan("runs", "-o", "json"))["runs"]
        assert run["state"] in ("running", "syncing")
    finally:
        (run,) = answer(run_plan("runs", "-o", "json"))["runs"]
        run_plan("cancel", run["run_id"])


def _history(run_plan: RunPlan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer(run_plan("schedule", "history", "now", "-o", "json"))["firings"]
    return rows or [{"state": "none"}]
