"""Local data and models of a rented run: sent to its object store once, named by their content.

They lie beside the runs, below `_inputs/` of `checkpoints.uri`, where no run id can be; a launch whose files are
there sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock

from jobs.committed import hash_file
from jobs.data_files import files_of
from jobs.manifest import BLOBS, FileEntry
from jobs.spec import InputsJob, JobSpec
from providers.errors import StorageError, UsageError
from providers.stores import below, open_store

FOLDER = "_inputs"


@dataclass(frozen=True, slots=True)
class Sending:
    """How far the files of a launch are sent.

    Attributes:
        sent_bytes: Of those that the store lacked.
        total_bytes: Of all files of the launch, with those that are there already.
    """

    uri: str
    sent_bytes: int
    total_bytes: int


Told = Callable[[Sending], None]


def with_inputs(job: JobSpec, runs_uri: str | None) -> tuple[JobSpec, dict[str, str]]:
    """The job with its local files named by content, and where on this machine each of them is.

    Args:
        job: With absolute paths of this machine.
        runs_uri: The prefix that the run's own prefix is below; None leaves the job as it is.

    Raises:
        UsageError: A directory holds no data.
        StorageError: A file cannot be read.
    """
    named, taken = _named(job)
    if not taken or runs_uri is None:
        return job, {}
    entries = tuple(_entry(name, path) for name, path in taken.items())
    inputs = InputsJob(below(runs_uri, FOLDER), entries)
    return replace(named, inputs=inputs), {name: str(path) for name, path in taken.items()}


def local_files(job: JobSpec) -> tuple[Path, ...]:
    """Files of this machine that a job names.

    Raises:
        UsageError: A directory holds no data.
    """
    return tuple(_named(job)[1].values())


def local_bytes(job: JobSpec) -> int:
    """Size of the files of this machine that a job names.

    Raises:
        UsageError: A directory holds no data.
        StorageError: A file cannot be read.
    """
    return sum(_size(path) for path in local_files(job))


def _named(job: JobSpec) -> tuple[JobSpec, dict[str, Path]]:
    """The job with its local paths below `inputs/`, and the file of this machine that each of them is."""
    taken: dict[str, Path] = {}

    def inside(text: str, name: str, files: Callable[[Path], Sequence[Path]]) -> str:
        if not Path(text).is_absolute():
            return text
        root = Path(text)
        target = f"inputs/{name}{'' if root.is_dir() else root.suffix}"
        for file in files(root):
            taken[target if file == root else f"{target}/{file.relative_to(root).as_posix()}"] = file
        return target

    data, path = job.data, job.model.path
    train = inside(data.train, "train", files_of)
    data = replace(data, train=train, eval=None if data.eval is None else inside(data.eval, "eval", files_of))
    model = replace(job.model, path=None if path is None else inside(path, "model", _all_files))
    evaluate = job.evaluate
    if evaluate.guard is not None:
        guard = replace(evaluate.guard, data=inside(evaluate.guard.data, "guard", files_of))
        evaluate = replace(evaluate, guard=guard)
    return replace(job, data=data, model=model, evaluate=evaluate), taken


def send(inputs: InputsJob, sources: Mapping[str, str], told: Told) -> None:
    """Bring to the store what it lacks; what was sent in part goes on with the parts that had arrived.

    Args:
        inputs: Of the job.
        sources: As `with_inputs` gave.
        told: Called as bytes arrive, from several threads.

    Raises:
        UsageError: A file is neither in the store nor any longer here as it was when the run was launched.
        StorageError: The store cannot be reached, or refuses.
    """
    if inputs.uri is None:
        return
    store = open_store(inputs.uri)
    total, sent, lock = sum(entry.bytes for entry in inputs.files), 0, Lock()

    def arrived(size: int) -> None:
        nonlocal sent
        with lock:
            sent += size
        told(Sending(store.uri, sent, total))

    for entry in {entry.sha256: entry for entry in inputs.files}.values():
        key = BLOBS + entry.sha256
        if any(info.key == key and info.bytes == entry.bytes for info in store.list(key)):
            continue
        source = _unchanged(entry, sources)
        store.put_file(key, source, arrived)
        try:
            _unchanged(entry, sources)
        except UsageError:
            store.delete(key)  # what lies there now may be half of each
            raise


def reads(inputs: InputsJob) -> tuple[str, ...]:
    """URIs of the objects that the worker must be able to read."""
    return tuple(below(inputs.uri, BLOBS + entry.sha256) for entry in inputs.files) if inputs.uri else ()


def _unchanged(entry: FileEntry, sources: Mapping[str, str]) -> Path:
    """The file of this machine, which still is what the run was launched with."""
    named = sources.get(entry.path)
    path = Path(named or entry.path)
    if named is not None and path.is_file() and _entry(entry.path, path) == entry:
        return path
    raise UsageError(
        f"{path} is not what the run was launched with, and its store does not have that",
        hint=f"restore the file (sha256 {entry.sha256}), or launch again",
        code="inputs_changed",
        path=str(path),
    )


def _entry(name: str, path: Path) -> FileEntry:
    with _reading(path):
        stat = path.stat()
        return FileEntry(name, stat.st_size, _sha256(path, stat.st_size, stat.st_mtime_ns))


def _size(path: Path) -> int:
    with _reading(path):
        return path.stat().st_size


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}", path=str(path)) from error


@lru_cache(maxsize=4096)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Of a file as it was at that moment: a launch looks several times."""
    return hash_file(path)


def _all_files(root: Path) -> list[Path]:
    """The files of a model's directory, without what tools keep beside it."""
    found = (path for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.relative_to(root).as_posix().startswith("."))
