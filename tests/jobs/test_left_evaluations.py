"""A stop while the model is measured costs nothing of the training: the evaluation is left, and made up for later."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from jobs.committed import fetch_files, read_manifest
from jobs.history import History
from jobs.spec import EvaluateJob, JobSpec
from tests.jobs.runs import Runs, renamed
from tests.jobs.test_choose import history_of, jumpy
from tests.jobs.test_methods import results
from tests.jobs.test_sharded import spread
from tests.jobs.test_together import two_processes

pytestmark = pytest.mark.train

SLOWLY = "tests.jobs.runs:train_measuring_slowly"
ROWS = 48  # held out, each a batch of its own


def attempt(runs: Runs, job: JobSpec, slow: int | None = None, processes: int = 1) -> list[int]:
    """Exit codes of an attempt; the last process is told to stop in the middle of the evaluation of the slow step."""
    directory = runs.root / job.run_id
    directory.mkdir(exist_ok=True)
    (directory / "slow").write_text(str(slow))
    seen = runs.log(job.run_id).count("batch 2 at")
    pids = [runs.start(job, SLOWLY)] if processes == 1 else runs.start_together(job, processes, SLOWLY)
    while slow is not None and runs.log(job.run_id).count("batch 2 at") == seen:
        assert runs.log(job.run_id).count("Traceback") == 0, runs.log(job.run_id)
        time.sleep(0.002)
    if slow is not None:
        os.kill(pids[-1], signal.SIGTERM)
    return [runs.zygote.wait(pid) for pid in pids]


def left_at(runs: Runs, name: str, step: int) -> None:
    """The run stopped with a checkpoint of this step, which is not measured, and computed few of its batches."""
    progress, newest = runs.progress(name), runs.head(name).newest
    assert newest is not None
    assert (progress.state, progress.step, newest.step) == ("preempted", step, step), runs.log(name)
    fetch_files(runs.store(name), read_manifest(runs.store(name), newest), runs.root / name / "newest")
    history = History.read(runs.root / name / "newest")
    assert history.unmeasured == step
    assert history.at(step) is None
    assert f"batch {ROWS // 2} at" not in runs.log(name)


def same(runs: Runs, name: str, other: str) -> None:
    """Two runs have ended alike, but for when they reported losses."""
    one, two = runs.progress(name), runs.progress(other)
    assert one.lost_steps == 0
    assert (one.state, one.step, one.output_step) == (two.state, two.step, two.output_step)
    assert one.exit_reason == two.exit_reason
    assert results(one) == results(two)
    assert runs.weights(name) == runs.weights(other)
    first, second = history_of(runs, name), history_of(runs, other)
    assert first.evaluations == second.evaluations
    assert first.unmeasured is None


def test_the_step_is_saved_at_once_and_measured_first_by_whoever_goes_on(runs: Runs) -> None:
    """Be it the best one, of which HEAD is told when that is known, or the last."""
    job = jumpy(runs, "undisturbed", choose="best")
    assert attempt(runs, job) == [0], runs.log("undisturbed")
    best = runs.progress("undisturbed").output_step
    assert best is not None and 3 < best < 27
    for name, step, times in (("best", best, 2), ("last", 30, 1)):
        twin = renamed(runs, job, name)
        for _ in range(times):  # at the second time while it makes up for the first
            assert attempt(runs, twin, slow=step) == [75], runs.log(name)
            left_at(runs, name, step)
        assert attempt(runs, twin) == [0], runs.log(name)
        same(runs, name, "undisturbed")
        head = runs.head(name)
        assert head.best is not None and head.best.step == best


def test_training_ends_where_it_would_have(runs: Runs) -> None:
    job = jumpy(runs, "patient", patience=2, choose="best")
    assert attempt(runs, job) == [0], runs.log("patient")
    last = runs.progress("patient").step
    assert last < 30
    twin = renamed(runs, job, "twin")
    assert attempt(runs, twin, slow=last) == [75], runs.log("twin")
    left_at(runs, "twin", last)
    assert attempt(runs, twin) == [0], runs.log("twin")
    same(runs, "twin", "patient")


def test_nothing_of_the_training_is_lost_before_it_and_after_it(runs: Runs) -> None:
    """The base is measured before there is a checkpoint, the finished model after the last one."""
    job = jumpy(runs, "whole")
    job = replace(job, evaluate=EvaluateJob("loss"), train=replace(job.train, precision="bf16"))
    assert attempt(runs, job) == [0], runs.log("whole")
    twin = renamed(runs, job, "told")
    assert attempt(runs, twin, slow=0) == [76], runs.log("told")
    assert attempt(runs, twin, slow=30) == [75], runs.log("told")
    assert runs.newest_step("told") == 30
    assert attempt(runs, twin) == [0], runs.log("told")
    same(runs, "told", "whole")


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_all_processes_leave_it_together(runs: Runs, sharding: str) -> None:
    job = two_processes(runs, "pair") if sharding == "none" else spread(runs, "pair", "full")
    every = replace(job.checkpoints, every_steps=1000)
    job = replace(job, checkpoints=every, evaluate=EvaluateJob("loss", every_steps=4, choose="best"))
    assert attempt(runs, job, processes=2) == [0, 0], runs.log("pair")
    twin = renamed(runs, job, "twin")
    assert attempt(runs, twin, slow=8, processes=2) == [75, 75], runs.log("twin")
    left_at(runs, "twin", 8)
    assert attempt(runs, twin, processes=2) == [0, 0], runs.log("twin")
    same(runs, "twin", "pair")
