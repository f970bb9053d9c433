"""A small world in which every command has something to say, and always the same: clock, prices, machine, ledger."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobs.appraise import Appraisal
from jobs.progress import MetricResult
from planner import local_machine
from planner.cli.context import App
from planner.cli.main import cli
from planner.doctor import Check
from planner.moving.decision import decide
from planner.moving.view import look
from planner.outbox import Outbox
from planner.price_age import PriceLimit
from planner.reserve.book import ReservationBook
from planner.runs import Attempt
from planner.store import Change, Store
from providers.errors import LaunchError
from tests.cli.test_checkpoints import commit
from tests.cli.test_learning import record
from tests.planner.moving_runs import attempt_at, later, moving
from tests.planner.run_factories import START, attempt_of, terms_of
from tests.workers import eventually, make_python, order_exit

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
ENDED = "2026-11-22T12:20:00.000Z"
SPEC = """\
spec_version: 1
name: support
project: helpdesk
model: meta-llama/Llama-3.1-8B
method: {kind: lora, rank: 16, targets: all-linear}
task: sft
data: {format: messages, samples: 20000, tokens_per_sample: 700}
train: {epochs: 3, sequence_length: 4096, packing: true, global_batch: 16}
goal: {objective: cheapest_by_deadline, within: 24h, budget: 60usd}
"""
CATALOG = """\
InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone
p5.48xlarge,H100,8,192,2048,,55.04,21.5,us-east-1,use1-az1
g6e.xlarge,L40S,1,4,32,,1.861,0.9,us-east-1,use1-az1
g6.xlarge,L4,1,4,16,,0.8048,0.37,us-west-2,usw2-az1
p4d.24xlarge,A100,8,96,1152,,21.96,,us-east-1,
"""
CONFIG = """\
local: {usd_per_hour: 2}
prices: {max_age: 30d}
inhouse:
- {name: basement, gpu: H100, gpus: 1, gpu_memory_gib: 80, machines: 2, capex: 35000usd, years: 4, watts: 1200,
   usd_per_kwh: 0.3, utilisation: 60%}
"""
ROWS = """\
{"messages": [{"role": "user", "content": "Write to ann@example.org"}, {"role": "assistant", "content": "Done."}]}
nonsense
{"messages": [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Hi."}]}
"""
#: What is different every time, and what is shown in its place.
_CHANGING: tuple[tuple[str, str], ...] = (
    (r"[0-9a-f]{64}", "<sha256>"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
    (r'("pids": )\[[^]]*\]', r"\1<pids>"),
    (r"(processes +)[\d ]+\d", r"\1<pids>"),
    (r'("tuneplan_version": )"[^"]*"', r'\1"<version>"'),
    (r"tuneplan(\[[a-z,]*\])?==[\w.]+", r"tuneplan\1==<version>"),
    (r"(ExecStart=)\S+", r"\1<plan>"),
    (r"\btp-[0-9a-f]{32}", "tp-<token>"),
    (r'("backend_id": )"\d+"', r'\1"<pid>"'),
)


@dataclass(frozen=True)
class World:
    """Directories of one test.

    Attributes:
        folder: Working directory.
        home: Configuration, state and cache.
        orders: What the workers do, see `tests.workers`.
    """

    folder: Path
    home: Path
    orders: Path

    def plan(self, *words: object, code: int | None = 0) -> Result:
        """Run a command by the clock of this world."""
        app = App(now=lambda: NOW)
        result = CliRunner(mix_stderr=False).invoke(cli, [str(word) for word in words], obj=app)
        assert code is None or result.exit_code == code, (words, result.stdout, result.stderr)
        return result

    def end_real_workers(self) -> None:
        """A run that a schedule started trains in earnest."""
        for run in json.loads(self.plan("runs", "--active", "-o", "json").stdout)["runs"]:
            for pid in run.get("pids", ()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def shown(self, text: str, masks: Iterable[tuple[str, str]] = ()) -> str:
        """The text without what is different every time."""
        places = (self.folder, "<folder>"), (self.home, "<home>"), (ROOT, "<repository>")
        for path, name in places:
            text = text.replace(str(path), name)
        for pattern, instead in (*masks, *_CHANGING):
            text = re.sub(pattern, instead, text)
        return text


def world_in(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Set it up: one catalog, one configuration, one spec, a machine of two cores."""
    orders = folder / "orders"
    orders.mkdir()
    for name, value in {
        "ORDERS": str(orders),
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "HOME": str(folder),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", str(make_python(folder / "bin")))
    monkeypatch.setattr(sys, "argv", ["plan"])
    monkeypatch.setattr(local_machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(local_machine, "_ram_gib", lambda: 16.0)
    monkeypatch.setattr("planner.cli.monitor.socket.gethostname", lambda: "host")
    (home / "config.yaml").write_text(CONFIG)
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "goat").symlink_to(ROOT / "examples" / "tiny-goat")
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "v8" / "aws").mkdir(parents=True)
    (folder / "v8" / "aws" / "vms.csv").write_text(CATALOG)
    world = World(folder, home, orders)
    world.plan("prices", "import", "v8", "--as-of", "2026-11-20")
    return world


def one_run_of_each_kind(world: World) -> None:
    """A run that is over, one that failed and one that waits for a machine."""
    with Store(world.home / "state" / "plan.db") as store:
        _keep(store, "over-1", "succeeded", "done", outcome="done", cost=333_333)
        _keep(store, "broken-1", "failed", "exit code 1", outcome="failed", cost=250_000)
        store.create(
            "new-1", terms_of(run_id="new-1", infra="skypilot", cap_micro_usd=5_000_000), attempt_of()
        )


def _keep(store: Store, run_id: str, state: Any, reason: str, *, outcome: Any, cost: int) -> None:
    store.create(run_id, terms_of(run_id=run_id, cap_micro_usd=2_000_000), attempt_of())
    started = replace(store.find(run_id).current, backend_id="77", started_at=START)
    store.apply(store.find(run_id), Change("running", "training", started, START))
    ended: Attempt = replace(started, ended_at=ENDED, outcome=outcome, cost_micro_usd=cost, last_step=600)
    store.apply(store.find(run_id), Change(state, reason, ended, ENDED))


def a_finished_run(world: World) -> None:
    """A run with everything that a report needs."""
    record(world.home, 2.0, "goat-1")


def a_running_one(world: World) -> None:
    """A run with a living worker."""
    world.plan("launch", "goat/spec.yaml", "--infra", "local", "--run-id", "goat-1", "--no-cap", "--yes")
    eventually((world.orders / "ready").exists)


def two_preempted_ones(world: World) -> None:
    """Runs whose workers left with their checkpoint."""
    order_exit(world.orders, 75)
    for run_id in ("goat-1", "goat-2"):
        world.plan("launch", "goat/spec.yaml", "--infra", "local", "--run-id", run_id, "--no-cap", "--yes")
        world.plan("wait", run_id, code=10)
    (world.orders / "exit").unlink()


def checkpoints(world: World) -> None:
    """Two committed steps and a finished model."""
    commit((world.folder / "store").as_uri(), world.folder, 10, 20, output=True)


def files_of_a_run(world: World) -> None:
    """What a run that is over left on the disk."""
    one_run_of_each_kind(world)
    for folder in ("local", "bundles", "checkpoints"):
        (world.home / "state" / folder / "over-1").mkdir(parents=True)
        (world.home / "state" / folder / "over-1" / "file").write_bytes(b"x" * 100)


def a_schedule(world: World) -> None:
    """One that is due on the first of December."""
    world.plan(*SCHEDULE, "--name", "monthly", "--yes")


def two_schedules(world: World) -> None:
    """One to run for a person, one for a program."""
    a_schedule(world)
    world.plan(*SCHEDULE, "--name", "again", "--yes")


def a_lost_ledger(world: World) -> None:
    """Workers whose runs nobody knows."""
    a_running_one(world)
    world.plan("launch", "goat/spec.yaml", "--infra", "local", "--run-id", "goat-2", "--no-cap", "--yes")
    for file in (world.home / "state").glob("plan.db*"):
        file.unlink()


SCHEDULE = (
    "schedule", "add", "goat/spec.yaml", "--infra", "local", "--cron", "0 2 1 * *", "--tz", "Europe/Berlin",
    "--budget-per-period", "300usd",
)  # fmt: skip
INHOUSE = ("spec.yaml", "--by", "2026-12-20", "--provider", "inhouse")


def a_reservation(world: World) -> None:
    """An hour of the company's own machines."""
    world.plan(
        "reserve",
        "buy",
        *INHOUSE,
        "--offer",
        offer_id(world),
        "--name",
        "mine",
        "--no-launch",
        *agreed(world),
    )


def a_longer_spec(world: World) -> None:
    """The spec with more epochs and a larger adapter."""
    longer = SPEC.replace("epochs: 3", "epochs: 5").replace("rank: 16", "rank: 64")
    (world.folder / "longer.yaml").write_text(longer)


def a_standing_order(world: World) -> None:
    """Nothing is bought yet."""
    words = ("--cap", "900", "--confirm-usd", "900", "--name", "later", "--no-launch")
    world.plan("reserve", "schedule", *INHOUSE, *words)


def two_unclear_purchases(world: World) -> None:
    """The provider's answers were lost."""
    two_standing_orders(world)
    with ReservationBook(world.home / "state" / "plan.db") as book:
        for name in ("later", "later-2"):
            row = book.move(book.get(name), "intent", "to be bought", ENDED, upfront_micro_usd=0)
            assert row is not None
            book.move(row, "unknown", "the answer was lost", ENDED)


def two_standing_orders(world: World) -> None:
    """One to cancel for a person, one for a program."""
    a_standing_order(world)
    words = ("--cap", "800", "--confirm-usd", "800", "--name", "later-2", "--no-launch")
    world.plan("reserve", "schedule", *INHOUSE, *words)


def a_moving_run(world: World) -> None:
    """Begun on spot, lost there, gone on in another place, and pressed by its deadline in the end."""
    losses = ((1.62, "8 GPUs, 2 interruptions in 0.9 h of your own spot runs"), (1.44, "8 GPUs"))
    terms = moving(work_h=4.0, deadline_h=4.9, losses=losses)
    kept, before = terms_of(moving_json=terms.to_json()), None
    with Store(world.home / "state" / "plan.db") as store:

        def decided(hours: float) -> None:
            nonlocal before
            run = store.find("run-1")
            before = decide(run, terms, look(run, terms, {}, PriceLimit(), later(hours)), before)
            store.record_decision("run-1", before)

        store.create("run-1", kept, replace(attempt_at(1, "bed-a", "spot"), started_at=None, backend_id=None))
        decided(0.0)
        first = replace(attempt_at(1, "bed-a", "spot"), cost_micro_usd=60_000)
        store.apply(store.find("run-1"), Change("running", "training", first, later(0.05), kind="observed"))
        lost = replace(first, ended_at=later(0.2), outcome="preempted")
        store.apply(
            store.find("run-1"), Change("preempted", "its spot machine was taken away", lost, later(0.2))
        )
        decided(0.21)
        second = attempt_at(2, "bed-b", "spot", started_at=later(0.3), cost_micro_usd=100_000)
        store.add_attempt(store.find("run-1"), second, cap_micro_usd=None, max_duration_s=None)
        store.apply(store.find("run-1"), Change("running", "training", second, later(0.35)))
        decided(0.55)
        store.note(
            store.find("run-1"), "moved", "attempt 2 goes on from step 200 on spot in slurm/bed-b", later(0.6)
        )


def offer_id(world: World) -> str:
    """The first offer of the company's own machines."""
    return str(_offer(world)["offer_id"])


def agreed(world: World) -> tuple[str, ...]:
    """Agree to its price."""
    return ("--confirm-usd", str(_offer(world)["upfront_usd"]))


def _offer(world: World) -> dict[str, Any]:
    document = json.loads(world.plan("reserve", "offers", *INHOUSE, "-o", "json").stdout)
    first: dict[str, Any] = document["offers"][0]
    return first


MEASURED = Appraisal("exact_match", (MetricResult("exact_match", "eval", 500, 0.012, None, True),), 3.5)
CHECKS = (
    Check("P001", "Python", "ok", "3.11"),
    Check("P002", "disk", "warning", "1.5 GiB free", "free some"),
    Check("P003", "run database", "blocking", "written by a newer tuneplan", "install that one"),
    Check(
        "P010",
        "extra train",
        "note",
        "not installed: trains on this machine",
        "pip install 'tuneplan[train]'",
    ),
)

Prepare = Callable[[World], None]


def a_message_that_nobody_took(world: World) -> None:
    """A run that has spent most of its cap, and somebody who could not be told so."""
    with Store(world.home / "state" / "plan.db") as store:
        store.create("goat-1", terms_of(run_id="goat-1", notify=("CHAT_URL",)), attempt_of())
        store.note(store.find("goat-1"), "cap_warning", "80 % of the cap of $5 is spent", START)

    def refuse(*_: object) -> None:
        raise LaunchError("the service behind CHAT_URL did not take the message")

    with Outbox(world.home / "state" / "plan.db") as outbox:
        outbox.collect(())
        outbox.deliver(refuse, lambda: "2026-11-22T12:29:59.000Z")
