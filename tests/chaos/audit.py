"""What must hold of a run's store after every wreck."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from jobs.committed import fetch_files, read_head, read_manifest
from jobs.manifest import Head, Pointer
from providers.errors import StorageError
from providers.object_store import ObjectStore

Wrong = Callable[[Path, Pointer], str | None]


def audit(store: ObjectStore, acknowledged: int, scratch: Path, wrong: Wrong) -> tuple[Head, list[str]]:
    """HEAD, and what is not as it must be.

    Args:
        store: The run's, reached without faults.
        acknowledged: Newest step that a worker was told is committed.
        scratch: A directory that does not exist.
        wrong: Given the files of a checkpoint, what they should not hold; None if they are right.
    """
    head, problems = read_head(store) or Head(), []
    newest = head.newest.step if head.newest else 0
    if newest < acknowledged:
        problems.append(f"step {acknowledged} was acknowledged, HEAD has {newest}")
    for pointer in (*head.checkpoints, *([head.output] if head.output else [])):
        try:
            fetch_files(store, read_manifest(store, pointer), scratch)
            problem = wrong(scratch, pointer)
        except StorageError as error:
            problem = error.message
        shutil.rmtree(scratch, ignore_errors=True)
        if problem is not None:
            problems.append(f"the checkpoint of step {pointer.step}: {problem}")
    return head, problems
