"""One tracked run over all recoveries: no step is missing, none is there twice, and training never waits for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.history import Evaluation, History
from jobs.progress import MetricResult
from jobs.spec import EvaluateJob, JobSpec
from jobs.trackers import Point
from jobs.tracking import Tracking
from tests.jobs.runs import Runs
from tests.planner.run_factories import terms_of


class Memory:
    """A tracker that remembers, and refuses when it is told to."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.closed: list[tuple[str, dict[str, float]]] = []
        self.broken = False

    def last_step(self, metric: str) -> int:
        return max((one.step for one in self.points if one.metric == metric), default=-1)

    def log(self, points: Sequence[Point]) -> None:
        if self.broken:
            raise ConnectionError("away")
        self.points += points

    def close(self, state: str, results: Mapping[str, float]) -> None:
        self.closed.append((state, dict(results)))


def losses(*steps: int) -> History:
    history = History()
    for step in steps:
        history = history.with_loss(step, 1.0 / step)
    return history.with_evaluation(Evaluation(4, 3, {"loss": 0.2}))


def steps(memory: Memory, metric: str = "train/loss") -> list[int]:
    return [one.step for one in memory.points if one.metric == metric]


def test_only_what_is_committed_is_told_and_nothing_twice() -> None:
    memory = Memory()
    first = Tracking(lambda: memory)
    first.committed(losses(2, 4, 6), 4)
    first.close("preempted", losses(2, 4, 6), ())
    assert steps(memory) == [2, 4]
    second = Tracking(lambda: memory)
    second.committed(losses(2, 4, 6, 8), 8)
    metric = MetricResult("loss", "eval", 3, 0.5, 0.2, higher_is_better=False)
    second.close("done", losses(2, 4, 6, 8, 9), (metric,))
    assert steps(memory) == [2, 4, 6, 8, 9] and steps(memory, "eval/loss") == [4]
    assert memory.closed == [("preempted", {}), ("done", {"eval/loss/base": 0.5, "eval/loss/tuned": 0.2})]


def test_a_tracker_that_is_away_costs_nothing_but_time(capsys: pytest.CaptureFixture[str]) -> None:
    memory, tries = Memory(), []

    def late() -> Memory:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("no network")
        return memory

    memory.broken = True
    tracking = Tracking(late)
    for step in (2, 4):
        tracking.committed(losses(2, 4), step)
    memory.broken = False
    tracking.close("done", losses(2, 4), ())
    assert steps(memory) == [2, 4]


def test_what_a_tracker_says_holds_no_login(capsys: pytest.CaptureFixture[str]) -> None:
    def away() -> Memory:
        raise OSError("no answer from https://ann:canary@track.test/api and //x:80")

    Tracking(away).close("done", losses(2), ())
    told = capsys.readouterr()
    assert "https://***@track.test/api and //x:80" in told.out + told.err
    assert "canary" not in told.out + told.err


def test_a_package_that_is_not_there_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from jobs.trackers import open_tracker
    from providers.directory_store import DirectoryStore

    monkeypatch.setitem(sys.modules, "wandb", None)
    job = JobSpec.from_json(terms_of().job_json)
    tracking = Tracking(lambda: open_tracker("wandb", job, DirectoryStore(tmp_path), tmp_path))
    tracking.committed(losses(2), 2)
    tracking.close("done", losses(2), ())
    said = capsys.readouterr().out
    assert said.count("not tracked") == 1 and "wandb" in said


def train_tracked(arguments: list[str]) -> int:
    """Train with the tracker's settings named beside the job."""
    from jobs.train import main

    os.environ.update(json.loads(Path(arguments[0]).with_name("environment.json").read_text()))
    return main(arguments)


def tracked_twice(runs: Runs, kind: str, environment: dict[str, str]) -> JobSpec:
    """A run that was killed after a commit, and went on to its end."""
    job = replace(runs.sft("tracked", steps=12, every=4), track=kind)  # type: ignore[arg-type]
    job = replace(job, evaluate=EvaluateJob("loss", every_steps=4))
    (runs.root / "tracked").mkdir(exist_ok=True)
    (runs.root / "tracked" / "environment.json").write_text(json.dumps(environment))
    start = runs.start
    runs.start = lambda job, *_: start(job, "tests.jobs.test_tracking:train_tracked")  # type: ignore[method-assign,assignment,misc]
    runs.interrupt(job, lambda: runs.newest_step("tracked") >= 4)
    progress = runs.complete(job)
    assert progress.fence == 2 and (progress.resumed_from_step or 0) >= 4
    assert "not tracked" not in runs.log("tracked"), runs.log("tracked")
    return job


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Any]:
    """MLflow's client on a file store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")

    def client() -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient((tmp_path / "mlruns").as_uri())

    return client


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_one_run_whatever_was_killed(
    runs: Runs, tmp_path: Path, reader: Callable[[], Any]
) -> None:
    uri = (tmp_path / "mlruns").as_uri()
    job = tracked_twice(runs, "mlflow", {"MLFLOW_TRACKING_URI": uri})
    client = reader()
    found = client.get_experiment_by_name(job.name)
    (run,) = client.search_runs([found.experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["method"] == "lora"
    for metric in ("train/loss", "eval/loss"):
        told = [one.step for one in client.get_metric_history(run.info.run_id, metric)]
        assert sorted(told) == [4, 8, 12] if metric == "eval/loss" else len(set(told)) == len(told) >= 3
    tuned = next(one.tuned for one in runs.progress("tracked").metrics if one.name == "loss")
    assert run.data.tags["eval/loss/tuned"] == f"{tuned:.6g}"


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_each_step_once(runs: Runs, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracked_twice(runs, "tensorboard", {})
    events = EventAccumulator(str(runs.root / "tracked" / "store" / "tensorboard"))
    events.Reload()
    assert [one.step for one in events.Scalars("eval/loss")] == [4, 8, 12]
    told = [one.step for one in events.Scalars("train/loss")]
    assert told == sorted(set(told)) and told[-1] == 12


@pytest.mark.train
@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_goes_on_with_the_run_of_this_id(runs: Runs, tmp_path: Path) -> None:
    home = tmp_path / "wandb-home"
    home.mkdir()
    tracked_twice(runs, "wandb", {"WANDB_MODE": "offline", "WANDB_DIR": str(home)})
    written = list(home.glob("wandb/offline-run-*-tracked"))
    assert written, "every attempt writes to the run of the same id"
    assert json.loads((runs.store("tracked").get("wandb-steps.json") or (b"{}",))[0])["eval/loss"] == 12
