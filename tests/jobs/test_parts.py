"""The shards of several processes come into one manifest, or none of them does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.checkpoint import CheckpointStore
from jobs.committed import read_manifest
from jobs.group import Group
from jobs.parts import Parts, PartSender, part_directory
from jobs.uploader import Uploader
from providers.directory_store import DirectoryStore
from providers.errors import StorageError
from tests.jobs.faulty_store import FaultyStore


class Room:
    """Threads that talk as processes would."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._said: list[Any] = [None] * size
        self._all = threading.Barrier(size, timeout=30)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        try:
            self._said[rank] = value
            self._all.wait()
            said = list(self._said)
            self._all.wait()
            return said
        except threading.BrokenBarrierError:
            raise RuntimeError("connection closed by peer") from None

    def leave(self) -> None:
        self._all.abort()


class Member(Group):
    """One of them."""

    @classmethod
    def of(cls, room: Room, rank: int) -> Member:
        return cls(rank, room.size, rank, room)

    def gather(self, value: Any) -> list[Any]:
        return self.control.exchange(self.rank, value)  # type: ignore[no-any-return]

    def share(self, value: Any) -> Any:
        return self.gather(value)[0]


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@contextmanager
def sharded(store: Any, size: int = 3) -> Iterator[tuple[CheckpointStore, Parts, list[PartSender]]]:
    """A leader that owns the run, and the senders of the other processes."""
    room = Room(size)
    checkpoints = CheckpointStore(store, "run")
    checkpoints.take_over()
    senders = [PartSender(store, Member.of(room, rank)) for rank in range(1, size)]
    parts = Parts(Member.of(room, 0))
    yield checkpoints, parts, senders
    parts.close()
    for sender in senders:
        sender.close()


def saved(directory: Path, step: int, size: int = 3) -> Path:
    """A checkpoint's directory as the processes of one machine leave it."""
    checkpoint = directory / f"checkpoint-{step}"
    for rank in range(size):
        own = part_directory(checkpoint, Group(rank, size))
        own.mkdir(parents=True, exist_ok=True)
        name = f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors"
        (own / name).write_text(f"shard {rank} of step {step}")
    (checkpoint / "trainer_state.json").write_text(f"{step}")
    return checkpoint


def test_all_shards_are_in_one_manifest(store: DirectoryStore, tmp_path: Path) -> None:
    with sharded(store) as (checkpoints, parts, senders):
        for step in (4, 8):
            directory = saved(tmp_path, step)
            for sender in senders:
                sender.submit(directory, step)
            checkpoints.publish(directory, step, others=parts)
        names = [entry.path for entry in read_manifest(store, checkpoints.head.checkpoints[0]).files]
    assert len(names) == len(set(names)) == 4
    assert checkpoints.restore(tmp_path / "restored") is not None
    found = {path.name: path.read_text() for path in (tmp_path / "restored").iterdir()}
    assert found["shard-00003-model-00001-of-00001.safetensors"] == "shard 2 of step 8"


class Machines:
    """Two machines of one process each, the leader's `here` and another `there`, whose bytes may not get through."""

    def __init__(self, root: Path, pause_s: float = 0.01) -> None:
        room = Room(2)
        self.root = root
        self.gate = threading.Event()
        self.gate.set()
        self.failing: list[str] = []
        self.errors: list[StorageError] = []
        self.commits: list[int] = []
        self.checkpoints = CheckpointStore(self._store("here"), "run", keep=9)
        self.checkpoints.take_over()
        self.sender = PartSender(self._store("there"), Member(1, 2, 0, room))
        others = Parts(Member.of(room, 0))
        tell = lambda reference, _: self.commits.append(reference.step)  # noqa: E731
        self.uploader = Uploader(self.checkpoints, tell, self.errors.append, others, pause_s=pause_s)

    def _store(self, machine: str) -> Any:
        def fault(operation: str, key: str, count: int) -> str | None:
            self.gate.wait(30)
            if operation == "put_file" and machine in self.failing:
                self.failing.remove(machine)
                return "refused"
            return None

        return FaultyStore(self.root / "store", fault)

    def save(self, step: int, *, best: bool = False) -> None:
        self.sender.submit(saved(self.root / "there", step, 2), step)
        self.uploader.submit(saved(self.root / "here", step, 1), step, best=best)

    def close(self, again: Any = None) -> None:
        self.uploader.close(again)
        self.sender.close()

    def left(self) -> list[str]:
        """What lies on either machine."""
        return sorted(path.name for machine in ("here", "there") for path in (self.root / machine).iterdir())


def test_a_machine_without_the_leader_keeps_no_checkpoint_that_is_committed(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    for step in (4, 8, 12):
        machines.save(step)
        assert machines.uploader.drain(30)
    machines.close()
    assert (machines.commits, machines.left()) == ([4, 8, 12], [])


@pytest.mark.parametrize("machine", ["here", "there"])
def test_the_best_so_far_is_sent_again_by_all(tmp_path: Path, machine: str) -> None:
    """Whoever could not send it; a newer one goes first."""
    machines = Machines(tmp_path, pause_s=0.2)
    machines.failing = [machine]
    machines.gate.clear()
    machines.save(4, best=True)
    machines.save(8)
    machines.gate.set()
    assert machines.uploader.drain(30)
    assert machines.commits == [8, 4]
    best = machines.checkpoints.head.best
    assert best is not None and best.step == 4
    assert len(read_manifest(machines.checkpoints.store, best).files) == 3
    machines.close()
    assert machines.left() == []


@pytest.mark.parametrize("machine", ["here", "there"])
def test_at_the_end_all_send_again_what_failed(tmp_path: Path, machine: str) -> None:
    machines = Machines(tmp_path)
    machines.failing = [machine] * 3
    machines.gate.clear()
    machines.save(8)
    threading.Timer(0.1, machines.gate.set).start()
    machines.close(lambda: True)
    assert machines.commits == [8]
    assert machines.left() == []


def test_a_step_that_was_passed_over_is_dropped(tmp_path: Path) -> None:
    machines = Machines(tmp_path, pause_s=3600)
    machines.failing = ["there"]
    machines.save(4, best=True)
    while not machines.errors:
        time.sleep(0.001)
    assert machines.left() == ["checkpoint-4"] * 2
    machines.save(8, best=True)
    assert machines.uploader.drain(30)
    machines.close()
    assert (machines.commits, machines.left()) == ([8], [])


@pytest.mark.parametrize("rank", [0, 2])
def test_without_one_shard_nothing_is_committed(store: DirectoryStore, tmp_path: Path, rank: int) -> None:
    """Whoever cannot send: the leader, or another."""
    failing: list[int] = []
    faulty = FaultyStore(
        tmp_path / "store", lambda operation, *_: "refused" if failing and operation == "put_file" else None
    )
    with sharded(store) as (checkpoints, parts, senders):

        def publish(step: int) -> None:
            for sender in senders:
                sender.submit(saved(tmp_path, step), step)
            checkpoints.publish(tmp_path / f"checkpoint-{step}", step, others=parts)

        holder: Any = senders[rank - 1] if rank else checkpoints
        setattr(holder, "_store" if rank else "store", faulty)
        publish(4)
        failing.append(rank)
        with pytest.raises(StorageError):
            publish(8)
        assert [pointer.step for pointer in checkpoints.head.checkpoints] == [4]
        failing.clear()
        publish(12)
        assert [pointer.step for pointer in checkpoints.head.checkpoints] == [12, 4]


def test_a_process_without_a_shard_is_told(store: DirectoryStore, tmp_path: Path) -> None:
    with sharded(store, 2) as (checkpoints, parts, _):
        with pytest.raises(StorageError, match="process 1 has no shard of step 4"):
            checkpoints.publish(saved(tmp_path, 4, 1), 4, others=parts)
        assert checkpoints.head.checkpoints == ()


def test_a_process_that_is_gone_ends_no_thread(store: DirectoryStore, tmp_path: Path) -> None:
    room = Room(2)
    checkpoints = CheckpointStore(store, "run")
    checkpoints.take_over()
    sender = PartSender(store, Member.of(room, 1))
    room.leave()
    parts = Parts(Member.of(room, 0))
    with pytest.raises(StorageError, match="another process of this training is gone"):
        checkpoints.publish(saved(tmp_path, 4, 1), 4, others=parts)
    parts.close()
    sender.close()
    assert checkpoints.head.checkpoints == ()


def test_damaged_bytes_of_a_shard_are_sent_again(store: DirectoryStore, tmp_path: Path) -> None:
    """A twin of the step computes the very same shard: what lies there under its hash must not be taken for it."""
    with sharded(store, 2) as (checkpoints, parts, senders):
        senders[0].submit(saved(tmp_path, 4, 2), 4)
        checkpoints.publish(tmp_path / "checkpoint-4", 4, others=parts)
    shard = next(
        entry
        for entry in read_manifest(store, checkpoints.head.checkpoints[0]).files
        if "00002" in entry.path
    )
    path = tmp_path / "store" / "blobs" / shard.sha256
    path.chmod(0o600)
    path.write_text("damage")
    with sharded(store, 2) as (checkpoints, parts, senders):
        with pytest.raises(StorageError):
            checkpoints.restore(tmp_path / "restored")
        senders[0].submit(saved(tmp_path, 4, 2), 4)
        checkpoints.publish(tmp_path / "checkpoint-4", 4, others=parts)
        assert checkpoints.restore(tmp_path / "restored") is not None
