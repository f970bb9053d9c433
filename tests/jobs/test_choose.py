"""Training that stops early, hands over its best weights and is held back by a guard, also when it is killed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.history import History
from jobs.progress import Progress
from jobs.spec import EvaluateJob, GuardJob, JobSpec
from tests.jobs.runs import Runs, renamed
from tests.jobs.test_methods import TRAIN, job_of, paired, sums

pytestmark = pytest.mark.train


def wrong_sums(rows: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """What the base answers rightly gets another answer."""
    return [{"prompt": q, "completion": wrong} for q, _, wrong in rows]


def jumpy(runs: Runs, name: str, **evaluate: Any) -> JobSpec:
    """A quarter of what is held out is the other way round: its loss falls, then rises as the model gets surer."""
    job = job_of(runs, name, "dpo", paired, train=replace(TRAIN, learning_rate=3e-4, scheduler="constant"))
    held_out = Path(job.data.eval or "")
    rows = [json.loads(line) for line in held_out.read_text().splitlines()]
    for row in rows[::4]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    held_out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    checkpoints = replace(job.checkpoints, keep=1)
    return replace(job, evaluate=EvaluateJob("loss", every_steps=3, **evaluate), checkpoints=checkpoints)


def killed_at(runs: Runs, job: JobSpec, name: str, step: int) -> JobSpec:
    """A twin of the job that was killed after a checkpoint of the step."""
    twin = renamed(runs, job, name)
    runs.interrupt(twin, lambda: runs.newest_step(name) >= step)
    return twin


def history_of(runs: Runs, name: str) -> History:
    return History.read(runs.output(name))


def test_the_best_weights_are_handed_over_whoever_kills_the_run(runs: Runs) -> None:
    job = jumpy(runs, "best", choose="best")
    progress = runs.complete(job)
    history = history_of(runs, "best")
    values = {one.step: one.values["loss"] for one in history.evaluations}
    assert list(values) == [*range(3, 31, 3)]
    best = min(values, key=lambda step: (values[step], step))
    assert best < 30, "the last step is the best one: nothing is shown"
    head = runs.head("best")
    assert progress.output_step == best
    assert head.best is not None and head.best.step == best
    assert best not in [one.step for one in head.checkpoints], "it would have been kept anyway"
    assert {one.name: one.tuned for one in progress.metrics}["loss"] == values[best]
    result = json.loads((runs.output("best") / "result.json").read_text())
    assert (result["step"], result["trained_steps"]) == (best, 30)

    for name, step in (("early", 3), ("late", 24)):
        killed_at(runs, job, name, step)
        runs.complete(renamed(runs, job, name))
        assert runs.weights(name) == runs.weights("best")
        assert history_of(runs, name) == history
    last = jumpy(runs, "last")
    runs.complete(last)
    assert runs.weights("last") != runs.weights("best")


def finish_with_failing_commits(
    runs: Runs, job: JobSpec, failures: dict[int, int], function: str = "train_where_commits_fail"
) -> Progress:
    """Run the job where the commit of these steps fails so often."""
    directory = runs.root / job.run_id
    directory.mkdir(exist_ok=True)
    (directory / "failing.json").write_text(json.dumps(failures))
    assert runs.zygote.wait(runs.start(job, f"tests.jobs.runs:{function}")) == 0, runs.log(job.run_id)
    return runs.progress(job.run_id)


def test_the_best_weights_are_handed_over_though_a_commit_failed_else_the_best_that_are_left(
    runs: Runs,
) -> None:
    job = jumpy(runs, "undisturbed", choose="best")
    best = runs.complete(job).output_step
    assert best is not None
    progress = finish_with_failing_commits(runs, renamed(runs, job, "blip"), {best: 1})
    assert progress.output_step == best
    assert progress.last_checkpoint is not None and progress.last_checkpoint.step == 30
    assert runs.weights("blip") == runs.weights("undisturbed")

    lost = renamed(runs, job, "lost")
    progress = finish_with_failing_commits(runs, lost, {best: 1}, "train_where_no_commit_is_repeated")
    values = {one.step: one.values["loss"] for one in history_of(runs, "lost").evaluations}
    left = min([*(step for step in values if step < best), 30], key=lambda step: (values[step], step))
    assert progress.output_step == left
    said = f"step {best} has the best evaluation, but no intact checkpoint of it is committed"
    assert said in runs.log("lost")


@pytest.mark.long
def test_patience_ends_the_training_also_after_a_kill(runs: Runs) -> None:
    job = jumpy(runs, "patient", patience=2, choose="best")
    progress = runs.complete(job)
    assert progress.step < 30
    assert (progress.exit_reason or "").startswith("no better loss in 2 evaluations, the best is")
    assert (progress.state, progress.output_step) == ("done", progress.step - 6)
    killed_at(runs, job, "twin", progress.step - 3)
    twin = runs.complete(renamed(runs, job, "twin"))
    assert (twin.step, twin.exit_reason) == (progress.step, progress.exit_reason)
    assert runs.weights("twin") == runs.weights("patient")


@pytest.fixture
def general(tmp_path: Path) -> str:
    """Additions with their right answers, which the base knows."""
    path = tmp_path / "general.jsonl"
    rows = [{"prompt": q, "completion": right} for q, right, _ in sums(40, seed=99)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_model_that_forgets_is_kept_and_flagged(runs: Runs, general: str) -> None:
    guard = GuardJob(general, "exact_match", at_most_worse=0.2)
    job = job_of(runs, "forgets", "sft", wrong_sums, evaluate=EvaluateJob("exact_match", guard=guard))
    assert runs.finish(job) == 79, runs.log("forgets")
    progress = runs.progress("forgets")
    assert progress.state == "regressed"
    assert progress.guard is not None and not progress.guard.passed
    assert progress.guard.base >= 0.9 and progress.guard.tuned <= 0.2
    assert {one.split for one in progress.metrics} == {"eval", "guard"}
    assert json.loads((runs.output("forgets") / "result.json").read_text())["guard"]["passed"] is False
    assert (runs.output("forgets") / "adapter_model.safetensors").exists()
    assert runs.finish(job) == 79, "started again it says the same"
    assert runs.progress("forgets").exit_reason == progress.exit_reason


def test_a_guard_that_is_kept_changes_nothing(runs: Runs, general: str) -> None:
    plain = job_of(runs, "plain", "sft", wrong_sums, train=replace(TRAIN, steps=6, learning_rate=1e-5))
    guard = GuardJob(general, at_most_worse=0.5)
    runs.complete(plain)
    guarded = replace(renamed(runs, plain, "guarded"), evaluate=EvaluateJob(every_steps=2, guard=guard))
    progress = runs.complete(guarded)
    assert progress.guard is not None and progress.guard.passed
    assert runs.weights("guarded") == runs.weights("plain")
