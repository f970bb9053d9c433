"""Brings the files of another machine that a job names onto this one: each verified, and none twice."""

from __future__ import annotations

from pathlib import Path

from jobs.committed import fetch_file, is_here
from jobs.console import say
from jobs.manifest import FileEntry
from jobs.spec import InputsJob
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore
from providers.stores import open_store

_MIB = 2.0**20


def bring_inputs(inputs: InputsJob, base: Path) -> None:
    """Download what is not here yet; a file has its name only when it is whole and verified.

    Args:
        inputs: Which files, and from where.
        base: The job's directory.

    Raises:
        CorruptDataError: A file is missing in the store, or is not what the job names.
        StorageError: The store or the disk failed.
    """
    missing = [entry for entry in inputs.files if not is_here(entry, base / entry.path)]
    if not missing or inputs.uri is None:
        return
    store = open_store(inputs.uri)
    for entry in missing:
        _bring(store, entry, base / entry.path)
    size = sum(entry.bytes for entry in missing)
    say(f"{len(missing)} input files from {store.uri}: {size / _MIB:.1f} MiB, verified")


def _bring(store: ObjectStore, entry: FileEntry, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{entry.sha256[:16]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch_file(store, entry, beside)
        beside.replace(target)
    except CorruptDataError as error:
        hint = f"delete blobs/{entry.sha256} in {store.uri}, and `plan resume` uploads it again"
        raise CorruptDataError(f"{error.message} in {store.uri}", hint=hint, path=entry.path) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
