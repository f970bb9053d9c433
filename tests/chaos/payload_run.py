"""Runs of the payload without torch."""

from __future__ import annotations

import random
from pathlib import Path

from jobs.manifest import Pointer
from providers.stores import open_store
from tests.chaos.audit import audit
from tests.chaos.campaign import ChaosRun, Scene, Tally
from tests.chaos.payload import PART_BYTES, WEIGHTS, Note, Payload, read_notes, weights_after


class PayloadRun(ChaosRun):
    """The state of every step is known, so each restore and each checkpoint can be checked."""

    step_s = 0.008

    def __init__(self, scene: Scene, rng: random.Random, name: str, tally: Tally) -> None:
        super().__init__(scene, rng, name, tally)
        self._seed = rng.randrange(1 << 30)
        self._large = rng.choice([10_000, 300_000, PART_BYTES + 300_000])
        self._read = 0
        self._store = open_store(scene.uri(name, scene.server.endpoint))

    def start(self, *, full_disk: bool) -> int:
        payload = Payload(
            uri=self.scene.uri(self.name, self.scene.proxy.endpoint),
            work=str(self.root / "work"),
            notes=str(self.root / "notes"),
            steps=self.steps,
            every=self.every,
            seed=self._seed,
            step_s=self.step_s,
            large_bytes=self._large,
            disk_bytes=self._large // 2 if full_disk else None,
            environment=self.scene.server.environment,
        )
        payload.write(self.root / "payload.json")
        return self.scene.zygote.start(
            "tests.chaos.payload:run", [str(self.root / "payload.json")], self.root / "log"
        )

    def training_began(self) -> bool:
        return any(note.what == "training" for note in self._notes())

    def audit(self, code: int) -> bool:
        for note in self._notes():
            self._check(note)
        self._read += len(self._notes())
        head, problems = audit(self._store, self.acknowledged, self.root / "audit", self._wrong)
        for problem in problems:
            self.problem(problem)
        if code == 0 and (head.output is None or head.output.step != self.steps):
            self.problem("ended without a finished model")
        self.tally.finished_runs += head.output is not None
        return head.output is not None

    def _notes(self) -> list[Note]:
        """Those that were not checked yet."""
        return read_notes(self.root / "notes")[self._read :]

    def _check(self, note: Note) -> None:
        if note.what == "acknowledged":
            self.tally.commits += 1
            self.acknowledged = max(self.acknowledged, note.step)
        if note.what == "restored":
            self.tally.restores += 1
            if note.state != weights_after(self._seed, note.step):
                self.problem(f"a corrupt restore of step {note.step}")
            if note.step < self.acknowledged:
                self.problem(f"restored step {note.step} though {self.acknowledged} was acknowledged")

    def _wrong(self, directory: Path, pointer: Pointer) -> str | None:
        right = (directory / WEIGHTS).read_text() == weights_after(self._seed, pointer.step)
        return None if right else "holds something else"
