"""`Progress`: what the worker says of itself, written to its own directory and to the object store."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jobs import codec
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore

KEY = "progress.json"
SCHEMA = "tuneplan/progress"

WorkerState = Literal[
    "starting",
    "loading",
    "evaluating_base",
    "training",
    "saving",
    "evaluating",
    "syncing",
    "done",
    "regressed",
    "failed",
    "preempted",
    "capped",
]


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Peak of one GPU in GiB; None on a machine without one."""

    allocated: float | None = None
    reserved: float | None = None
    nvml: float | None = None


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A committed checkpoint.

    Attributes:
        step: Optimizer steps done.
        committed_at: RFC 3339 UTC.
        uri: The store it lies in.
        bytes: Sum of its files.
        manifest_sha256: Of the manifest, hexadecimal.
    """

    step: int
    committed_at: str
    uri: str
    bytes: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class MetricResult:
    """One metric on the same held-out rows, before and after training; None is not measured."""

    name: str
    split: str
    n: int
    base: float | None
    tuned: float | None
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class GuardResult:
    """What came of the general hold-out that must not get worse.

    Attributes:
        metric: Of base and tuned.
        at_most_worse: What was allowed, in the metric's unit.
        passed: It got no worse than that.
    """

    metric: str
    at_most_worse: float
    base: float
    tuned: float
    passed: bool


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Quantiles of the seconds of one optimizer step in this attempt, without saving and evaluating."""

    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Progress:
    """State of one run as its worker sees it.

    Attributes:
        fence: Number of this attempt; a later attempt has a higher one.
        step: Optimizer steps done.
        max_steps: None until the data is counted.
        tokens_per_s_total: Real (unpadded) tokens, over all GPUs.
        host_rss_gib: Peak resident memory of the worker process.
        stage_seconds: Wall-clock seconds of this attempt by stage.
        lost_steps: Steps the earlier attempt had done after the checkpoint this one resumed from.
        tokens_trained: Real tokens of this attempt, `tokens_padded` with the padding.
        output_manifest_sha256: Of the finished model, None until it is committed.
        output_step: Step whose weights it has.
        guard: What came of the general hold-out, None if there is none or it is not over.
        launch: The launch that this machine belongs to; a backend may replace machines within one.
        cost_usd: What the worker thinks the run has cost so far, None if the price is unknown.
    """

    run_id: str
    fence: int
    state: WorkerState = "starting"
    step: int = 0
    max_steps: int | None = None
    loss: float | None = None
    tokens_per_s_total: float | None = None
    peak_memory_gib: PeakMemory = PeakMemory()
    host_rss_gib: float | None = None
    started_at: str | None = None
    heartbeat_at: str | None = None
    last_checkpoint: CheckpointRef | None = None
    metrics: tuple[MetricResult, ...] = ()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    step_time_s: StepTimes | None = None
    exit_reason: str | None = None
    resumed_from_step: int | None = None
    lost_steps: int = 0
    tokens_trained: int = 0
    tokens_padded: int = 0
    output_manifest_sha256: str | None = None
    output_step: int | None = None
    guard: GuardResult | None = None
    pid: int | None = None
    launch: int = 0
    cost_usd: float | None = None
    schema: str = SCHEMA
    schema_version: int = 1

    def to_json(self) -> str:
        """The document, as in `progress.json`."""
        return codec.encode(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Progress:
        """Parse a document, also of a newer writer: unknown keys are left out.

        Raises:
            CorruptDataError: It is no progress document at all.
        """
        try:
            raw = json.loads(text)
            if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
                raise ValueError("not a progress document")
            return codec.decode(cls, raw, strict=False)
        except (ValueError, RecursionError) as error:
            raise CorruptDataError(f"progress document: {error}") from error


def read_progress(store: ObjectStore) -> Progress | None:
    """What the worker last said, None if it never said anything.

    Raises:
        StorageError: The store cannot be reached.
        CorruptDataError: What lies there is no progress document.
    """
    found = store.get(KEY)
    return Progress.from_json(found[0]) if found else None


def utc_now() -> str:
    """RFC 3339 UTC with Z, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new one, never a part, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class ProgressWriter:
    """Keeps the document and writes it from its own thread: at once on a new state, else every interval.

    Losing a write never stops training: the next one brings the same news. An older attempt never overwrites
    a newer one's document; it finds `superseded` set instead.

    Args:
        first: The document to begin with.
        path: Local file.
        store: Where others read it.
        interval_s: Longest time between two heartbeats.
    """

    def __init__(self, first: Progress, path: Path, store: ObjectStore, *, interval_s: float = 10.0) -> None:
        """Start the thread; the first document goes out now."""
        self.superseded = False
        self._document = first
        self._path = path
        self._store = store
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._tag: str | None = None
        self._wake.set()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    @property
    def document(self) -> Progress:
        """The newest document, written or not."""
        return self._document

    def update(self, **changes: Any) -> None:
        """Change fields of the document; a change of `state` is written at once."""
        with self._lock:
            before = self._document.state
            self._document = replace(self._document, **changes)
        if self._document.state != before:
            self._wake.set()

    def close(self, again: Callable[[], bool] = lambda: False) -> None:
        """Write the last document and end the thread.

        Args:
            again: Pauses after a try in vain; whether there shall be another.
        """
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=60)
        while not self.flush() and again():
            pass

    def flush(self) -> bool:
        """Write now, to the disk and to the store, whatever becomes of the other; whether it need not be sent again."""
        with self._writing:
            self.update(heartbeat_at=utc_now())
            text = self._document.to_json()
            _tried(lambda: write_atomically(self._path, text))
            return self.superseded or _tried(lambda: self._publish(text.encode()))

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self.flush()

    def _publish(self, body: bytes) -> None:
        """Swap our document in; two rounds, because a lost answer leaves us with an old tag."""
        for _ in range(2):
            tag = self._store.compare_and_swap(KEY, body, self._tag)
            if tag is not None:
                self._tag = tag
                return
            found = self._store.get(KEY)
            self._tag = found[1] if found else None
            if found and _fence_of(found[0]) > self._document.fence:
                self.superseded = True
                return


def _tried(write: Callable[[], None]) -> bool:
    try:
        write()
    except (OSError, StorageError) as error:
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            sys.stderr.write(f"progress not written: {error}\n")
        return False
    return True


class SilentProgress:
    """The document of a process that another one speaks for: kept, never written."""

    def __init__(self, first: Progress) -> None:
        """Begin with a document."""
        self.superseded = False
        self.document = first

    def update(self, **changes: Any) -> None:
        """Change fields of the document."""
        self.document = replace(self.document, **changes)

    def flush(self) -> bool:
        """Nothing to write."""
        return True

    def close(self, again: Callable[[], bool] = lambda: False) -> None:
        """Nothing to write."""


def _fence_of(body: bytes) -> int:
    with contextlib.suppress(CorruptDataError):
        return Progress.from_json(body).fence
    return -1


class StageClock:
    """Adds up the wall-clock seconds of each stage; the time of an inner stage is not the outer one's."""

    def __init__(self) -> None:
        """No stage yet."""
        self.seconds: dict[str, float] = {}
        self._inner_s = 0.0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the `with` block towards the stage."""
        start, outer_inner_s = time.monotonic(), self._inner_s
        self._inner_s = 0.0
        try:
            yield
        finally:
            elapsed_s = time.monotonic() - start
            self.add(name, elapsed_s - self._inner_s)
            self._inner_s = outer_inner_s + elapsed_s

    def add(self, name: str, seconds: float) -> None:
        """Count time measured elsewhere."""
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 4)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Count time of one stage towards another."""
        self.add(source, -seconds)
        self.add(target, seconds)
