"""Two replicas of one run at once: the newer takes over while the older commits, is paused, or wakes up again."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field

from jobs.manifest import parse_head
from tests.chaos.campaign import Faults, Scene, Tally
from tests.chaos.fault_proxy import MOMENTS, HeadWrite, Moment
from tests.chaos.payload import read_notes
from tests.chaos.payload_run import PayloadRun

_FAULT_SHARE = 0.03
_START_LIMIT_S = 60.0


@dataclass
class Fencing:
    """What the rounds saw; `problems` must stay empty."""

    rounds: int = 0
    paused: int = 0
    fenced: int = 0
    commits_of_older: int = 0
    commits_of_newer: int = 0
    problems: list[str] = field(default_factory=list)


def fencing(scene: Scene, rounds: int, seed: int) -> Fencing:
    """So many rounds, each a run of its own."""
    rng, found = random.Random(seed), Fencing()
    for number in range(rounds):
        _round(scene, rng, f"twins-{seed}-{number}", found)
        found.rounds += 1
    return found


def _round(scene: Scene, rng: random.Random, name: str, found: Fencing) -> None:
    tally = Tally()
    run = PayloadRun(scene, rng, name, tally)
    scene.proxy.head_writes.clear()
    run.step_s = 0.02  # still at it when the other one comes
    trigger = _Trigger(rng.randint(1, 4), rng.choice(MOMENTS))
    scene.proxy.fault = Faults(random.Random(rng.random()), _FAULT_SHARE)
    scene.proxy.event = trigger
    older = run.start(full_disk=False)
    trigger.struck.wait(_START_LIMIT_S)
    pause = rng.random() < 0.5
    if pause:
        found.paused += 1
        os.kill(older, signal.SIGSTOP)
    newer = run.start(full_disk=False)
    if pause:
        time.sleep(rng.uniform(0, 0.5))
        os.kill(older, signal.SIGCONT)
    codes = [scene.zygote.wait(older), scene.zygote.wait(newer)]
    scene.proxy.fault, scene.proxy.event = (lambda _: None), (lambda *_: None)
    run.audit(code=1)
    found.fenced += "lost" in run.log()
    if any(code not in (0, 1) for code in codes):
        tally.problems.append(f"{name}: exit codes {codes}: {run.log()[-2000:]}")
    acknowledged = {
        (note.fence, note.step) for note in read_notes(run.root / "notes") if note.what == "acknowledged"
    }
    found.problems += tally.problems + [
        f"{name}: {text}" for text in _wrong(scene.proxy.head_writes, acknowledged, found)
    ]


class _Trigger:
    """Set at one moment of one write of HEAD."""

    def __init__(self, count: int, moment: Moment) -> None:
        self.struck = threading.Event()
        self._left = count
        self._moment = moment

    def __call__(self, kind: str, moment: Moment) -> None:
        if kind == "put head" and moment == self._moment:
            self._left -= 1
            if self._left == 0:
                self.struck.set()


def _wrong(writes: list[HeadWrite], acknowledged: set[tuple[int, int]], found: Fencing) -> list[str]:
    """The writes that the server took, in the order that their tags give, and what is wrong with them."""
    follows = {write.before: write for write in writes}
    if len(follows) != len(writes):
        return ["HEAD was swapped twice from one state"]
    heads, tag = [], ""
    while tag in follows:
        heads.append(parse_head(follows[tag].body))
        tag = follows[tag].after
    problems = [] if len(heads) == len(writes) else ["a write of HEAD followed no other"]
    fences = [head.fence for head in heads]
    if fences != sorted(fences):
        problems.append(f"a fenced attempt committed: {fences}")
    committed = {(head.fence, head.newest.step) for head in heads if head.newest}
    if not acknowledged <= committed:
        problems.append(f"acknowledged, but never committed: {acknowledged - committed}")
    found.commits_of_older += sum(fence == 1 for fence, _ in acknowledged)
    found.commits_of_newer += sum(fence > 1 for fence, _ in acknowledged)
    return problems
