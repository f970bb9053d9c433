"""A run on the local backend that moves between two places: preempted, pressed by its deadline, the monitor killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from planner.cli.schema import schema_text
from planner.launch import Desk, launch
from planner.places import Places
from planner.runs import utc_text
from planner.store import Change, Store
from providers.local import LocalLauncher
from tests.e2e.test_kill_plan import points
from tests.planner.moving_runs import attempt_at, moving
from tests.planner.run_factories import START, attempt_of, terms_of
from tests.workers import eventually, lives, starts

from .test_monitor import ONCE, Watched

Run = Callable[..., Result]


class Moving(Watched):
    """A bench whose run moves; `pressed` by its deadline it must leave spot at the first look."""

    def __init__(self, home: Path, *, pressed: bool = False, run_id: str = "goat-1") -> None:
        super().__init__(home)
        self.pressed, self.run_id = pressed, run_id

    def launch(self) -> None:
        now = utc_text(datetime.now(UTC))
        hours = {"work_h": 8.0, "deadline_h": 8.3 if self.pressed else 40.0}
        terms = moving(start_at=now, as_of_at=now[:10], **hours)
        offer = json.loads(attempt_at(1, "bed-a", "spot").offer_json)
        run_terms = terms_of(
            run_id=self.run_id,
            env={"ORDERS": str(self.orders)},
            secrets=(),
            monitor="service",
            checkpoint_uri=(self.home / "store").as_uri(),
            moving_json=terms.to_json(),
        )
        candidate = json.loads(run_terms.candidate_json) | {"offer": offer}
        with self.desk() as desk:
            launch(desk, self.run_id, replace(run_terms, candidate_json=json.dumps(candidate)), 300_000)
        eventually((self.orders / "ready").exists)

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        places = Places(self.home / "state")
        with Store(places.ledger) as store:
            launcher = LocalLauncher(places.local, python=str(self.python))
            yield Desk(store, launcher, places, lambda: utc_text(datetime.now(UTC)))

    def places(self) -> list[tuple[str, str]]:
        """Region and market of each attempt."""
        offers = [row["offer"] for row in self.run()["attempts"]]
        return [(offer["region"], offer["market"]) for offer in offers]

    def until_moved(self, attempts: int) -> None:
        """Rounds, until the newest of so many attempts runs; none of them may fail."""

        def is_there() -> bool:
            done = self.plan(*ONCE)
            assert done.returncode == 0, done.stderr
            run = self.run()
            return len(run["attempts"]) == attempts and run["state"] == "running"

        eventually(is_there)


def _preempted(home: Path) -> Moving:
    bench = Moving(home)
    bench.launch()
    bench.end_worker()
    return bench


def _pressed(home: Path) -> Moving:
    bench = Moving(home, pressed=True)
    bench.launch()
    return bench


CASES = {_preempted: ("bed-b", "spot"), _pressed: ("bed-a", "on_demand")}


@pytest.mark.parametrize("begin", CASES)
def test_it_moves_and_says_why(begin: Callable[[Path], Moving], tmp_path: Path) -> None:
    bench = begin(tmp_path / "home")
    bench.until_moved(2)
    assert bench.places() == [("bed-a", "spot"), CASES[begin]]
    answer = json.loads(bench.plan("why", "goat-1", "--all", "-o", "json").stdout)
    jsonschema.validate(answer, json.loads(schema_text("why")))
    newest = answer["decisions"][-1]
    assert newest["choice"]["where"] == f"{CASES[begin][1].replace('_', '-')} in slurm/{CASES[begin][0]}"
    assert all(row["reason"].endswith(".") for row in answer["decisions"])
    text = bench.plan("why", "goat-1").stdout
    assert newest["reason"] in text and "weighed" in text and "known" in text
    if begin is _preempted:
        assert text.index("attempt 1 preempted: worker killed by SIGKILL") < text.index(newest["reason"])
    status = bench.plan("status", "goat-1").stdout
    assert "spot in slurm/bed-a/spot" in status and f"{CASES[begin][1].replace('_', '-')} in slurm/" in status
    bench.finish(2)


def test_why_tells_what_happened_to_a_run_that_does_not_move(plan_home: Path, run_plan: Run) -> None:
    with Store(plan_home / "state" / "plan.db") as store:
        store.create("stays-1", terms_of(), attempt_of(1))
        no_login = "secrets not set in this environment: HF_TOKEN"
        failed = replace(attempt_of(1), outcome="failed")
        store.apply(store.find("stays-1"), Change("failed", no_login, failed, START, kind="launch"))
    text = run_plan("why", "stays-1").stdout
    assert text.splitlines()[0] == f"stays-1  ✗ failed: {no_login}; it does not move by itself"
    assert f"{START}  attempt 1 failed: {no_login}" in text
    answer = json.loads(run_plan("why", "stays-1", "-o", "json").stdout)
    jsonschema.validate(answer, json.loads(schema_text("why")))
    assert (answer["decisions"], len(answer["events"])) == ([], 1)


def try_kills(begin: Callable[[Path], Moving], tmp_path: Path, number: int, seed: int) -> None:
    """kill -9 of the monitor in every round of a move; then rounds without disturbance make it right."""
    counted = begin(tmp_path / "counted")
    rounds = []
    while counted.run()["state"] != "running" or len(counted.run()["attempts"]) < 2:
        rounds.append(counted.lines(*ONCE))
    counted.finish(2)
    for line in points(max(rounds), number, seed):
        bench = begin(tmp_path / f"home-{line}")
        for _ in range(3):
            bench.plan(*ONCE, kill_at=line)
        bench.until_moved(2)
        assert bench.places() == [("bed-a", "spot"), CASES[begin]], line
        assert len(starts(bench.orders)) == 2 and not lives(starts(bench.orders)[0]), line
        bench.finish(2)


def test_a_monitor_killed_at_some_line_of_a_move_makes_one_move(tmp_path: Path) -> None:
    try_kills(_pressed, tmp_path, 2, 1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.skipif("ROUNDS" not in os.environ, reason="run by `make test-long`")
@pytest.mark.parametrize("begin", CASES)
def test_a_monitor_killed_at_many_lines_of_a_move_makes_one_move(
    begin: Callable[[Path], Moving], tmp_path: Path
) -> None:
    try_kills(begin, tmp_path, int(os.environ["ROUNDS"]), int(os.environ.get("SEED", "1")))
