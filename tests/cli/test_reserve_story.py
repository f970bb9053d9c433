"""From a release date weeks ahead to the finished run: advise, schedule, block bought, run in it, report.

The story begins 40 days ago by an injected clock, so that the block's time is really now: the server's clock is
shifted alike. The run is a real training on this machine, launched by a child that goes by the real clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from planner.cli.context import App
from tests.capacity.server import Capacity

RunPlan = Callable[..., Result]
GOAT = Path(__file__).parents[2] / "examples" / "tiny-goat"
WEEKS_AGO = timedelta(days=40)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A few steps of the tiny example, on AWS where machines are reserved."""
    path = tmp_path / "release.yaml"
    path.write_text(
        f"""
name: release
model: {GOAT / "base"}
method: {{kind: lora, rank: 8}}
data: {{train: {GOAT / "train.jsonl"}, eval: {GOAT / "eval.jsonl"}}}
train: {{steps: 3, sequence_length: 64, global_batch: 8, micro_batch: 8, precision: fp32}}
evaluate: {{samples: 4}}
where: {{clouds: aws, regions: us-east-1}}
"""
    )
    return path


def answer(result: Result, code: int = 0) -> dict[str, Any]:
    assert result.exit_code == code, (result.stdout, result.stderr)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.mark.train
def test_the_whole_story(capacity: Capacity, run_plan: RunPlan, spec: Path) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=2)
    release = (start + timedelta(days=3)).isoformat()
    then = App(now=lambda: datetime.now(UTC) - WEEKS_AGO)
    past: dict[str, Any] = {"shift_s": -WEEKS_AGO.total_seconds(), "starts": [start.isoformat()]}

    capacity.order(none=True, **past)
    advice = answer(
        run_plan(
            "reserve",
            "advise",
            spec,
            "--by",
            release,
            "--provider",
            "aws_capacity_block",
            "-o",
            "json",
            obj=then,
        )
    )
    assert advice["verdict"] == "wait" and "schedule" in advice["reason"]

    earliest = (start - timedelta(hours=1)).isoformat()
    words = (
        "--from",
        earliest,
        "--by",
        release,
        "--provider",
        "aws_capacity_block",
        "--cap",
        "5000usd",
        "--confirm-usd",
        "5000",
        "--name",
        "r",
    )
    answer(run_plan("reserve", "schedule", spec, *words, "--infra", "local", "-o", "json", obj=then))
    tick = answer(run_plan("scheduler", "tick", "-o", "json", obj=then))
    assert [row["state"] for row in tick["reservations"]] == ["planned"]
    assert "nothing that suits" in tick["reservations"][0]["state_reason"]

    capacity.order(**past)  # the block appears
    tick = answer(run_plan("scheduler", "tick", "-o", "json", obj=then))
    assert [row["state"] for row in tick["reservations"]] == ["bought"]
    refused = run_plan("launch", spec, "--infra", "local", "--reservation", "r", "--yes", obj=then)
    assert refused.exit_code == 2 and "begins at" in refused.stderr

    capacity.order()  # weeks later: its time has come
    tick = answer(run_plan("scheduler", "tick", "-o", "json"))
    (row,) = tick["reservations"]
    assert (row["state"], row["run_id"], row["warning"]) == ("active", "r", None), tick
    assert answer(run_plan("scheduler", "tick", "-o", "json"))["errors"] == []
    assert run_plan("wait", "r").exit_code == 0
    (run,) = answer(run_plan("runs", "-o", "json"))["runs"]
    assert (run["run_id"], run["state"]) == ("r", "succeeded")
    report = answer(run_plan("report", "r", "-o", "json"))
    assert report["state"] == "succeeded"
    (reservation,) = answer(run_plan("reserve", "show", "r", "-o", "json"))["reservations"]
    assert [event["state"] for event in reservation["history"]][:4] == [
        "planned",
        "planned",
        "intent",
        "bought",
    ]
    assert float(reservation["paid_usd"]) <= 5000
