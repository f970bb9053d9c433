"""The monitor: one process for all runs, that may be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner.cli.schema import schema_text
from planner.runs import Attempt
from planner.service import vain_attempts
from tests.e2e.test_kill_plan import LAUNCH, Bench, points
from tests.planner.run_factories import START, attempt_of
from tests.workers import eventually, starts

ONCE = ("monitor", "run", "--once", "--every", "0.1s", "--retry-delay", "0.1s")


class Watched(Bench):
    """A bench whose run was given to a monitor."""

    def launch(self) -> None:
        assert self.plan(*ONCE).returncode == 0
        self.beat_on()
        launched = self.plan(*LAUNCH, "--monitor", "service")
        assert launched.returncode == 0, launched.stderr
        eventually((self.orders / "ready").exists)

    def beat_on(self) -> None:
        """Let it look as if the monitor of the round before were still at work."""
        from planner.database import Database

        with Database(self.home / "state" / "plan.db") as db, db.writing():
            db.execute("UPDATE monitors SET ended_at = NULL")

    def end_worker(self) -> None:
        for pid in starts(self.orders):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def until(self, state: str) -> None:
        """Rounds, until the run is in this state."""

        def is_there() -> bool:
            assert self.plan(*ONCE).returncode == 0
            return bool(self.run()["state"] == state)

        eventually(is_there)


def test_a_run_that_was_taken_away_is_started_again(tmp_path: Path) -> None:
    bench = Watched(tmp_path / "home")
    refused = bench.plan(*LAUNCH, "--monitor", "service")
    assert refused.returncode == 2 and "no monitor is at work here" in refused.stderr
    bench.launch()
    bench.end_worker()
    bench.until("running")
    eventually(lambda: len(starts(bench.orders)) == 2)
    bench.finish(2)
    shown = json.loads(bench.plan("monitor", "show", "-o", "json").stdout)
    jsonschema.validate(shown, json.loads(schema_text("monitor")))
    assert shown["lives"] is False
    assert "no run is under way" in bench.plan("status").stdout


def test_a_resting_run_says_when_the_next_try_comes(tmp_path: Path) -> None:
    bench = Watched(tmp_path / "home")
    bench.launch()
    bench.end_worker()
    patient = (*ONCE[:-1], "1h")

    def rests() -> bool:
        assert bench.plan(*patient).returncode == 0
        return bool(bench.run()["next_try_at"])

    eventually(rests)
    run = bench.run()
    assert (run["state"], len(run["attempts"])) == ("preempted", 1)
    assert run["next_try_at"] > run["attempts"][0]["ended_at"]
    text = bench.plan("status").stdout
    assert "goat-1" in text and "next try" in text and "preempted" in text
    assert bench.plan("cancel", "goat-1").returncode == 0
    assert bench.run()["state"] == "cancelled"


def try_kills(tmp_path: Path, number: int, seed: int) -> None:
    """kill -9 of the monitor over the whole round that finds the loss, writes the next try down and restarts."""
    counted = Watched(tmp_path / "counted")
    counted.launch()
    counted.end_worker()
    rounds = [counted.lines(*ONCE) for _ in range(3)]
    counted.until("running")
    counted.finish(2)
    for line in points(max(rounds), number, seed):
        bench = Watched(tmp_path / f"home-{line}")
        bench.launch()
        bench.end_worker()
        for _ in range(2):
            bench.plan(*ONCE, kill_at=line)
        bench.until("running")
        bench.finish(2)


def test_a_monitor_killed_at_some_line_makes_one_job(tmp_path: Path) -> None:
    try_kills(tmp_path, 2, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
def test_a_monitor_killed_at_many_lines_makes_one_job(tmp_path: Path) -> None:
    try_kills(tmp_path, int(os.environ["ROUNDS"]), int(os.environ.get("SEED", "1")))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
def test_a_monitor_killed_before_and_after_every_change_of_the_ledger_makes_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILL_AT", "writes")
    try_kills(tmp_path, 1000, 1)


def test_one_monitor_at_a_time_and_a_signal_ends_it_in_good_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "home")
    command = [str(Path(sys.executable).with_name("plan")), "monitor", "run", "--every", "0.2s"]
    first = subprocess.Popen(command, env=bench.environment, stderr=subprocess.DEVNULL)
    try:

        def lives() -> bool:
            return bool(json.loads(bench.plan("monitor", "show", "-o", "json").stdout)["lives"])

        eventually(lives)
        second = subprocess.run(command, env=bench.environment, capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and "at work already" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=30) == 0
        assert not lives()
    finally:
        first.kill()
        first.wait()


def test_unit_and_container_are_printed(run_plan: Any) -> None:
    assert "monitor run" in run_plan("monitor", "unit").stdout
    assert "ENTRYPOINT" in run_plan("monitor", "container").stdout


@pytest.mark.parametrize(
    ("attempts", "vain"),
    [
        ((attempt_of(outcome="preempted", first_step=0, last_step=9),), 0),
        ((attempt_of(outcome="preempted"),), 1),
        ((attempt_of(outcome="preempted", first_step=0, last_step=9), attempt_of(2, outcome="preempted")), 1),
        ((attempt_of(outcome="preempted"), attempt_of(2, outcome="stock_out")), 2),
        ((attempt_of(outcome="failed"),), 0),
        ((attempt_of(outcome="preempted"), attempt_of(2, outcome="failed", ended_at=START)), 2),
    ],
)
def test_only_attempts_that_got_nowhere_are_vain(attempts: tuple[Attempt, ...], vain: int) -> None:
    assert len(vain_attempts(attempts)) == vain
