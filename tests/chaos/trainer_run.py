"""Runs of the real trainer."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

from jobs.manifest import Pointer
from jobs.resume import check_resumable, step_of
from providers.errors import CorruptDataError
from providers.object_store import ObjectStore
from providers.stores import open_store
from tests.chaos.audit import audit
from tests.chaos.campaign import ChaosRun, Scene, Tally
from tests.jobs.runs import Runs

_DISK_BYTES = 8_000  # room for notes, not for an optimizer
_COMMITTED = re.compile(r"checkpoint of step (\d+) committed")
_RESUMED = re.compile(r"resuming from step (\d+)")


class BucketRuns(Runs):
    """Runs whose stores are prefixes of the server."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene.zygote, scene.root)
        self._scene = scene

    def store(self, name: str) -> ObjectStore:
        return open_store(self._scene.uri(name, self._scene.server.endpoint))


class TrainerRun(ChaosRun):
    """A short LoRA; every run must end with the weights of one that nobody disturbed."""

    steps = 12
    every = 2

    def __init__(self, scene: Scene, rng: random.Random, name: str, tally: Tally, undisturbed: str) -> None:
        super().__init__(scene, rng, name, tally)
        self._runs = BucketRuns(scene)
        self._store = self._runs.store(name)
        self._undisturbed = undisturbed
        self._read = 0
        job = self._runs.sft(name, steps=self.steps, every=self.every, keep=2)
        uri = scene.uri(name, scene.proxy.endpoint)
        self._job = replace(job, checkpoints=replace(job.checkpoints, uri=uri))

    @classmethod
    def undisturbed(cls, runs: Runs) -> str:
        """Hash of the weights of a quiet run."""
        runs.complete(runs.sft("quiet", steps=cls.steps, every=cls.every))
        return runs.weights("quiet")

    def start(self, *, full_disk: bool) -> int:
        machine = {
            "environment": self.scene.server.environment,
            "disk_bytes": _DISK_BYTES if full_disk else None,
        }
        (self.root / "machine.json").write_text(json.dumps(machine))
        return self._runs.start(self._job, "tests.chaos.payload:train_real")

    def training_began(self) -> bool:
        return "training from step" in self.log()[self._read :]

    def audit(self, code: int) -> bool:
        text = self.log()[self._read :]
        self._read += len(text)
        for step in map(int, _RESUMED.findall(text)):
            self.tally.restores += 1
            if step < self.acknowledged:
                self.problem(f"resumed from step {step} though {self.acknowledged} was acknowledged")
        committed = [int(step) for step in _COMMITTED.findall(text)]
        self.tally.commits += len(committed)
        self.acknowledged = max(self.acknowledged, *committed, 0)
        head, problems = audit(self._store, self.acknowledged, self.root / "audit", _wrong)
        for problem in problems:
            self.problem(problem)
        if "passed over" in text:
            self.problem(f"a checkpoint was passed over: {text[-2000:]}")
        if code == 0 and self._runs.weights(self.name) != self._undisturbed:
            self.problem("the final weights differ")
        self.tally.finished_runs += head.output is not None
        return head.output is not None


def _wrong(directory: Path, pointer: Pointer) -> str | None:
    if pointer.manifest.startswith("manifests/output-"):
        return None
    try:
        check_resumable(directory)
    except CorruptDataError as error:
        return error.message
    return None if step_of(directory) == pointer.step else "is of another step"
