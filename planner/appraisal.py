"""Measures without training: a base model, or a finished one on other data, by the worker's own code, here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.appraise import Appraisal
from jobs.base_model import pinned
from jobs.codec import Mismatch, decode
from jobs.committed import fetch_files, read_manifest
from jobs.data_files import data_sha256
from jobs.manifest import Pointer
from jobs.spec import CheckpointsJob, InputsJob, JobSpec
from jobs.train import BAD_JOB
from planner.errors import RunFailedError
from planner.finished_model import class_names, finished_pointer, run_worker
from planner.job_document import document_without_machine
from providers.errors import UsageError
from providers.object_store import ObjectStore

if TYPE_CHECKING:
    from planner.spec import FineTuneSpec

_JOB, _ANSWER, _MODEL = "job.json", "answer.json", "model"


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure.

    Attributes:
        job: How the model is built; its held-out data is what it is measured on.
        store: Holds the finished model, None to measure the base alone.
        pointer: Of that model.
    """

    job: JobSpec
    store: ObjectStore | None = None
    pointer: Pointer | None = None


def question_of_spec(spec: FineTuneSpec, base_dir: Path) -> Question:
    """The base model of a spec, on its held-out data.

    Raises:
        UsageError: There is none.
    """
    if spec.data.eval is None:
        raise UsageError("there is no held-out data to measure on", hint="give data.eval", path="data.eval")
    return Question(document_without_machine(spec, base_dir))


def question_of_run(job: JobSpec, store: ObjectStore, data: Path | None, step: int | None) -> Question:
    """A run's finished model, or a checkpoint, on its own held-out data or on other data.

    Args:
        job: Of the run.
        store: Of its checkpoints.
        data: File or directory of the same format, None for the run's own.
        step: Of a checkpoint, None for the finished model.

    Raises:
        UsageError: The run has no such model, or no held-out data.
        CorruptDataError: What is stored is damaged.
    """
    pointer, job = finished_pointer(store, step), pinned(job, store)
    where = job.data.eval if data is None else str(data.absolute())
    if where is None:
        hint = "name some: `--data FILE`"
        raise UsageError("the run has no held-out data of its own", hint=hint, code="data_missing")
    names = job.data.label_names or class_names(store, pointer)
    wanted = replace(job.data, train=where, eval=where, label_names=names)
    inputs = InputsJob(job.inputs.uri, tuple(one for one in job.inputs.files if _is_needed(one.path, where)))
    return Question(replace(job, data=wanted, inputs=inputs), store, pointer)


def appraise(question: Question, told: Callable[[str], None]) -> Appraisal:
    """Measure in a process of its own.

    Args:
        question: What.
        told: Called with each line of its log.

    Raises:
        UsageError: Data or model cannot be used.
        RunFailedError: The process ended in another way.
        CorruptDataError: The stored model is damaged.
        StorageError: The store failed.
    """
    with tempfile.TemporaryDirectory(prefix="plan-evaluate-") as name:
        scratch = Path(name)
        (scratch / _JOB).write_text(_anywhere(question.job).to_json(), encoding="utf-8")
        words = [str(scratch / _JOB), "--out", str(scratch / _ANSWER)]
        if question.store is not None and question.pointer is not None:
            manifest = read_manifest(question.store, question.pointer)
            fetch_files(question.store, manifest, scratch / _MODEL)
            words += ["--adapter", str(scratch / _MODEL)]
        code = run_worker("jobs.appraise", words, told)
        if code:
            raise _failure(code)
        return _read(scratch / _ANSWER)


def appraisal_document(job: JobSpec, step: int | None, answer: Appraisal) -> dict[str, Any]:
    """The `tuneplan/evaluate` document below its common first keys and the name of the run."""
    first, goal = answer.metrics[0], job.evaluate.goal
    where = job.data.eval or ""
    return {
        "name": job.name,
        "model": job.model.source,
        "step": step,
        "data": where,
        "data_sha256": data_sha256(Path(where)) if Path(where).exists() else None,
        "metric": answer.metric,
        "metrics": [
            {"name": one.name, "split": one.split, "n": one.n, "base": one.base, "tuned": one.tuned,
             "higher_is_better": one.higher_is_better}
            for one in answer.metrics
        ],
        "goal": None if goal is None else {
            "metric": answer.metric,
            "at_least": goal,
            "base_meets": first.base is not None and first.base >= goal,
            "tuned_meets": None if first.tuned is None else first.tuned >= goal,
        },
        "seconds": answer.seconds,
    }  # fmt: skip


def meets_goal(job: JobSpec, answer: Appraisal) -> bool | None:
    """Whether what was measured (the finished model, else the base) meets the goal; None without a goal."""
    first, goal = answer.metrics[0], job.evaluate.goal
    if goal is None:
        return None
    value = first.base if first.tuned is None else first.tuned
    return value is not None and value >= goal


def _is_needed(path: str, data: str) -> bool:
    return path.startswith("inputs/model/") or path == data or path.startswith(f"{data}/")


def _anywhere(job: JobSpec) -> JobSpec:
    """The job without what only training needs, and without kernels that this machine may lack."""
    attention = "auto" if job.train.attention == "flash" else job.train.attention
    train = replace(job.train, attention=attention, processes=1)
    evaluate = replace(job.evaluate, guard=None)
    return replace(job, train=train, evaluate=evaluate, checkpoints=CheckpointsJob("file:///unused"))


def _failure(code: int) -> UsageError | RunFailedError:
    if code == BAD_JOB:
        return UsageError("the model cannot be measured on this data", hint="the reason is above")
    return RunFailedError(f"measuring ended with exit code {code}", hint="the reason is above")


def _read(path: Path) -> Appraisal:
    try:
        return decode(Appraisal, json.loads(path.read_text(encoding="utf-8")), strict=False)
    except (OSError, ValueError, Mismatch) as error:
        raise RunFailedError(f"measuring gave no answer: {error}") from error
