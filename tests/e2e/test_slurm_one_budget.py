"""Two runs that move at once under one budget, on a real Slurm: spot is taken from both, and monitors are killed.

The book of the budget, the ledger and Slurm's own account are compared at every look. A third run whose cap cannot pay
for all of it is told so and ends at its cap. `RESULT=FILE` writes down what happened.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from planner.register import read_book
from planner.runs import Attempt, Run, RunEvent, seconds_between
from planner.store import Store
from providers.stores import open_store
from tests.bed.bed import Bed
from tests.bed.client import BedUser
from tests.e2e.renting import EVERY, PLAN, Person, completed_jobs, eventually, goat_spec, nothing_runs, step
from tests.e2e.test_slurm_moving import mover

__all__ = ["mover"]
pytestmark = [pytest.mark.slurm, pytest.mark.train, pytest.mark.long, pytest.mark.timeout(3600)]
MINUTES, STEPS = int(os.environ.get("MINUTES", "20")), int(os.environ.get("STEPS", "2000"))
MOVERS, SHORT = ("goat", "kid"), "lamb"
CAPS = {"goat": 1_000_000, "kid": 900_000, "lamb": 50_000}
BUDGET = 1_980_000
#: After it was told to end, or has said that it is done, a run's machine costs until SkyPilot gives it back: that takes
#: 15 s and more, on a busy machine minutes. Until then it keeps to its cap, but for one look of everybody.
LOOK_S = 20.0
#: Slurm keeps whole seconds of a job's start and end.
ROUNDING_MICRO_USD = 2_000


class Monitor:
    """`plan monitor run`, which can be killed and started again."""

    def __init__(self, person: Person, log: Path) -> None:
        self.person, self.log, self.kills = person, log, list[str]()
        self.process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            command = [PLAN, "monitor", "run", "--every", "2s"]
            return subprocess.Popen(command, env=self.person.env, stdout=out, stderr=subprocess.STDOUT)

    def killed(self, why: str) -> None:
        """kill -9, and another one."""
        self.process.kill()
        self.process.wait()
        self.kills.append(why)
        self.process = self._started()

    def ended(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=300)


@contextmanager
def serving(person: Person, log: Path) -> Iterator[Monitor]:
    monitor = Monitor(person, log)
    try:
        eventually(lambda: bool(person.json("monitor", "show")["lives"]))
        yield monitor
    finally:
        monitor.ended()


class Account:
    """What the budget's book, the ledger and Slurm say of the same runs, at every look."""

    def __init__(self, bed: Bed, person: Person) -> None:
        self.bed, self.ledger = bed, person.home / "state/plan.db"
        self.register = open_store((person.home / "state/register").as_uri())
        self.looks = 0

    def look(self) -> dict[str, Run]:
        """The runs, once all three agree."""
        self.looks += 1
        book = read_book(self.register, "default")
        with Store(self.ledger) as store:
            runs = {run.run_id: run for run in store.all_runs()}
            events = {name: store.events(name) for name in runs}
        late = {name: _late_micro_usd(run, events[name]) for name, run in runs.items()}
        taken = book.taken_micro_usd(datetime.now(UTC).isoformat()[:7])
        assert taken is not None and taken <= BUDGET + sum(late.values()), book
        for name, run in runs.items():
            share = book.runs[name]
            held, cost = share.micro_usd or 0, run.cost_micro_usd or 0
            assert held == cost if share.over else held >= CAPS[name], (name, share, run)
            story = "\n".join(f"{event.at} {event.kind}: {event.reason}" for event in events[name])
            assert cost <= CAPS[name] + late[name], f"{name} cost {cost} by {run.observed_at}\n{story}"
            jobs = self._running(name)
            assert len(jobs) <= 1, (name, jobs)  # nothing is bought twice
        return runs

    def _running(self, name: str) -> list[str]:
        rows = self.bed.slurm.run("squeue", "-h", "-t", "R", "-o", "%j %i %P").splitlines()
        return [row for row in rows if row.startswith(f"plan-{name}-")]

    def take_away(self, name: str) -> None:
        """End the spot machine of one run."""
        for row in self._running(name):
            _, job, partition = row.split()
            if partition == "spot":
                self.bed.slurm.run("scancel", job)

    def billed_micro_usd(self, name: str) -> float:
        """What Slurm says the run's machines cost, by the region that each attempt asked for."""
        with Store(self.ledger) as store:
            attempts = [row for row in store.find(name).attempts if row.started_at]
        jobs = completed_jobs(self.bed, name)
        assert len(jobs) == len(attempts), (jobs, attempts)
        return sum(
            (row.micro_usd_per_hour or 0) * float(job["end"] - job["start"]) / 3600
            for row, job in zip(attempts, jobs, strict=True)
        )


def _late_micro_usd(run: Run, events: list[RunEvent]) -> float:
    """What its machine may cost beyond its cap by now.

    From when its end was known to when it was given back; and while it was got ready, before its own clock began, of
    which only a monitor knows, and that may just have been killed.
    """
    current = run.current
    own = [event for event in events if event.attempt == current.attempt]
    told = [event.at for event in own if event.kind == "stop" or "given back" in event.reason]
    until = current.ended_at or run.observed_at
    seconds = LOOK_S + (seconds_between(min(told), until) if told else 0.0)
    if current.started_at is not None:
        ready = min((event.at for event in own if event.reason == "loading"), default=until)
        seconds += seconds_between(current.started_at, ready)
    return (current.micro_usd_per_hour or 0) * seconds / 3600


def _place(attempt: Attempt) -> str:
    offer = json.loads(attempt.offer_json)
    return f"{offer['region']} {offer['market']}"


def _market(run: Run) -> str:
    return str(json.loads(run.current.offer_json)["market"])


def _disturb(account: Account, monitor: Monitor, shared: Path) -> list[tuple[str, int]]:
    """Take each run's spot machine again and again until it leaves spot; kill the monitor at each stage of a move."""
    taken: list[tuple[str, int]] = []
    stages = {("cancelling", "move"), ("preempted", "move"), ("preempted", None), ("queued", None)}
    while True:
        runs = account.look()
        if all(runs[name].final for name in (*MOVERS, SHORT)):
            return taken
        for name in MOVERS:
            run = runs[name]
            stage = (run.state, run.stopping)
            if stage in stages and len(run.attempts) + (run.state != "queued") > 1:
                stages.remove(stage)
                monitor.killed(f"{name} {run.state} {run.stopping or ''}")
            begun, key = run.current.first_step, (name, run.current.attempt)
            at_work = run.state == "running" and begun is not None and _market(run) == "spot"
            store = shared / "store" / name
            if at_work and key not in taken and step(store) >= (begun or 0) + 2 * EVERY:
                account.take_away(name)
                taken.append(key)
        time.sleep(0.5)


def _spec(shared: Path, name: str, steps: int) -> Path:
    """A spec of its own with a tight deadline; of many steps it cannot be done for its cap."""
    (shared / name).mkdir()
    spec = goat_spec(shared, steps=steps)
    goal = f"goal: {{within: {MINUTES}m, objective: cheapest_by_deadline}}\n"
    own = shared / name / "spec.yaml"
    own.write_text(spec.read_text() + goal)
    return own


def _order(person: Person, spec: Path, name: str, cap_micro_usd: int, code: int = 0) -> str:
    cap = ("--cap", f"{cap_micro_usd / 1e6}", "--run-id", name)
    return person.plan("launch", str(spec), *cap, "--move", "--monitor", "service", "--yes", code=code)


def test_two_runs_move_at_once_and_keep_one_budget_although_monitors_are_killed(
    slurm_bed: Bed, user: BedUser, mover: Person, shared: Path, tmp_path: Path
) -> None:
    specs = {name: _spec(shared, name, STEPS * (1 if name in MOVERS else 30)) for name in (*MOVERS, SHORT)}
    mover.plan("budget", "set", "default", f"{BUDGET / 1e6}usd")
    account = Account(slurm_bed, mover)
    with serving(mover, tmp_path / "monitor.log") as monitor:
        for name in (*MOVERS, SHORT):
            _order(mover, specs[name], name, CAPS[name])
        _order(mover, specs[SHORT], "one-too-many", 50_000, code=5)
        taken = _disturb(account, monitor, shared)
        whys = {name: mover.json("why", name, "--all") for name in (*MOVERS, SHORT)}
        mover.plan("budget", "show", "default")  # settles
        runs = account.look()
    answer = {
        "steps": STEPS,
        "deadline_min": MINUTES,
        "taken_away": taken,
        "killed": monitor.kills,
        "looks": account.looks,
        "runs": {
            name: {
                "state": [run.state, run.state_reason],
                "cost_usd": (run.cost_micro_usd or 0) / 1e6,
                "attempts": [
                    [_place(row), row.outcome, row.started_at, row.ended_at, row.first_step, row.last_step]
                    for row in run.attempts
                ],
                "deadline_at": whys[name]["deadline_at"],
                "events": whys[name]["events"],
            }
            for name, run in runs.items()
        },
    }
    if "RESULT" in os.environ:
        Path(os.environ["RESULT"]).write_text(json.dumps(answer, indent=1))
    for name in MOVERS:
        run, why = runs[name], whys[name]
        assert run.state == "succeeded", answer
        assert run.current.ended_at and run.current.ended_at < why["deadline_at"], answer
        assert len(run.attempts) > 1, answer
        assert not any(event["kind"] == "moved_badly" for event in why["events"]), answer
    assert taken and len(monitor.kills) >= 2, answer
    assert "on_demand" in {_market(runs[name]) for name in MOVERS}, (
        answer
    )  # one may be done before it must go there
    assert runs[SHORT].state == "capped", answer
    assert any(event["kind"] == "cap_warning" for event in whys[SHORT]["events"]), answer
    for name, run in runs.items():
        nothing_runs(slurm_bed, user, name)
        assert abs(account.billed_micro_usd(name) - (run.cost_micro_usd or 0)) <= ROUNDING_MICRO_USD * len(
            run.attempts
        ), answer
