"""kill -9 of `plan` itself, at lines spread over everything that moves a run: the same command again makes it right."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.store import Store
from tests.workers import eventually, lives, make_python, order_exit, starts

SPEC = Path(__file__).parents[2] / "examples" / "tiny-goat" / "spec.yaml"
KILLING = Path(__file__).with_name("killing.py")
LAUNCH = ("launch", str(SPEC), "--infra", "local", "--run-id", "goat-1", "--yes")
Campaign = Callable[[Path, int, int], None]


class Bench:
    """A home of its own, a worker that obeys, and `plan` as a process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.orders = home / "orders"
        self.orders.mkdir(parents=True)
        self.python = make_python(home / "bin")
        self.environment = {**os.environ, "PLAN_HOME": str(home), "ORDERS": str(self.orders), "NO_COLOR": "1"}

    def plan(self, *words: str, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(KILLING), str(kill_at), str(self.python), *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def lines(self, *words: str) -> int:
        """Lines of the watched files that a command runs."""
        result = self.plan(*words)
        assert result.returncode == 0, result.stderr
        return int(result.stderr.rpartition("lines ")[2])

    def run(self) -> dict[str, Any]:
        result = self.plan("status", "goat-1", "-o", "json")
        assert result.returncode == 0, result.stderr
        run: dict[str, Any] = json.loads(result.stdout)["run"]
        return run

    def is_cancelled(self) -> bool:
        return bool(self.run()["state"] == "cancelled")

    def kill_worker(self) -> None:
        eventually((self.orders / "ready").exists)
        for pid in self.run()["pids"]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.run()["state"] == "preempted")

    def end_well(self) -> None:
        """The worker ends, and nobody looks."""
        eventually((self.orders / "ready").exists)
        order_exit(self.orders, 0)
        eventually(lambda: not any(map(lives, starts(self.orders))))

    def finish(self, attempts: int) -> None:
        """Let the worker end well: one run, as many workers as attempts, no process left, a legal history."""
        eventually(lambda: len(starts(self.orders)) == attempts)
        order_exit(self.orders, 0)
        assert self.plan("wait", "goat-1").returncode == 0
        assert len(starts(self.orders)) == attempts
        assert not any(map(lives, starts(self.orders)))
        with Store(self.home / "state" / "plan.db") as ledger:
            (run,) = ledger.all_runs()
            assert [attempt.attempt for attempt in run.attempts] == list(range(1, attempts + 1))
            assert run.attempts[-1].outcome == "done"
            assert all(attempt.ended_at is not None for attempt in run.attempts)
            assert ledger.events("goat-1")[-1].state == "succeeded"


def points(total: int, number: int, seed: int) -> list[int]:
    """Lines to die at: one in each of so many equal stretches; all of them if they are no more than that."""
    if number >= total:
        return list(range(1, total + 1))
    chance = random.Random(seed)
    return [chance.randrange(total * n // number, total * (n + 1) // number) + 1 for n in range(number)]


def try_launch(tmp_path: Path, number: int, seed: int) -> None:
    counted = Bench(tmp_path / "counted")
    total = counted.lines(*LAUNCH)
    counted.finish(1)
    assert total > 4
    for line in points(total, number, seed):
        bench = Bench(tmp_path / f"home-{line}")
        assert bench.plan(*LAUNCH, kill_at=line).returncode == -signal.SIGKILL, line
        again = bench.plan(*LAUNCH, "-o", "json")
        assert again.returncode == 0, (line, again.stderr)
        assert json.loads(again.stdout)["state"] == "running"
        bench.finish(1)


def try_resume(tmp_path: Path, number: int, seed: int) -> None:
    counted = Bench(tmp_path / "counted")
    counted.plan(*LAUNCH)
    counted.kill_worker()
    total = counted.lines("resume", "goat-1", "--yes")
    counted.finish(2)
    for line in points(total, number, seed):
        bench = Bench(tmp_path / f"home-{line}")
        assert bench.plan(*LAUNCH).returncode == 0
        bench.kill_worker()
        assert bench.plan("resume", "goat-1", "--yes", kill_at=line).returncode == -signal.SIGKILL, line
        if bench.run()["state"] != "running":
            again = bench.plan("resume", "goat-1", "--yes")
            assert again.returncode == 0, (line, again.stderr)
        bench.finish(2)


def try_cancel(tmp_path: Path, number: int, seed: int) -> None:
    counted = Bench(tmp_path / "counted")
    counted.plan(*LAUNCH)
    eventually((counted.orders / "ready").exists)
    total = counted.lines("cancel", "goat-1", "--no-wait")
    eventually(counted.is_cancelled)
    for line in points(total, number, seed):
        bench = Bench(tmp_path / f"home-{line}")
        assert bench.plan(*LAUNCH).returncode == 0
        eventually((bench.orders / "ready").exists)
        assert bench.plan("cancel", "goat-1", "--no-wait", kill_at=line).returncode == -signal.SIGKILL, line
        if bench.run()["state"] == "running":
            assert bench.plan("cancel", "goat-1").returncode == 0
        eventually(bench.is_cancelled)
        assert not any(map(lives, starts(bench.orders)))


def try_end(tmp_path: Path, number: int, seed: int) -> None:
    """Of whoever watches the run's end and writes it down."""
    counted = Bench(tmp_path / "counted")
    counted.plan(*LAUNCH)
    counted.end_well()
    total = counted.lines("wait", "goat-1")
    for line in points(total, number, seed):
        bench = Bench(tmp_path / f"home-{line}")
        assert bench.plan(*LAUNCH).returncode == 0
        bench.end_well()
        assert bench.plan("wait", "goat-1", kill_at=line).returncode == -signal.SIGKILL, line
        bench.finish(1)


@pytest.mark.parametrize(
    "campaign", [try_launch, *(pytest.param(one, marks=pytest.mark.long) for one in (try_resume, try_cancel))]
)
def test_the_same_command_again_makes_it_right(campaign: Campaign, tmp_path: Path) -> None:
    campaign(tmp_path, 4, 1)


def test_launches_of_one_id_at_once_make_one_job(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "home")
    words = [sys.executable, str(KILLING), "0", str(bench.python), *LAUNCH, "-o", "json"]
    launches = [
        subprocess.Popen(words, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    answers = [json.loads(process.communicate(timeout=120)[0]) for process in launches]
    assert [process.returncode for process in launches] == [0] * 4, [
        answer.get("errors") for answer in answers
    ]
    assert sorted(answer["created"] for answer in answers) == [False, False, False, True]
    assert {answer["state"] for answer in answers} == {"running"}
    bench.finish(1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
@pytest.mark.parametrize("campaign", [try_launch, try_resume, try_cancel])
def test_at_many_lines(campaign: Campaign, tmp_path: Path) -> None:
    campaign(tmp_path, int(os.environ["ROUNDS"]), int(os.environ.get("SEED", "1")))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
@pytest.mark.parametrize("campaign", [try_launch, try_resume, try_cancel, try_end])
def test_before_and_after_every_change_of_the_ledger(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILL_AT", "writes")
    campaign(tmp_path, 1000, 1)
    assert len(list(tmp_path.iterdir())) > 2
