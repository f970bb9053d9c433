"""Adapters of experiment trackers: each knows what it has of a run already, so that no step is told twice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobs.spec import JobSpec, TrackerKind
from providers.errors import UsageError
from providers.object_store import ObjectStore

_RUN_TAG = "tuneplan.run_id"
_MLFLOW_BATCH = 500
_FOLDER = "tensorboard/"


class Point(NamedTuple):
    """One value of a metric at a step."""

    metric: str
    step: int
    value: float


class Tracker(Protocol):
    """One tracked run, whatever the number of attempts."""

    def last_step(self, metric: str) -> int:
        """The newest step that it has of a metric, -1 for none."""

    def log(self, points: Sequence[Point]) -> None:
        """Take points, oldest first."""

    def close(self, state: str, results: Mapping[str, float]) -> None:
        """This attempt is over; `state` as of the worker, `results` only once it is done."""


def open_tracker(kind: TrackerKind, job: JobSpec, store: ObjectStore, scratch: Path) -> Tracker:
    """The tracked run of a job, the one of an earlier attempt if there was one.

    Args:
        kind: mlflow, wandb or tensorboard.
        job: Names the run, and its parameters are told.
        store: Of the run; event files of tensorboard lie in it.
        scratch: Directory of this attempt.

    Raises:
        UsageError: The tracker's package is not installed.
    """
    try:
        if kind == "mlflow":
            return _Mlflow(job)
        if kind == "wandb":
            return _Wandb(job, store, scratch)
        return _Tensorboard(store, scratch / "tensorboard")
    except ImportError as error:
        hint = f"pip install 'tuneplan[{kind}]'"
        raise UsageError(
            f"tracking with {kind} needs a package that is not here: {error}", hint=hint
        ) from error


def parameters_of(job: JobSpec) -> dict[str, str]:
    """What a tracked run shows of its job; never an environment variable."""
    train = job.train
    rows = train.micro_batch * train.grad_accum * train.processes
    shown: dict[str, object] = {
        "model": job.model.id,
        "revision": job.model.revision or "not pinned",
        "task": job.task,
        "method": job.method.kind,
        "rank": job.method.rank,
        "quantization": job.quantization,
        "rows_per_step": rows,
        "learning_rate": train.learning_rate,
        "optimizer": train.optimizer,
        "precision": train.precision,
        "seed": train.seed,
    }
    return {key: str(value) for key, value in shown.items()}


class _Mlflow:
    """A run of MLflow, found again by its tag."""

    def __init__(self, job: JobSpec) -> None:
        address = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not address or address.startswith("file:") or "://" not in address:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # it was chosen, old as it is
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", job.name)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        wanted = f"tags.`{_RUN_TAG}` = '{job.run_id}'"
        runs = self._client.search_runs([experiment], wanted, order_by=["attributes.start_time ASC"])
        run = (
            runs[0]
            if runs
            else self._client.create_run(experiment, run_name=job.run_id, tags={_RUN_TAG: job.run_id})
        )
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        known = run.data.params
        for key, value in parameters_of(job).items():
            if key not in known:
                self._client.log_param(self._id, key, value)

    def last_step(self, metric: str) -> int:
        return max((one.step for one in self._client.get_metric_history(self._id, metric)), default=-1)

    def log(self, points: Sequence[Point]) -> None:
        from time import time

        from mlflow.entities import Metric

        now_ms = int(time() * 1000)
        told = [Metric(one.metric, one.value, now_ms, one.step) for one in points]
        for first in range(0, len(told), _MLFLOW_BATCH):
            self._client.log_batch(self._id, metrics=told[first : first + _MLFLOW_BATCH])

    def close(self, state: str, results: Mapping[str, float]) -> None:
        for key, value in results.items():
            self._client.set_tag(self._id, key, f"{value:.6g}")
        self._client.set_tag(self._id, "tuneplan.state", state)
        ended = {"done": "FINISHED", "regressed": "FAILED", "failed": "FAILED", "capped": "KILLED"}
        if state in ended:
            self._client.set_terminated(self._id, ended[state])


class _Tensorboard:
    """Event files below `tensorboard/` of the run's own store, one for each attempt."""

    def __init__(self, store: ObjectStore, directory: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._store, self._directory = store, directory
        directory.mkdir(parents=True, exist_ok=True)
        for item in list(store.list(_FOLDER)):
            store.get_file(item.key, directory / Path(item.key).name)
        self._known: dict[str, int] = {}
        if any(directory.iterdir()):
            events = EventAccumulator(str(directory), size_guidance={"scalars": 0})
            events.Reload()
            for tag in events.Tags()["scalars"]:
                self._known[tag] = max(one.step for one in events.Scalars(tag))
        before = set(directory.iterdir())
        self._writer = EventFileWriter(str(directory))
        (self._file,) = set(directory.iterdir()) - before

    def last_step(self, metric: str) -> int:
        return self._known.get(metric, -1)

    def log(self, points: Sequence[Point]) -> None:
        from time import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        for one in points:
            value = Summary.Value(tag=one.metric, simple_value=one.value)
            self._writer.add_event(Event(wall_time=time(), step=one.step, summary=Summary(value=[value])))
            self._known[one.metric] = one.step
        self._writer.flush()
        self._store.put(_FOLDER + self._file.name, self._file.read_bytes())

    def close(self, state: str, results: Mapping[str, float]) -> None:
        self._writer.close()
        self._store.put(_FOLDER + self._file.name, self._file.read_bytes())


class _Wandb:
    """A run of Weights & Biases, resumed by its id; what it was told is kept in the run's store."""

    _KEY = "wandb-steps.json"

    def __init__(self, job: JobSpec, store: ObjectStore, scratch: Path) -> None:
        import json

        import wandb

        self._store = store
        found = store.get(self._KEY)
        self._known: dict[str, int] = json.loads(found[0]) if found else {}
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", job.name),
            id=job.run_id,
            name=job.run_id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(scratch)),
            config=parameters_of(job),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="optimizer_step")

    def last_step(self, metric: str) -> int:
        return self._known.get(metric, -1)

    def log(self, points: Sequence[Point]) -> None:
        import json

        steps: dict[int, dict[str, float]] = {}
        for one in points:
            steps.setdefault(one.step, {"optimizer_step": one.step})[one.metric] = one.value
        known = {**self._known, **{one.metric: one.step for one in points}}
        # what is known is written first: a kill in between leaves a gap, never a step told twice
        self._store.put(self._KEY, json.dumps(known).encode())
        self._known = known
        for step in sorted(steps):
            self._run.log(steps[step])

    def close(self, state: str, results: Mapping[str, float]) -> None:
        for key, value in results.items():
            self._run.summary[key] = value
        self._run.summary["state"] = state
        self._run.finish(exit_code=0 if state in ("done", "preempted") else 1)
