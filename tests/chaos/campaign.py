"""Kills attempts at random moments while everything between them and the store goes wrong, and counts what it saw."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.fault_proxy import MOMENTS, Fault, FaultProxy, Moment
from tests.jobs.zygote import Zygote
from tests.seaweed import BUCKET, Seaweed

FAULT_SHARE = 0.06
_KILLS_A_RUN = 6
_QUIET_ATTEMPTS = 50
_ATTEMPT_LIMIT_S = 300.0
_FULL_DISK_SHARE = 0.05

# Where the next attempt is killed: in a request of this kind, at a time, or while the trainer writes.
_REQUESTS = {
    "take over": ("put head",),
    "restore": ("get blob", "get manifest", "get head"),
    "upload": ("put blob", "put part", "complete upload", "open upload"),
    "commit": ("put manifest", "put head"),
}
STAGES = ("training", "save", *_REQUESTS)
STAGES_OF_A_FRESH_RUN = tuple(stage for stage in STAGES if stage != "restore")

_FAULTS: tuple[Fault, ...] = (
    *("unavailable", "unavailable", "lost", "lost", "hang", "full"),
    *("cut", "corrupt", "corrupt", "rotten", "rotten"),
)


@dataclass
class Tally:
    """What a campaign saw; `problems` must stay empty."""

    kills: Counter[str] = field(default_factory=Counter)
    ended_by_faults: int = 0
    finished_runs: int = 0
    restores: int = 0
    commits: int = 0
    full_disks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scene:
    """What every run of a campaign uses."""

    zygote: Zygote
    server: Seaweed
    proxy: FaultProxy
    root: Path

    def uri(self, name: str, endpoint: str) -> str:
        """Prefix of a run's own, reached through the proxy or directly."""
        return f"s3://{BUCKET}/{self.root.name}/{name}?endpoint={endpoint}"


class Faults:
    """Draws a fault for a share of the requests; a `full` store stays full for the next few writes."""

    def __init__(self, rng: random.Random, share: float) -> None:
        self._rng = rng
        self._share = share
        self._lock = threading.Lock()
        self._full = 0

    def __call__(self, kind: str) -> Fault | None:
        with self._lock:
            if self._full and kind.startswith("put"):
                self._full -= 1
                return "full"
            if self._rng.random() >= self._share:
                return None
            chosen = self._rng.choice(_FAULTS)
            if chosen == "full":
                self._full = self._rng.randint(1, 6)
            return chosen


class Killer:
    """Kills a process at one moment of one request, or when it is told to."""

    def __init__(self, kinds: tuple[str, ...], count: int, moment: Moment, delay_s: float) -> None:
        self.pid: int | None = None
        self.done = threading.Event()
        self._kinds = kinds
        self._left = count
        self._moment = moment
        self._delay_s = delay_s
        self._lock = threading.Lock()

    def __call__(self, kind: str, moment: Moment) -> None:
        """As the proxy's `event`."""
        if kind not in self._kinds or moment != self._moment:
            return
        with self._lock:
            self._left -= 1
            due = self._left == 0
        if due:
            time.sleep(self._delay_s)
            self.strike()

    def strike(self) -> None:
        """Kill, once."""
        with self._lock:
            if self.pid is not None and not self.done.is_set():
                self.done.set()
                os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Nobody is to be killed any more."""
        with self._lock:
            self.pid = None
            self.done.set()


class ChaosRun(ABC):
    """One run: how it is started and what must hold of it is its kind's."""

    steps = 24
    every = 3

    def __init__(self, scene: Scene, rng: random.Random, name: str, tally: Tally) -> None:
        self.scene = scene
        self.name = name
        self.tally = tally
        self.rng = rng
        self.acknowledged = 0
        self.root = scene.root / name
        self.root.mkdir()

    @abstractmethod
    def start(self, *, full_disk: bool) -> int:
        """Start an attempt; its pid."""

    @abstractmethod
    def audit(self, code: int) -> bool:
        """Look at what the attempt left; whether the finished model is committed."""

    @abstractmethod
    def training_began(self) -> bool:
        """Whether the attempt that runs now has come to its first step."""

    def log(self) -> str:
        """What the attempts wrote."""
        path = self.root / "log"
        return path.read_text() if path.exists() else ""

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.tally.problems.append(f"{self.name}: {text}")

    def attempt(self, stage: str | None) -> bool:
        """Start, kill in that stage (None: leave alone), audit; whether the finished model is committed."""
        proxy, rng = self.scene.proxy, self.rng
        killer = self._killer(stage)
        proxy.fault, proxy.event = Faults(random.Random(rng.random()), FAULT_SHARE), killer
        full_disk = stage is not None and rng.random() < _FULL_DISK_SHARE
        self.tally.full_disks += full_disk
        killer.pid = self.start(full_disk=full_disk)
        if stage in ("training", "save"):
            self._watch(stage, killer)
        code = self.scene.zygote.wait(killer.pid)
        killer.end()
        proxy.fault, proxy.event = (lambda _: None), (lambda *_: None)
        if code == -signal.SIGKILL:
            self.tally.kills[str(stage)] += 1
        elif code == 1:
            self.tally.ended_by_faults += 1
        elif code != 0:
            self.problem(f"exit code {code}: {self.log()[-2000:]}")
        return self.audit(code)

    def _killer(self, stage: str | None) -> Killer:
        rng = self.rng
        kinds = _REQUESTS.get(stage or "", ())
        count = 1 if stage == "take over" else rng.randint(2, 8) if stage == "commit" else rng.randint(1, 10)
        return Killer(kinds, count, rng.choice(MOMENTS), rng.choice([0.0, rng.uniform(0, 0.005)]))

    def _watch(self, stage: str, killer: Killer) -> None:
        """Kill some time after the first step, or when a directory is being written."""
        step = self.every * self.rng.randint(1, self.steps // self.every)
        work = self.root / "work"
        delay_s = self.rng.uniform(0, 0.6)

        def saving() -> bool:
            return any(work.glob(f"attempt-*/saving/checkpoint-{step}"))

        ready: Callable[[], bool] = saving if stage == "save" else self.training_began

        def watch() -> None:
            end_s = time.monotonic() + _ATTEMPT_LIMIT_S
            while not killer.done.is_set() and time.monotonic() < end_s:
                if ready():
                    killer.done.wait(delay_s if stage == "training" else 0)
                    killer.strike()
                time.sleep(0.0005)

        threading.Thread(target=watch, daemon=True).start()


def campaign(
    make: Callable[[Scene, random.Random, str, Tally], ChaosRun], scene: Scene, kills: int, seed: int
) -> Tally:
    """Run after run, each killed a few times and then left to finish, until there were so many kills."""
    rng, tally, number = random.Random(seed), Tally(), 0
    made_before = Counter(scene.proxy.made)
    while (left := kills - sum(tally.kills.values())) > 0:
        number += 1
        run = make(scene, rng, f"run-{seed}-{number}", tally)
        _kill_and_finish(run, min(left, _KILLS_A_RUN), rng)
    tally.faults = Counter(scene.proxy.made) - made_before
    return tally


def _kill_and_finish(run: ChaosRun, kills: int, rng: random.Random) -> None:
    for _ in range(kills):
        if run.attempt(rng.choice(STAGES if run.acknowledged else STAGES_OF_A_FRESH_RUN)):
            return
    for _ in range(_QUIET_ATTEMPTS):
        if run.attempt(None):
            return
    run.problem(f"never finished: {run.log()[-2000:]}")
