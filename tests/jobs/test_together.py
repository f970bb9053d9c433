"""Several processes train one model: they learn what one would, commit once, and go on with another number."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from jobs import peers
from jobs.spec import JobSpec
from tests.jobs.runs import Runs, renamed
from tests.jobs.zygote import Zygote

pytestmark = pytest.mark.train


def two_processes(runs: Runs, name: str, kind: str = "full") -> JobSpec:
    """A short training that was planned for two processes, without dropout."""
    job = runs.sft(name, kind=kind)
    method = replace(job.method, dropout=0.0)
    train = replace(job.train, micro_batch=2, processes=2)
    return replace(job, method=method, train=train)


def together(runs: Runs, job: JobSpec, processes: int = 2) -> list[int]:
    """Exit codes of an attempt of several processes."""
    return [runs.zygote.wait(pid) for pid in runs.start_together(job, processes)]


def interrupted(
    runs: Runs, job: JobSpec, when: Callable[[], bool], how: signal.Signals, whom: slice
) -> list[int]:
    """Exit codes of processes some of which get a signal."""
    pids = runs.start_together(job, 2)
    while not when():
        time.sleep(0.001)
    for pid in pids[whom]:
        os.kill(pid, how)
    return [runs.zygote.wait(pid) for pid in pids]


@pytest.fixture(scope="module")
def runs(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(zygote, tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def done(runs: Runs) -> JobSpec:
    job = two_processes(runs, "pair")
    assert together(runs, job) == [0, 0], runs.log("pair")
    return job


def losses(runs: Runs, name: str) -> tuple[float, float]:
    """Of base and tuned."""
    found = next(metric for metric in runs.progress(name).metrics if metric.name == "loss")
    assert found.base is not None
    assert found.tuned is not None
    return found.base, found.tuned


def test_two_processes_learn_what_one_does(runs: Runs, done: JobSpec) -> None:
    alone = renamed(runs, done, "alone")
    progress = runs.complete(alone)
    pair = runs.progress("pair")
    assert losses(runs, "pair") == pytest.approx(losses(runs, "alone"), rel=1e-3)
    assert pair.tokens_trained == progress.tokens_trained
    assert (pair.fence, pair.step, pair.state) == (1, 24, "done")
    assert runs.log("pair").count("finished model committed") == 1


def test_killed_and_resumed_exactly(runs: Runs, done: JobSpec) -> None:
    job = renamed(runs, done, "killed")
    codes = interrupted(runs, job, lambda: runs.newest_step("killed") >= 8, signal.SIGKILL, slice(2))
    assert codes == [-signal.SIGKILL] * 2
    assert together(runs, job) == [0, 0], runs.log("killed")
    assert (runs.progress("killed").resumed_from_step or 0) >= 8
    assert runs.weights("killed") == runs.weights("pair")


@pytest.mark.parametrize("lost", [0, 1])
def test_one_whose_peer_is_gone_goes_on_elsewhere(runs: Runs, done: JobSpec, lost: int) -> None:
    name = f"without-{lost}"
    job = renamed(runs, done, name)
    only = slice(lost, lost + 1)
    codes = interrupted(runs, job, lambda: runs.newest_step(name) >= 8, signal.SIGKILL, only)
    assert codes[lost] == -signal.SIGKILL
    assert codes[1 - lost] in (75, 76), runs.log(name)
    if lost == 1:
        said = runs.progress(name)
        assert (said.state, said.exit_reason) == ("preempted", peers.LOST)
    assert together(runs, job) == [0, 0], runs.log(name)
    assert runs.weights(name) == runs.weights("pair")


def test_one_whose_peer_failed_by_itself_has_failed_for_its_reason(runs: Runs, done: JobSpec) -> None:
    job = renamed(runs, done, "broken")
    pids = runs.start_together(job, 2, "tests.jobs.runs:train_as_rank_that_breaks")
    assert [runs.zygote.wait(pid) for pid in pids] == [1, 1], runs.log("broken")
    said = runs.progress("broken")
    assert (said.state, said.exit_reason) == ("failed", "process 1: ZeroDivisionError: as the test wants it")


def test_a_signal_to_one_stops_all_at_the_same_step(runs: Runs, done: JobSpec) -> None:
    job = renamed(runs, done, "told")
    job = replace(job, checkpoints=replace(job.checkpoints, every_steps=1000))
    started = lambda: "training from step 0" in runs.log("told")  # noqa: E731
    assert interrupted(runs, job, started, signal.SIGTERM, slice(1, 2)) == [75, 75]
    assert 1 <= runs.newest_step("told") == runs.progress("told").step < 24
    assert runs.progress("told").state == "preempted"
    assert runs.complete(job).state == "done"  # alone: from the same rows
    assert runs.log("told").count("resuming from step") == 1
    assert losses(runs, "told") == pytest.approx(losses(runs, "pair"), rel=1e-3)


def test_one_becomes_two(runs: Runs, done: JobSpec) -> None:
    job = renamed(runs, done, "grown")
    runs.interrupt(job, lambda: runs.newest_step("grown") >= 8)
    assert together(runs, job) == [0, 0], runs.log("grown")
    assert losses(runs, "grown") == pytest.approx(losses(runs, "pair"), rel=1e-3)


def test_rows_that_cannot_be_shared_are_refused(runs: Runs) -> None:
    job = two_processes(runs, "three")
    job = replace(job, train=replace(job.train, micro_batch=1, grad_accum=1, processes=1))
    assert together(runs, job) == [78, 78]
    assert "1 rows a step cannot be shared by 2 processes" in runs.log("three")
