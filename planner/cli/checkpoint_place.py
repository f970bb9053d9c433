"""What the commands on checkpoints share: the store of a run or a URI, read without taking the run over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.committed import read_head, read_manifest
from jobs.manifest import Head, Manifest, Pointer
from planner.cli.context import App
from planner.cli.desk import open_ledger
from planner.runs import Run
from providers.directory_store import directory_of
from providers.errors import CorruptDataError, UsageError
from providers.object_store import ObjectStore
from providers.stores import open_store

_HINT = "give the prefix of one run, as `plan checkpoints ls RUN` names it"


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed manifest as it lies in the store.

    Attributes:
        pointer: What HEAD says of it.
        manifest: What it says, None if it cannot be read.
        damage: Why it cannot be read, None if it can.
        is_output: It is the finished model, not a checkpoint to resume from.
    """

    pointer: Pointer
    manifest: Manifest | None
    damage: str | None
    is_output: bool


def open_place(app: App, name: str) -> tuple[ObjectStore, Run | None]:
    """The store of checkpoints, and the run if the name was one's.

    Args:
        app: What commands share.
        name: Beginning of a run id, or the URI of a run's checkpoints.

    Raises:
        UsageError: There is no such run or directory.
        StorageError: The store cannot be opened.
    """
    if "://" in name:
        return _existing(name), None
    with open_ledger(app) as store:
        run = store.find(name)
    return open_store(run.terms.checkpoint_uri), run


def committed_head(store: ObjectStore, run: Run | None) -> Head:
    """HEAD; of a run that has not begun, an empty one.

    Raises:
        UsageError: Nothing was ever committed at this URI.
        StorageError: The store failed.
    """
    head = read_head(store)
    if head is None and run is None:
        raise UsageError(f"{store.uri} holds no run", hint=_HINT, code="no_checkpoints")
    return head or Head()


def choose(store: ObjectStore, found: Sequence[Entry], step: int | None) -> Entry:
    """The finished model if there is one and no step is named, else the checkpoint of the step or the newest.

    Raises:
        UsageError: There is none.
    """
    wanted = [entry for entry in found if step is None or entry.pointer.step == step]
    if wanted:
        return wanted[0]
    steps = ", ".join(str(entry.pointer.step) for entry in found) or "none yet"
    which = "checkpoint" if step is None else f"checkpoint of step {step}"
    raise UsageError(f"{store.uri} has no {which}", hint=f"committed steps: {steps}", code="no_checkpoints")


def entries(store: ObjectStore, head: Head) -> list[Entry]:
    """The finished model first, if there is one, then the checkpoints, newest first."""
    output = [_entry(store, head.output, is_output=True)] if head.output else []
    pointers = [pointer for pointer in head.pointers if pointer != head.output]
    newest_first = sorted(pointers, key=lambda pointer: pointer.step, reverse=True)
    return output + [_entry(store, pointer, is_output=False) for pointer in newest_first]


def _entry(store: ObjectStore, pointer: Pointer, *, is_output: bool) -> Entry:
    try:
        return Entry(pointer, read_manifest(store, pointer), None, is_output)
    except CorruptDataError as error:
        return Entry(pointer, None, error.message, is_output)


def _existing(uri: str) -> ObjectStore:
    """Open a store; looking does not make a directory."""
    if uri.startswith("file:") and not directory_of(uri).is_dir():
        raise UsageError(f"there is no {uri}", hint=_HINT, code="no_checkpoints")
    return open_store(uri)
