"""The base model of a run from the Hub: the same commit in every attempt, and on spot machines fetched there once.

The first attempt writes down which commit it has loaded (`base.json`), since a branch may move before the next one. On
machines that are taken away it also sends the files to the run's own prefix (`base/`), beside the training: the next
machine has them from there, and needs no Hub. They go when the run is done.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from jobs import codec
from jobs.attempt import Attempt
from jobs.committed import fetch_file, hash_file
from jobs.console import say
from jobs.manifest import BLOBS, FileEntry, is_plain_path
from jobs.spec import JobSpec
from providers.errors import CorruptDataError, StorageError
from providers.object_store import ObjectStore
from providers.stores import below, open_store

KEY = "base.json"
FILES_KEY = "files.json"
PREFIX = "base"
# What a model is of if it needs no code and no pickle; one that needs more is fetched from the Hub each time.
_KINDS = frozenset({".json", ".jinja", ".md", ".model", ".safetensors", ".tiktoken", ".txt"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DROP_TIMEOUT_S = 60.0
_MIB = 2.0**20


@dataclass(frozen=True, slots=True)
class BaseModel:
    """What was loaded.

    Attributes:
        id: On the Hub.
        commit: 40 hexadecimal digits.
        files: Of that commit, as far as they were needed; empty until they are kept.
        absent: Names that were asked for and are not in that commit.
    """

    id: str
    commit: str
    files: tuple[FileEntry, ...] = ()
    absent: tuple[str, ...] = ()
    schema: str = "tuneplan/base"
    schema_version: int = 1


def pinned(job: JobSpec, store: ObjectStore) -> JobSpec:
    """A job with the commit of its base model that its run has loaded, as far as that is on record.

    Raises:
        StorageError: The store cannot be reached.
    """
    known = _known(job, store)
    return job if known is None else _at(job, known)


def bring_base(attempt: Attempt) -> Attempt:
    """The attempt with the commit that an earlier one has loaded, its files on this machine where they are kept.

    Every process of the training must call this.

    Raises:
        StorageError: The store cannot be reached, or the disk is full.
    """
    group = attempt.group
    job = attempt.job
    known = group.share(attempt.insist(lambda: _known(job, attempt.store)) if group.leads else None)
    if known is None:
        return attempt
    if group.leads_machine and _is_elsewhere(job.checkpoints.uri):
        attempt.insist(lambda: _bring_files(job, known))
    group.wait()
    return replace(attempt, job=_at(job, known))


def _known(job: JobSpec, store: ObjectStore) -> BaseModel | None:
    found = read_base(store, KEY) if job.model.path is None else None
    return found if found is not None and found.id == job.model.id else None


def _at(job: JobSpec, known: BaseModel) -> JobSpec:
    return replace(job, model=replace(job.model, revision=known.commit))


class BaseKeeper:
    """Of the leading process: writes down what was loaded, and sends its files where the next machine lacks them.

    That is on machines that are taken away, if the checkpoints are in a bucket whose use nobody has limited. It goes
    on beside the training, which it can neither stop nor hold up.
    """

    def __init__(self, job: JobSpec, store: ObjectStore) -> None:
        """Write the commit down, unless an earlier attempt has."""
        every = job.checkpoints
        self._uri = every.uri
        self._loaded = _loaded(job) if job.model.path is None else None
        is_free = every.upload_limit_bytes_per_s is None and _is_elsewhere(every.uri)
        self._sends = self._loaded is not None and is_free and every.hazard_per_h is not None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if self._loaded is not None:
            with suppress(StorageError):  # then the next attempt may load another commit, if the branch moves
                store.put_if_absent(KEY, _text(self._loaded))

    def send(self) -> None:
        """Begin to send the files, once there is a checkpoint to go on from; again changes nothing."""
        if self._sends and self._thread is None:
            self._thread = threading.Thread(target=self._send, args=(self._loaded,), name="base", daemon=True)
            self._thread.start()

    def drop(self) -> None:
        """Delete what is kept, by whichever attempt; the run is done."""
        if not _is_elsewhere(self._uri):
            return
        self._over.set()
        if self._thread is not None:
            self._thread.join(_DROP_TIMEOUT_S)
        with suppress(StorageError):
            store = _store(self._uri)
            for info in list(store.list("")):
                store.delete(info.key)

    def _send(self, loaded: BaseModel) -> None:
        try:
            store = _store(self._uri)
            if read_base(store, FILES_KEY) is None and (files := self._sent(store, loaded)):
                store.put_if_absent(FILES_KEY, _text(replace(loaded, files=files)))
                size = sum(entry.bytes for entry in files)
                say(f"the base model is kept for the next machine: {size / _MIB:.1f} MiB")
        except Exception as error:  # whatever it is, the training is not to end by it
            say(f"the base model is not kept, the next machine asks the Hub: {error}")

    def _sent(self, store: ObjectStore, loaded: BaseModel) -> tuple[FileEntry, ...]:
        """Entries of all files; none if some may not be kept, or the run is over."""
        snapshot = _cache_of(loaded.id) / "snapshots" / loaded.commit
        paths = {path.relative_to(snapshot).as_posix(): path.resolve() for path in _files(snapshot)}
        if not all(_is_allowed(name) for name in paths):
            return ()
        entries = []
        for name, path in paths.items():
            if self._over.is_set():
                return ()
            entries.append(FileEntry(name, path.stat().st_size, hash_file(path)))
            store.put_file(BLOBS + entries[-1].sha256, path)
        return tuple(entries)


def _bring_files(job: JobSpec, known: BaseModel) -> None:
    """Into the Hub's cache on this machine, under their names there once all are here and verified."""
    cache = _cache_of(known.id)
    snapshot = cache / "snapshots" / known.commit
    if snapshot.exists():
        return
    store = _store(job.checkpoints.uri)
    kept = read_base(store, FILES_KEY)
    if kept is None or kept.commit != known.commit:
        return
    beside = cache / f".{known.commit}"
    try:
        for entry in kept.files:
            (beside / entry.path).parent.mkdir(parents=True, exist_ok=True)
            fetch_file(store, entry, beside / entry.path)
        for name in kept.absent:
            mark = cache / ".no_exist" / known.commit / name
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        beside.replace(snapshot)
    except CorruptDataError as error:
        say(f"the base model that was kept is damaged, so the Hub is asked: {error.message}")
        return
    except OSError as error:
        raise StorageError(f"cannot write {cache}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    size = sum(entry.bytes for entry in kept.files)
    say(f"the base model from {store.uri}: {size / _MIB:.1f} MiB, verified")


def _loaded(job: JobSpec) -> BaseModel | None:
    """What lies in the Hub's cache under the job's name, None if that cannot be told."""
    cache = _cache_of(job.model.id)
    revision = job.model.revision or "main"
    try:
        pointer = cache / "refs" / revision
        commit = pointer.read_text(encoding="ascii").strip() if pointer.is_file() else revision
        if not (cache / "snapshots" / commit).is_dir():
            return None
    except (OSError, ValueError):
        return None
    missing = cache / ".no_exist" / commit
    absent = tuple(path.relative_to(missing).as_posix() for path in _files(missing))
    return BaseModel(job.model.id, commit, absent=absent)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _cache_of(model_id: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder: str = repo_folder_name(repo_id=model_id, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder


def _is_elsewhere(uri: str) -> bool:
    """A disk that all machines share has the Hub's cache too, and one's own machine needs no second copy."""
    return not uri.startswith("file:")


def _store(uri: str) -> ObjectStore:
    return open_store(below(uri, PREFIX))


def _text(model: BaseModel) -> bytes:
    return (json.dumps(asdict(model), indent=1) + "\n").encode()


def read_base(store: ObjectStore, key: str) -> BaseModel | None:
    """None if it is not there, or not to be understood: then the Hub is asked."""
    found = store.get(key)
    if found is None:
        return None
    try:
        model = codec.decode(BaseModel, json.loads(found[0]), strict=False)
    except (ValueError, RecursionError):
        model = None
    if model is None or not _is_plain(model):
        say(f"{key} cannot be understood and is left alone")
        return None
    return model


def _is_plain(model: BaseModel) -> bool:
    """Whether nothing in it leads out of the cache, or to a file that could be more than data."""
    return (
        _COMMIT.fullmatch(model.commit) is not None
        and all(is_plain_path(name) for name in model.absent)
        and all(_is_allowed(entry.path) for entry in model.files)
        and all(_SHA256.fullmatch(entry.sha256) and entry.bytes >= 0 for entry in model.files)
    )


def _is_allowed(name: str) -> bool:
    return is_plain_path(name) and PurePosixPath(name).suffix in _KINDS
