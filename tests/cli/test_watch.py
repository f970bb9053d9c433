import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.progress import CheckpointRef, Progress, StepTimes
from planner.cli.watch_text import preemptions, stage_of, watch_line, watch_screen
from planner.runs import Run
from tests.cli import test_runs
from tests.cli.test_runs import launched, plan, status
from tests.planner.run_factories import START, attempt_of, run_of, terms_of
from tests.workers import order_exit

NOW = datetime(2026, 11, 22, 12, 10, tzinfo=UTC)
Golden = Callable[[str, str], None]
orders = test_runs.orders


@pytest.fixture
def training() -> Run:
    progress = Progress(
        "run-1",
        2,
        "training",
        step=150,
        max_steps=600,
        loss=0.4321,
        step_time_s=StepTimes(0.5, 1.0, 2.0),
        heartbeat_at="2026-11-22T12:10:00.000Z",
        last_checkpoint=CheckpointRef(100, "2026-11-22T12:08:00Z", "file:///c", 10, "0" * 64),
    )
    attempts = (
        attempt_of(
            backend_id="1", started_at=START, ended_at=START, outcome="preempted", cost_micro_usd=250_000
        ),
        attempt_of(2, backend_id="2", started_at=START, cost_micro_usd=130_000),
    )
    terms = terms_of(cap_micro_usd=5_000_000)
    return run_of("running", *attempts, terms=terms, progress_json=progress.to_json())


def test_screen_and_line(training: Run, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    golden("watch", f"{watch_screen(training, NOW)}\n\n{watch_line(training, NOW)}\n")


def test_what_is_not_known_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    run = run_of("queued", attempt_of(micro_usd_per_hour=None), state_reason="no capacity")
    line = watch_line(run, NOW)
    assert "queued  step ?  eta ?  cost" in line and line.endswith("no capacity")
    assert "none yet" in watch_screen(run, NOW) and "loss        ?" in watch_screen(run, NOW)


def test_stages_are_the_workers_own_while_it_works(training: Run) -> None:
    assert stage_of(training) == "training" and preemptions(training) == 1
    assert stage_of(replace(training, state="recovering")) == "recovering"


def test_lines_until_the_end(orders: Path) -> None:
    launched(orders)
    order_exit(orders, 0)
    result = plan("watch", "goat", "--every", "0.2")
    lines = result.stdout.splitlines()
    assert "goat-1" in lines[-1] and "succeeded" in lines[-1]
    assert all("\x1b" not in line for line in lines)
    told = [line.partition("  ")[2] for line in lines]
    assert all(one != other for one, other in pairwise(told))


def test_a_preempted_run_ends_the_watch(orders: Path) -> None:
    launched(orders)
    for pid in status()["pids"]:
        os.kill(pid, signal.SIGKILL)
    result = plan("watch", "goat-1", "--every", "0.2", code=10)
    assert "preempted" in result.stdout and "plan resume goat-1" in result.stderr


def test_on_a_terminal_one_screen_is_kept(orders: Path) -> None:
    launched(orders)
    order_exit(orders, 0)
    code, text = in_terminal("watch", "goat-1", "--every", "0.2")
    assert code == 0
    assert "checkpoint" in text and "succeeded" in text and "\x1b[" in text


def in_terminal(*words: str) -> tuple[int, str]:
    """Run `plan` in a pseudo-terminal."""
    here, there = os.openpty()
    script = "from planner.cli.main import main; main()"
    python = Path(sys.prefix) / "bin" / "python"  # sys.executable is the worker's here
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [python, "-c", script, *words], stdin=there, stdout=there, stderr=there, env=env
    ) as child:
        os.close(there)
        text = b"".join(_output(here)).decode(errors="replace")
    os.close(here)
    return child.returncode, text


def _output(fd: int) -> Iterator[bytes]:
    while True:
        try:
            chunk = os.read(fd, 4096)
        except OSError:  # Linux's way of saying that the other end is closed
            return
        if not chunk:
            return
        yield chunk
