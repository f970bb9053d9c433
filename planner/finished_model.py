"""A run's finished model in its store, and the worker's own code at work on it on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from jobs.committed import read_head, read_manifest
from jobs.manifest import Pointer
from providers.errors import CorruptDataError, UsageError
from providers.object_store import ObjectStore


def finished_pointer(store: ObjectStore, step: int | None = None) -> Pointer:
    """The finished model, or the checkpoint of a step.

    Raises:
        UsageError: There is none.
        StorageError: The store failed.
    """
    head = read_head(store)
    found = [] if head is None else [one for one in head.pointers if step is None or one.step == step]
    if step is None and (head is None or head.output is None):
        hint = "wait until it is over, or name a checkpoint: `--step N`"
        raise UsageError(f"{store.uri} holds no finished model", hint=hint, code="no_checkpoints")
    if step is None and head is not None and head.output is not None:
        return head.output
    if not found:
        raise UsageError(f"{store.uri} holds no checkpoint of step {step}", hint="see `plan checkpoints ls`")
    return found[0]


def class_names(store: ObjectStore, pointer: Pointer) -> tuple[str, ...] | None:
    """Class names that the finished model says, None if it says none."""
    result = next((one for one in read_manifest(store, pointer).files if one.path == "result.json"), None)
    body = None if result is None else store.get(f"blobs/{result.sha256}")
    try:
        return tuple(json.loads(body[0]).get("labels") or ()) or None if body else None
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(f"result.json is damaged: {error}", path="result.json") from error


def run_worker(module: str, words: list[str], told: Callable[[str], None]) -> int:
    """Run a module of the worker on this machine to its end; its exit code.

    Args:
        module: As in `python -m`.
        words: Its arguments.
        told: Called with each line of its log.
    """
    return run_told([sys.executable, "-P", "-m", module, *words], {"PYTHONPATH": _code_root()}, told)


def run_told(words: list[str], variables: Mapping[str, str], told: Callable[[str], None]) -> int:
    """Run a program on this machine to its end; its exit code.

    Args:
        words: Program and arguments.
        variables: Added to this process's environment.
        told: Called with each line of what it writes.
    """
    with subprocess.Popen(  # noqa: S603 - argv is ours, no shell
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **variables},
        text=True,
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                told(line.rstrip("\n"))
        except BaseException:
            process.kill()
            raise
        return process.wait()


def _code_root() -> str:
    import jobs

    return str(Path(str(jobs.__file__)).parent.parent)
