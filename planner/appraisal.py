"""Measures without training: a base model, or a finished one on other data, by the worker's own code, here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.appraise import Appraisal
from jobs.codec import Mismatch, decode
from jobs.committed import fetch_files, read_head, read_manifest
from jobs.data import files_of
from jobs.manifest import Pointer
from jobs.spec import CheckpointsJob, DataJob, InputsJob, JobSpec
from jobs.train import BAD_JOB
from planner.errors import RunFailedError
from planner.job_document import document_without_machine
from providers.errors import CorruptDataError, UsageError
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
    pointer = _pointer(store, step)
    where = job.data.eval if data is None else str(data.absolute())
    if where is None:
        hint = "name some: `--data FILE`"
        raise UsageError("the run has no held-out data of its own", hint=hint, code="data_missing")
    names = job.data.label_names or _labels(store, pointer)
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
        code = _run([sys.executable, "-P", "-m", "jobs.appraise", *words], told)
        if code:
            raise _failure(code)
        return _read(scratch / _ANSWER)


def appraisal_document(job: JobSpec, step: int | None, answer: Appraisal) -> dict[str, Any]:
    """The `tuneplan/evaluate` document below its common first keys and the name of the run."""
    first = answer.metrics[0]
    goal = job.evaluate.goal
    return {
        "name": job.name,
        "model": job.model.source,
        "step": step,
        "data": job.data.eval,
        "data_sha256": data_sha256(job.data),
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


def data_sha256(data: DataJob) -> str | None:
    """Of the held-out data's bytes, its files one after the other; None if it is not on this machine."""
    if data.eval is None or not Path(data.eval).exists():
        return None
    total = hashlib.sha256()
    for path in files_of(Path(data.eval)):
        total.update(path.read_bytes())
    return total.hexdigest()


def _pointer(store: ObjectStore, step: int | None) -> Pointer:
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


def _labels(store: ObjectStore, pointer: Pointer) -> tuple[str, ...] | None:
    """Class names that the finished model says, None if it says none."""
    result = next((one for one in read_manifest(store, pointer).files if one.path == "result.json"), None)
    body = None if result is None else store.get(f"blobs/{result.sha256}")
    try:
        return tuple(json.loads(body[0]).get("labels") or ()) or None if body else None
    except (ValueError, AttributeError) as error:
        raise CorruptDataError(f"result.json is damaged: {error}", path="result.json") from error


def _is_needed(path: str, data: str) -> bool:
    return path.startswith("inputs/model/") or path == data or path.startswith(f"{data}/")


def _anywhere(job: JobSpec) -> JobSpec:
    """The job without what only training needs, and without kernels that this machine may lack."""
    attention = "auto" if job.train.attention == "flash" else job.train.attention
    train = replace(job.train, attention=attention, processes=1)
    evaluate = replace(job.evaluate, guard=None)
    return replace(job, train=train, evaluate=evaluate, checkpoints=CheckpointsJob("file:///unused"))


def _run(words: list[str], told: Callable[[str], None]) -> int:
    """The exit code; the process does not outlive this one's interest in it."""
    with subprocess.Popen(  # noqa: S603 - argv is ours, no shell
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": _code_root()},
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


def _failure(code: int) -> UsageError | RunFailedError:
    if code == BAD_JOB:
        return UsageError("the model cannot be measured on this data", hint="the reason is above")
    return RunFailedError(f"measuring ended with exit code {code}", hint="the reason is above")


def _read(path: Path) -> Appraisal:
    try:
        return decode(Appraisal, json.loads(path.read_text(encoding="utf-8")), strict=False)
    except (OSError, ValueError, Mismatch) as error:
        raise RunFailedError(f"measuring gave no answer: {error}") from error
