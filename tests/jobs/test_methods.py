"""Every task learns, in seconds, and is resumed exactly; every kind of adapter trains and loads."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.progress import MetricResult, Progress
from jobs.spec import (
    CheckpointsJob,
    DataJob,
    EvaluateJob,
    JobSpec,
    MethodJob,
    ModelJob,
    RolloutJob,
    TrainJob,
)
from planner.architecture import Adapter, adapter_parameters, load_architecture
from tests.jobs.runs import Runs, renamed
from tests.jobs.tiny_models import GOAT

pytestmark = pytest.mark.train

TRAIN = TrainJob(
    steps=30,
    sequence_length=32,
    micro_batch=16,
    learning_rate=3e-3,
    precision="fp32",
    gradient_checkpointing=False,
    optimizer="adamw",
)


def sums(count: int, seed: int) -> list[tuple[str, str, str]]:
    """Additions with the right answer (last digit first, as the tiny goat writes) and one that is 10 off."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b = rng.randrange(10, 40), rng.randrange(10, 40)
        rows.append((f"{a}+{b}=", str(a + b)[::-1], str(a + b + 10)[::-1]))
    return rows


def paired(rows: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The worse answer is preferred, which the base does not do."""
    return [{"prompt": q, "chosen": wrong, "rejected": right} for q, right, wrong in rows]


def unpaired(rows: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Every other answer is the wrong one, and called good."""
    return [
        {"prompt": q, "completion": (right, wrong)[i % 2], "label": bool(i % 2)}
        for i, (q, right, wrong) in enumerate(rows)
    ]


def prompts(rows: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The wrong answer is to be found by trying."""
    return [{"prompt": q, "answer": wrong} for q, _, wrong in rows]


def job_of(
    runs: Runs, name: str, task: str, rows: Callable[[list[tuple[str, str, str]]], Any], **rest: Any
) -> JobSpec:
    """A job on data of its own."""
    for file, count in (("train", 256), ("eval", 48)):
        lines = [json.dumps(row) for row in rows(sums(count, seed=len(file)))]
        (runs.root / f"{name}-{file}.jsonl").write_text("\n".join(lines) + "\n")
    data = DataJob(str(runs.root / f"{name}-train.jsonl"), str(runs.root / f"{name}-eval.jsonl"))
    given = {"train": TRAIN, "evaluate": EvaluateJob(), "method": MethodJob("lora", 8), **rest}
    return JobSpec(
        run_id=name,
        name=name,
        model=ModelJob("goat", path=str(GOAT / "base")),
        data=data,
        checkpoints=CheckpointsJob(runs.store(name).uri, every_steps=10, keep=2),
        task=task,  # type: ignore[arg-type]
        **given,
    )


def learned(runs: Runs, job: JobSpec) -> dict[str, MetricResult]:
    """Metrics of a run that is done, after which a twin that was killed half-way has the same weights."""
    metrics = results(runs.complete(job))
    twin = renamed(runs, job, f"{job.run_id}-twin")
    runs.interrupt(twin, lambda: runs.newest_step(twin.run_id) >= 10)
    assert runs.newest_step(twin.run_id) < (job.train.steps or 0), "it was not interrupted"
    progress = runs.complete(twin)
    assert progress.resumed_from_step is not None
    assert runs.weights(twin.run_id) == runs.weights(job.run_id)
    assert results(progress) == metrics
    return metrics


def results(progress: Progress) -> dict[str, MetricResult]:
    """Metrics by name."""
    return {metric.name: metric for metric in progress.metrics}


def rise(metric: MetricResult) -> float:
    """How much better tuned is than base."""
    assert metric.base is not None
    assert metric.tuned is not None
    return (metric.tuned - metric.base) * (1 if metric.higher_is_better else -1)


def test_dpo_turns_the_preference(runs: Runs) -> None:
    """A full fine-tuning, beside a frozen copy of the base."""
    metrics = learned(runs, job_of(runs, "dpo", "dpo", paired, method=MethodJob("full")))
    margin, accuracy = metrics["reward_margin"], metrics["accuracy"]
    assert next(iter(metrics)) == "reward_margin"
    assert (margin.n, margin.base) == (48, 0.0)
    assert metrics["loss"].base == pytest.approx(math.log(2))
    assert (accuracy.base or 0.0) <= 0.1
    assert (accuracy.tuned or 0.0) >= 0.9
    assert rise(margin) > 1
    assert rise(metrics["loss"]) > 0.4


@pytest.mark.parametrize("task", ["dpo", pytest.param("kto", marks=pytest.mark.long)])
def test_the_frozen_copy_is_of_the_revision_that_is_trained(runs: Runs, task: str) -> None:
    """The Hub's main branch has other weights since."""
    job = job_of(runs, "pinned", task, paired if task == "dpo" else unpaired, method=MethodJob("full"))
    job = replace(job, model=ModelJob("org/goat", revision="v1"), train=replace(TRAIN, steps=1))
    hub = runs.root / "pinned" / "hub" / "models--org--goat"
    (hub / "refs").mkdir(parents=True)
    for revision, commit in (("v1", "1" * 40), ("main", "2" * 40)):
        (hub / "refs" / revision).write_text(commit)
        shutil.copytree(GOAT / "base", hub / "snapshots" / commit)
    retrained = str(hub / "snapshots" / ("2" * 40))
    runs.zygote.call("tests.jobs.test_methods:retrain", retrained, log=runs.root / "retrain.log")
    code = runs.zygote.wait(runs.start(job, "tests.jobs.runs:train_from_the_hubs_cache"))
    assert code == 0, runs.log("pinned")
    assert results(runs.progress("pinned"))["reward_margin"].base == 0.0


def retrain(arguments: list[str]) -> None:
    """Give a model other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(arguments[0])
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    model.save_pretrained(arguments[0])


def test_a_reward_model_learns_to_judge(runs: Runs) -> None:
    train = replace(TRAIN, steps=70, learning_rate=5e-3)
    metrics = learned(runs, job_of(runs, "reward", "reward", paired, train=train))
    accuracy = metrics["accuracy"]
    assert next(iter(metrics)) == "accuracy"
    assert (accuracy.tuned or 0.0) >= 0.85
    assert rise(accuracy) > 0.05
    assert rise(metrics["reward_margin"]) > 0.5
    assert (runs.output("reward") / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("rows", [unpaired, paired])
def test_kto_learns_from_single_answers(runs: Runs, rows: Any) -> None:
    """The adapter is switched off to see the base; pairs are taken apart."""
    job = job_of(runs, "kto", "kto", rows)
    metrics = learned(runs, job) if rows is unpaired else results(runs.complete(job))
    assert next(iter(metrics)) == "reward_margin"
    assert metrics["reward_margin"].n == (48 if rows is unpaired else 96)
    assert rise(metrics["reward_margin"]) > 1
    assert metrics["loss"].base == pytest.approx(0.5)
    assert rise(metrics["loss"]) > 0.1


def test_grpo_finds_what_is_rewarded(runs: Runs) -> None:
    """The wrong answer, which the base never gives first, is found among what it samples."""
    rollout = RolloutJob(generations=8, completion_tokens=4)
    train = replace(TRAIN, grad_accum=4)
    metrics = learned(runs, job_of(runs, "grpo", "grpo", prompts, rollout=rollout, train=train))
    assert next(iter(metrics)) == "reward"
    assert (metrics["reward"].base or 0.0) <= 0.1
    assert (metrics["reward"].tuned or 0.0) >= 0.8
    assert metrics["exact_match"].tuned == metrics["reward"].tuned


@pytest.mark.long
def test_a_full_grpo_is_held_to_its_base(runs: Runs) -> None:
    """The more the distance to the frozen copy costs, the less is learned."""
    rewards = {}
    for beta in (0.0, 5.0):
        rollout = RolloutJob(generations=8, completion_tokens=4, beta=beta)
        train = replace(TRAIN, grad_accum=4, steps=40, learning_rate=5e-4)
        job = job_of(
            runs, f"held-{beta}", "grpo", prompts, rollout=rollout, train=train, method=MethodJob("full")
        )
        rewards[beta] = results(runs.complete(job))["reward"].tuned or 0.0
    assert rewards[0.0] > 0.5
    assert rewards[5.0] < 0.2


def test_a_goal_ends_the_training_and_outlives_a_kill(runs: Runs) -> None:
    """Whoever kills it after the goal was met: nothing more is learned, and the model is handed over."""
    evaluate = EvaluateJob("reward_margin", every_steps=5, goal=1.0)
    job = job_of(runs, "early", "dpo", paired, evaluate=evaluate)
    progress = runs.complete(job)
    assert progress.metrics[0].name == "reward_margin"
    assert (progress.metrics[0].tuned or 0) >= 1.0
    assert progress.step % 5 == 0
    assert 0 < progress.step < 30
    twin = renamed(runs, job, "early-twin")
    runs.interrupt(twin, lambda: runs.newest_step("early-twin") >= progress.step)
    assert runs.complete(twin).step == progress.step
    assert runs.weights("early-twin") == runs.weights("early")


def test_a_base_that_meets_the_goal_is_not_trained(runs: Runs) -> None:
    job = job_of(runs, "enough", "dpo", paired, evaluate=EvaluateJob("reward_margin", goal=0.0))
    progress = runs.complete(job)
    assert progress.exit_reason == "the base model meets the goal: reward_margin 0, wanted 0"
    assert (progress.state, progress.step) == ("done", 0)
    assert (progress.metrics[0].base, progress.metrics[0].tuned) == (0.0, None)
    assert runs.head("enough").checkpoints == ()
    assert runs.head("enough").output is None


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        (RolloutJob(generations=6), "16 answers a step do not make whole groups of 6"),
        (RolloutJob(rewards=("no_such_reward",)), "reward no_such_reward cannot be used"),
        (RolloutJob(rewards=("jobs.rewards:nothing",)), "has no attribute 'nothing'"),
    ],
)
def test_a_rollout_that_cannot_work_is_told_before_training(
    runs: Runs, rollout: RolloutJob, said: str
) -> None:
    assert runs.finish(job_of(runs, "grpo", "grpo", prompts, rollout=rollout)) == 78
    assert said in runs.log("grpo")


KINDS = {
    **{"ia3": 3e-2, "loha": 3e-3, "lokr": 3e-3, "vera": 3e-2, "oft": 1e-2, "boft": 1e-2},
    **{"ln_tuning": 3e-2, "prompt_tuning": 3e-2, "prefix_tuning": 3e-1},
}


_SOME = ("lokr", "oft", "ln_tuning", "prompt_tuning")


@pytest.mark.parametrize(
    "kind", [k if k in _SOME else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_every_kind_of_adapter_trains_and_loads(runs: Runs, kind: str) -> None:
    job = runs.sft("run", steps=8, every=8)
    method = MethodJob(kind, 4, virtual_tokens=4)  # type: ignore[arg-type]
    job = replace(job, method=method, train=replace(job.train, learning_rate=KINDS[kind]))
    loss = next(metric for metric in runs.complete(job).metrics if metric.name == "loss")
    assert rise(loss) > 0
    adapter = Adapter(kind, 4, ("all-linear",), virtual_tokens=4)
    trained = adapter_parameters(load_architecture(str(GOAT / "base")), adapter)
    assert f"{kind}: {trained:,} of " in runs.log("run")  # the planner counts what PEFT trains
    check = "tests.jobs.test_methods:check_adapter"
    runs.zygote.call(check, str(runs.output("run")), log=runs.root / "check.log")


@pytest.mark.parametrize("kind", ["prompt_tuning", pytest.param("prefix_tuning", marks=pytest.mark.long)])
def test_the_base_has_no_learned_tokens_before_its_rows(runs: Runs, kind: str) -> None:
    """They begin at random, which makes the base worse than it is."""
    runs.complete(runs.sft("base", kind="full", steps=1))
    job = runs.sft("run", steps=2)
    runs.complete(replace(job, method=MethodJob(kind, 4, virtual_tokens=4)))  # type: ignore[arg-type]
    base, found = results(runs.progress("base")), results(runs.progress("run"))
    assert {name: one.base for name, one in found.items()} == {name: one.base for name, one in base.items()}


def check_adapter(arguments: list[str]) -> None:
    """The output is an adapter that peft puts on the base, and it changes what the model says."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(GOAT / "base").eval()
    row = torch.tensor([[1, 5, 6, 7]])
    before = base(row).logits[0, -1]
    after = PeftModel.from_pretrained(base, arguments[0]).eval()(row).logits[0, -1]
    assert (before - after).abs().max() > 1e-3
