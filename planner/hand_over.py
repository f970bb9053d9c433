"""Hands a finished model over: adapter or merged model, with its card, to a directory, a bucket or the Hub."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import planner
from jobs.adapter_config import base_name, is_brought, name_base
from jobs.base_model import pinned
from jobs.codec import Mismatch, decode
from jobs.committed import fetch_files, read_manifest
from jobs.progress import GuardResult, MetricResult
from jobs.spec import CheckpointsJob, InputsJob, JobSpec
from jobs.train import BAD_JOB
from planner.errors import QualityError, RunFailedError
from planner.finished_model import finished_pointer, run_worker
from planner.gguf import write_gguf
from planner.model_card import Facts, auto_class, model_card
from planner.places import Places
from planner.runs import Run
from planner.spec_types import packed_in_4bit
from providers.errors import CorruptDataError, StorageError, UsageError
from providers.hub import HubAccess
from providers.object_store import ObjectStore
from providers.s3_location import is_bucket
from providers.stores import open_store

HUB = "hf://"
_ADAPTER = "adapter_model.safetensors"
_HEADS = ("classification", "reward")
_NOT_HANDED_OVER = ("trainer_state.json", "history.json")


@dataclass(frozen=True, slots=True)
class Order:
    """What to hand over.

    Attributes:
        run: Whose model.
        merge: Work the adapter into the base model.
        converter: Turns the merged model into a GGUF file, None to leave it as it is.
        license: Of the base model, None if nobody knows.
        even_if_regressed: Also a model that is worse on the general hold-out than its guard allows.
    """

    run: Run
    merge: bool
    license: str | None = None
    converter: Path | None = None
    even_if_regressed: bool = False


@contextmanager
def made(order: Order, places: Places, told: Callable[[str], None]) -> Iterator[Path]:
    """The model in a directory that goes when the block ends.

    Raises:
        UsageError: There is no finished model, or it is not of the kind asked for.
        QualityError: It has regressed, and that was not agreed to.
        CorruptDataError: What is stored is damaged.
        StorageError: The store or the disk failed.
    """
    store = open_store(order.run.terms.checkpoint_uri)
    job = pinned(JobSpec.from_json(order.run.terms.job_json), store)
    if order.converter is not None and job.task in _HEADS:
        hint = "export with --merge, and use it with transformers"
        raise UsageError(f"a model of task {job.task} has no form in GGUF", hint=hint)
    with tempfile.TemporaryDirectory(prefix="plan-export-") as name:
        fetched, merged = Path(name, "model"), Path(name, "merged")
        fetch_files(store, read_manifest(store, finished_pointer(store)), fetched)
        result = _result(fetched)
        facts = _facts(order, job, places, result)
        if facts.guard is not None and not facts.guard.passed and not order.even_if_regressed:
            message = (
                f"the model of {order.run.run_id} is worse on the general hold-out than its guard allows"
            )
            raise QualityError(
                message, hint="`--even-if-regressed` hands it over all the same", code="regressed"
            )
        has_adapter = (fetched / _ADAPTER).exists()
        if not has_adapter and not order.merge:
            hint = "every weight was trained: use --merge"
            raise UsageError("this run has no adapter", hint=hint, code="no_adapter")
        if has_adapter and order.merge:
            if packed_in_4bit(job.model.id):
                message = f"{job.model.id} is packed in 4 bits: an adapter cannot be worked into it"
                raise UsageError(message, hint="--adapter hands the adapter over")
            _merge(job, tuple(result.get("labels") or ()), fetched, merged, told)
            shutil.copyfile(fetched / "result.json", merged / "result.json")
            fetched = merged
        if is_brought(job):  # also of a run that an older version trained
            name_base(fetched, base_name(job))
        for unwanted in _NOT_HANDED_OVER:
            (fetched / unwanted).unlink(missing_ok=True)
        if order.converter is not None:
            fetched = _as_gguf(order.converter, job, fetched, Path(name, "gguf"), told)
        (fetched / "README.md").write_text(model_card(facts), encoding="utf-8")
        yield fetched


def deliver(model: Path, target: str, access: HubAccess, *, public: bool, message: str) -> str:
    """Bring a directory to where it shall be; its address.

    Args:
        model: As `made` gives it.
        target: A new directory, the prefix of a bucket or `hf://owner/name`.
        access: To the Hub.
        public: Let everybody read it on the Hub.
        message: Of the commit on the Hub.

    Raises:
        UsageError: The target is taken or cannot be understood.
        StorageError: It cannot be written.
    """
    if target.startswith(HUB):
        from providers.hub_upload import check_repository, upload_folder

        repository = check_repository(target.removeprefix(HUB))
        return upload_folder(model, repository, access, public=public, message=message)
    if "://" in target and not target.startswith("file://"):
        return _to_store(model, open_store(target))
    return _to_directory(model, Path(target.removeprefix("file://")).expanduser().absolute())


def check_target(target: str, *, public: bool) -> None:
    """Refuse, before anything is made, what cannot be delivered to.

    Raises:
        UsageError: It is taken, or cannot be understood.
        StorageError: The bucket cannot be reached.
    """
    scheme = target.partition("://")[0] if "://" in target else "file"
    if scheme not in ("file", "hf") and not is_bucket(target):
        hint = "name a directory, a bucket as in s3://bucket/prefix, or hf://owner/name"
        raise UsageError(f"cannot hand over to {target}", hint=hint)
    if public and scheme != "hf":
        raise UsageError("--public is for hf:// alone", hint="leave it out")
    if scheme == "hf":
        from providers.hub_upload import check_repository

        check_repository(target.removeprefix(HUB))
    if is_bucket(target):
        _empty(open_store(target))
    if scheme == "file":
        _free(Path(target.removeprefix("file://")).expanduser())


def _merge(
    job: JobSpec, labels: tuple[str, ...], adapter: Path, out: Path, told: Callable[[str], None]
) -> None:
    model = tuple(one for one in job.inputs.files if one.path.startswith("inputs/model/"))
    data = replace(job.data, label_names=labels or None)
    alone = replace(
        job,
        data=data,
        inputs=InputsJob(job.inputs.uri, model),
        checkpoints=CheckpointsJob("file:///unused"),
        evaluate=replace(job.evaluate, guard=None),
    )
    document = adapter.with_name("job.json")
    document.write_text(alone.to_json(), encoding="utf-8")
    code = run_worker("jobs.merge", [str(document), "--adapter", str(adapter), "--out", str(out)], told)
    if code == BAD_JOB:
        raise UsageError(
            "this model cannot be merged", hint="the reason is above; --adapter hands the adapter over"
        )
    if code:
        raise RunFailedError(f"merging ended with exit code {code}", hint="the reason is above")


def _as_gguf(converter: Path, job: JobSpec, model: Path, out: Path, told: Callable[[str], None]) -> Path:
    """A directory with the model as one file."""
    out.mkdir()
    write_gguf(model, out / f"{job.name}.gguf", converter, told)
    shutil.copyfile(model / "result.json", out / "result.json")
    return out


def _facts(order: Order, job: JobSpec, places: Places, result: dict[str, Any]) -> Facts:
    run = order.run
    try:
        metrics = tuple(decode(MetricResult, one, strict=False) for one in result.get("metrics") or ())
        told = result.get("guard")
        guard = None if told is None else decode(GuardResult, told, strict=False)
        hashes = {str(key): str(value) for key, value in (result.get("data_sha256") or {}).items()}
        step = int(result["step"])
    except (Mismatch, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptDataError(f"result.json is damaged: {error}", path="result.json") from error
    return Facts(
        job=job,
        merged=order.merge,
        auto_class=str(result.get("auto_class") or auto_class(job.task)),
        gguf=order.converter is not None,
        step=step,
        metrics=metrics,
        guard=guard,
        data_sha256=hashes,
        license=order.license,
        cost_micro_usd=run.cost_micro_usd,
        code_sha256=_code(places, run),
        version=planner.__version__,
    )


def _result(model: Path) -> dict[str, Any]:
    try:
        found = json.loads((model / "result.json").read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        raise ValueError("not an object")
    except (OSError, ValueError) as error:
        raise CorruptDataError(f"result.json cannot be read: {error}", path="result.json") from error


def _code(places: Places, run: Run) -> str | None:
    """Of the newest attempt, None if its bundle was purged."""
    try:
        path = places.bundle(run.run_id, run.launches) / "bundle.sha256"
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None


def _to_store(model: Path, store: ObjectStore) -> str:
    """Nothing of an export that was cut off stays, so that it can be repeated."""
    _empty(store)
    names = {path.relative_to(model).as_posix(): path for path in _files(model)}
    try:
        for name, path in names.items():
            store.put_file(name, path)
    except BaseException:
        with suppress(StorageError):
            for name in names:
                store.delete(name)
        raise
    return store.uri


def _empty(store: ObjectStore) -> None:
    """Files of another model beside ours would be taken for parts of it."""
    first = next(store.list(""), None)
    if first is not None:
        raise UsageError(f"{store.uri} holds {first.key} already", hint="name a prefix that is new or empty")


def _to_directory(model: Path, target: Path) -> str:
    _free(target)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model, beside)
        if target.exists():
            target.rmdir()  # empty, or it is not ours to replace
        beside.rename(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return str(target)


def _free(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise UsageError(f"{target} exists already", hint="name a directory that is new or empty")


def _files(model: Path) -> list[Path]:
    return sorted(path for path in model.rglob("*") if path.is_file())
