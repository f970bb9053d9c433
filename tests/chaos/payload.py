"""What runs in the processes that are killed: a training without torch, a chain of hashes, and the real one."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.checkpoint import CheckpointStore
from jobs.progress import CheckpointRef
from jobs.uploader import Uploader
from providers.errors import TuneplanError
from providers.stores import open_store

PART_BYTES = 5 << 20
STORE_MODULES = ("boto3", "boto3.s3.transfer", "jobs.uploader", "providers.s3", "tests.chaos.payload")
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Payload:
    """What the worker is told.

    Attributes:
        notes: File that gets a line for each restore and each acknowledged commit.
        large_bytes: Size of the optimizer's file; more than PART_BYTES goes in parts.
        disk_bytes: Largest file that this machine takes, None for no limit.
        environment: Login of the store.
    """

    uri: str
    work: str
    notes: str
    steps: int
    every: int
    seed: int
    step_s: float
    large_bytes: int
    disk_bytes: int | None
    environment: dict[str, str]

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True, slots=True)
class Note:
    """What an attempt did: `training`, `restored` or `acknowledged`."""

    what: str
    fence: int
    step: int
    state: str


def read_notes(path: Path) -> list[Note]:
    """All of them, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    words = [line.split() for line in lines]
    return [Note(what, int(fence), int(step), state) for what, fence, step, state in words]


def impatient(environment: dict[str, str]) -> None:
    """Take the login, and give up on a silent server after a second instead of a minute."""
    from providers import s3

    os.environ.update(environment, AWS_MAX_ATTEMPTS="4")
    s3.READ_TIMEOUT_S = 1.0
    s3.PART_BYTES = PART_BYTES


def weights_after(seed: int, step: int) -> str:
    """The state after so many steps, as a restored or finished model must have it."""
    state = str(seed)
    for number in range(step):
        state = hashlib.sha256(f"{state} {number}".encode()).hexdigest()
    return state


def run(arguments: list[str]) -> int:
    """One attempt; exit code 0 when the finished model is committed, 1 on an error of the store."""
    payload = Payload(**json.loads(Path(arguments[0]).read_text()))
    impatient(payload.environment)
    _limit_disk(payload.disk_bytes)
    try:
        _train(payload)
    except (TuneplanError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(payload: Payload) -> None:
    checkpoints = CheckpointStore(open_store(payload.uri), "chaos")
    head = checkpoints.take_over()
    if head.output is not None:
        return
    for old in Path(payload.work).glob("attempt-*"):
        shutil.rmtree(old, ignore_errors=True)
    work = Path(payload.work) / f"attempt-{head.fence}"
    work.mkdir(parents=True)
    checkpoints.sweep(grace_s=3600)
    state, step = str(payload.seed), 0
    restored = checkpoints.restore(work / "restored")
    if restored is not None:
        state, step = (work / "restored" / WEIGHTS).read_text(), restored.manifest.step
        _note(payload, "restored", head.fence, step, state)
    uploader = Uploader(
        checkpoints, _noting(payload, head.fence), lambda error: print(error, file=sys.stderr)
    )
    _note(payload, "training", head.fence, step, "-")
    while step < payload.steps and not uploader.fenced:
        state, step = hashlib.sha256(f"{state} {step}".encode()).hexdigest(), step + 1
        time.sleep(payload.step_s)
        if step % payload.every == 0 or step == payload.steps:
            uploader.submit(_save(payload, work / "saving" / f"checkpoint-{step}", state, step), step)
    uploader.close()
    if uploader.fenced:
        raise uploader.fenced
    checkpoints.publish_output(_save(payload, work / "output", state, step), step)


def _save(payload: Payload, directory: Path, state: str, step: int) -> Path:
    directory.mkdir(parents=True)
    (directory / WEIGHTS).write_text(state)
    (directory / "optimizer.pt").write_bytes(hashlib.shake_128(state.encode()).digest(payload.large_bytes))
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (directory / "tokenizer.json").write_text("the same in every checkpoint")
    return directory


def _noting(payload: Payload, fence: int) -> Callable[[CheckpointRef, float], None]:
    return lambda reference, _: _note(payload, "acknowledged", fence, reference.step, "-")


def _note(payload: Payload, what: str, fence: int, step: int, state: str) -> None:
    line = f"{what} {fence} {step} {state}\n".encode()
    with Path(payload.notes).open("ab", buffering=0) as notes:  # a kill leaves a whole line or none
        notes.write(line)


def train_real(arguments: list[str]) -> int:
    """The real trainer, as impatient as the payload; login and size of the disk lie beside the job."""
    from jobs.train import main

    machine = json.loads(Path(arguments[0]).with_name("machine.json").read_text())
    impatient(machine["environment"])
    _limit_disk(machine["disk_bytes"])
    return main(arguments)


def _limit_disk(disk_bytes: int | None) -> None:
    if disk_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (disk_bytes, disk_bytes))
