"""Runs that move under one budget, on machines that are only counted: who does what, and is cut off where, is drawn.

At each write of ledger, register and backend, before and after it, a point is passed. At a drawn point the process
that passes it is killed, or somebody else does something in between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from jobs.progress import KEY as PROGRESS
from jobs.progress import CheckpointRef, Progress, StepTimes
from jobs.spec import JobSpec, LimitsJob
from jobs.stop_request import KEY as STOP
from jobs.stop_request import stop_request
from planner.bundle import Bundle
from planner.cli.desk import entered_here
from planner.entry_book import (
    Entry,
    entering,
    entry_of,
    give_back_cut_off,
    hold_again,
    holding_again,
)
from planner.launch import Desk, cancel, launch, resume
from planner.ledger_identity import identity_of
from planner.monitor import observe
from planner.places import Places
from planner.register import ProjectBook, enter, read_book, set_budget, settle_from
from planner.runs import RESUMABLE, Run, utc_text
from planner.service import Habits, look_at_all
from planner.store import Store
from providers.directory_store import DirectoryStore
from providers.errors import LaunchError, TuneplanError
from providers.launcher import BackendStatus, LaunchRequest
from providers.object_store import ObjectStore
from providers.offers import Offer
from tests.planner.moving_runs import attempt_at, moving
from tests.planner.run_factories import START, terms_of

PROJECT = "default"
STEP_S, STEPS, EVERY, BOOT_S, RELEASE_S = 14.4, 250, 10, 60.0, 20.0


class Killed(BaseException):
    """The end of a process, which nothing catches."""


@dataclass
class Machine:
    """One that was rented: from when to when, at what price, and what its worker has done."""

    run_id: str
    attempt: int
    offer: Offer
    limits: LimitsJob
    limit_s: float | None
    start_s: float
    first_step: int
    step: int
    committed: int = 0
    end_s: float | None = None
    left_s: float | None = None  # when the worker ended, the machine not yet
    exit_code: int | None = None
    how: str = ""

    def cost_usd(self, now_s: float) -> float:
        until = now_s if self.end_s is None else min(self.end_s, now_s)
        return (self.offer.price_usd_per_hour or 0.0) * max(until - self.start_s, 0.0) / 3600


@dataclass
class World:
    """Clock, backend, workers, ledger and register."""

    root: Path
    now_s: float = 0.0
    machines: list[Machine] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)
    silent: bool = False
    point: Callable[[], None] = lambda: None
    told: list[str] = field(default_factory=list)
    home: str = "state"

    def now(self) -> str:
        return utc_text(datetime.fromisoformat(START) + timedelta(seconds=self.now_s))

    def seconds(self, at: str) -> float:
        return (datetime.fromisoformat(at) - datetime.fromisoformat(START)).total_seconds()

    # the backend

    def open_machines(self, run_id: str) -> list[Machine]:
        return [one for one in self.machines if one.run_id == run_id and one.end_s is None]

    def launch(self, request: LaunchRequest) -> BackendStatus:
        self.point()
        (offer,) = request.offers
        mine = [one for one in self.machines if one.run_id == request.run_id]
        if not any(one.attempt == request.attempt for one in mine):
            if any(one.end_s is None or one.attempt > request.attempt for one in mine):
                raise LaunchError("an earlier attempt is still there")
            if (offer.region, offer.market) in self.refused:
                raise LaunchError("no machine")
            job = JobSpec.load(request.bundle / "job.json")
            first = mine[-1].committed if mine else 0
            self.machines.append(
                Machine(request.run_id, request.attempt, offer, job.limits, request.max_duration_s,
                        self.now_s, first, first, first)
            )  # fmt: skip
        self.point()
        return self.status(request.run_id)

    def status(self, run_id: str) -> BackendStatus:
        self.point()
        mine = [one for one in self.machines if one.run_id == run_id]
        if self.silent:
            return BackendStatus("unknown", reason="no answer")
        if not mine:
            return BackendStatus("absent")
        one = mine[-1]
        state: Any = "running" if one.end_s is None else one.how
        if one.end_s is None and one.left_s is not None:
            state = "releasing"
        stopped = {"cancelled": "cancel", "limit": "max_duration"}.get(one.how)
        return BackendStatus(
            {"limit": "failed"}.get(state, state), f"m-{one.attempt}", attempt=one.attempt,
            exit_code=one.exit_code, started_at=self._at(one.start_s), ended_at=self._at(one.end_s),
            stopped_by=stopped,  # type: ignore[arg-type]
        )  # fmt: skip

    def cancel(self, run_id: str, *, grace_s: float = 60.0) -> BackendStatus:
        self.point()
        for one in self.open_machines(run_id):
            if not self.silent:
                one.end_s, one.how = self.now_s, "cancelled"
        self.point()
        return self.status(run_id)

    def released(self, run_id: str, *, before_attempt: int | None = None) -> bool:
        return not any(one.attempt < (before_attempt or 10**6) for one in self.open_machines(run_id))

    def _at(self, at_s: float | None) -> str | None:
        return None if at_s is None else utc_text(datetime.fromisoformat(START) + timedelta(seconds=at_s))

    def preempt(self, run_id: str) -> None:
        for one in self.open_machines(run_id):
            if one.offer.market == "spot" and one.left_s is None:
                one.end_s, one.how = self.now_s, "vanished"

    # the workers

    def pass_time(self, seconds: float) -> None:
        for _ in range(max(round(seconds / 5), 1)):
            self.now_s += 5
            for one in self.machines:
                if one.end_s is None:
                    self._work(one)

    def _work(self, one: Machine) -> None:
        age_s = self.now_s - one.start_s
        if one.left_s is not None:
            if self.now_s >= one.left_s + RELEASE_S:
                one.end_s = self.now_s
            return
        if one.limit_s is not None and age_s >= one.limit_s:
            one.end_s, one.how = one.start_s + one.limit_s, "limit"
            return
        if age_s < BOOT_S:
            return
        one.step = min(one.first_step + int((age_s - BOOT_S) / STEP_S), STEPS)
        limits, price = one.limits, one.limits.usd_per_hour or 0.0
        reserve_s = limits.reserve_s + STEP_S
        spent_usd = limits.spent_usd + price * (age_s + reserve_s) / 3600
        asked = self.prefix(one.run_id).get(STOP)
        mine = stop_request(one.run_id, limits.launch, limits.launched_at)
        if one.step == STEPS:
            self._leave(one, "succeeded", 0, "done")
        elif (limits.cap_usd is not None and spent_usd >= limits.cap_usd) or (asked and asked[0] == mine):
            self._leave(one, "failed", 77, "capped")
        else:
            one.committed = max(one.committed, one.step // EVERY * EVERY)
            self._say(one, "training", one.committed)

    def _leave(self, one: Machine, how: str, code: int, said: str) -> None:
        one.left_s, one.how, one.exit_code = self.now_s, how, code
        one.committed = one.step
        self._say(one, said, one.step)

    def _say(self, one: Machine, state: Any, committed: int) -> None:
        ref = CheckpointRef(committed, self.now(), "file:///none", 1, "0" * 64) if committed else None
        said = Progress(
            one.run_id, one.attempt, state=state, step=one.step, max_steps=STEPS, last_checkpoint=ref,
            resumed_from_step=one.first_step, step_time_s=StepTimes(STEP_S, STEP_S, STEP_S),
            started_at=self._at(one.start_s), heartbeat_at=self.now(), launch=one.limits.launch,
        )  # fmt: skip
        self.prefix(one.run_id).put(PROGRESS, said.to_json().encode())

    def prefix(self, run_id: str) -> DirectoryStore:
        return DirectoryStore(self.root / "store" / run_id)

    # the people and the monitor

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        with PointedStore(self) as store:
            yield Desk(store, self, Places(self.root / self.home), self.now)

    def register(self) -> ObjectStore:
        return PointedRegister(self)

    def begin(self, limit_usd: float) -> None:
        set_budget(self.register(), PROJECT, round(limit_usd * 1e6), "total")

    def settle(self) -> ProjectBook:
        with self.desk() as desk:
            self._settle(desk)
        return read_book(self.register(), PROJECT)

    def _settle(self, desk: Desk) -> None:
        register, uri = self.register(), self.uri
        give_back_cut_off(desk.store.path, register, uri, PROJECT, now=self.now())
        settle_from(register, PROJECT, lambda book: entered_here(desk.store, register, uri, book, self.now()))

    @property
    def uri(self) -> str:
        return (self.root / "register").as_uri()

    def launch_run(self, name: str, cap_usd: float, deadline_h: float) -> None:
        """As `plan launch --move --monitor service`."""
        cap = round(cap_usd * 1e6)
        terms = moving(
            work_h=1.0, deadline_h=deadline_h, start_at=self.now(), as_of_at="2026-11-22", restart_h=0.05
        )
        kept = terms_of(
            run_id=name, infra="cluster", secrets=(), monitor="service", cap_micro_usd=cap,
            register_uri=self.uri, checkpoint_uri=self.prefix(name).uri, moving_json=terms.to_json(),
        )  # fmt: skip
        offer = json.loads(attempt_at(1, "bed-a", "spot").offer_json)
        rented = {"alternatives": [], "max_usd_per_hour": None, "python": None, "setup": []}
        candidate = json.loads(kept.candidate_json) | {"offer": offer, "rented": rented}
        kept = replace(kept, candidate_json=json.dumps(candidate))
        with self.desk() as desk:
            self._settle(desk)
            register, identity = self.register(), identity_of(desk.store.path)
            entry = Entry(name, PROJECT, self.uri, self.now())
            with entering(desk.store.path, register, entry):
                known = desk.store.get(name)
                if known is None or known.came_to_nothing or not known.final:
                    most = cap if known is None or known.came_to_nothing else known.terms.cap_micro_usd
                    enter(register, name, PROJECT, None, ledger=identity, cap_micro_usd=most, at=self.now())
                launch(desk, name, kept, 300_000)

    def resume_run(self, name: str, cap_usd: float | None) -> None:
        """As `plan resume`."""
        with self.desk() as desk:
            run = desk.store.get(name)
            if run is None:
                return
            run = observe(desk.store, self, run, self.now())
            cap = None if cap_usd is None else round(cap_usd * 1e6)
            with holding_again(desk.store.path, entry_of(run, self.now())):
                if run.state in RESUMABLE:
                    hold_again(run, cap, None)
                resume(desk, run, cap_micro_usd=cap)

    def cancel_run(self, name: str) -> None:
        with self.desk() as desk:
            run = desk.store.get(name)
            if run is not None:
                cancel(desk, run, grace_s=60.0)

    def round(self) -> None:
        with self.desk() as desk:
            look_at_all(lambda _: desk, desk, Habits(), self.told.append)

    def runs(self) -> list[Run]:
        with Store(Places(self.root / self.home).ledger) as store:
            return store.all_runs()


class PointedStore(Store):
    """A ledger that passes a point before and after each write."""

    def __init__(self, world: World) -> None:
        super().__init__(Places(world.root / world.home).ledger)
        self._world = world


def _pointed(name: str) -> Any:
    def write(self: PointedStore, *args: Any, **named: Any) -> Any:
        self._world.point()
        done = getattr(Store, name)(self, *args, **named)
        self._world.point()
        return done

    return write


for _name in ("create", "launch_again", "apply", "ask_stop", "note", "record_decision"):
    setattr(PointedStore, _name, _pointed(_name))


class PointedRegister(DirectoryStore):
    """A register that passes a point at each look and around each write."""

    def __init__(self, world: World) -> None:
        super().__init__(world.root / "register")
        self._world = world

    def get(self, key: str) -> Any:
        self._world.point()
        return super().get(key)

    def put_if_absent(self, key: str, body: bytes) -> Any:
        self._world.point()
        done = super().put_if_absent(key, body)
        self._world.point()
        return done

    def compare_and_swap(self, key: str, body: bytes, tag: str | None) -> Any:
        self._world.point()
        done = super().compare_and_swap(key, body, tag)
        self._world.point()
        return done


def only_the_job(target: Path, job: JobSpec) -> Bundle:
    """A bundle without the code."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "job.json").write_text(job.to_json())
    return Bundle(target, "0" * 64)


def interrupted(world: World, act: Callable[[], Any], at: int | None, then: Callable[[], Any] | None) -> None:
    """Do something; at a point of it the process is killed (`then` is None), or somebody else does something."""
    left = at

    def point() -> None:
        nonlocal left
        if left is None:
            return
        left -= 1
        if left < 0:
            left = None
            if then is None:
                raise Killed
            with suppress(TuneplanError):
                then()

    world.point = point
    try:
        with suppress(TuneplanError):
            act()
    except Killed:
        pass
    finally:
        world.point = lambda: None
