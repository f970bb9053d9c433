"""A model spread over two processes: it learns, is saved in shards and goes on with any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.committed import read_manifest
from jobs.history import History
from jobs.manifest import BLOBS
from jobs.spec import CheckpointsJob, DataJob, EvaluateJob, JobSpec, MethodJob, ModelJob, RolloutJob
from jobs.spec_rules import PROMPT_LEARNING, SHARDED_METHODS
from tests.jobs.runs import Runs, renamed, train_as_rank
from tests.jobs.test_methods import TRAIN, job_of, paired, prompts, results, unpaired
from tests.jobs.test_together import interrupted, losses, together
from tests.jobs.tiny_models import write_reviews
from tests.jobs.zygote import Zygote

pytestmark = pytest.mark.train


def spread(runs: Runs, name: str, kind: str) -> JobSpec:
    """A short training on two processes; adapters have dropout."""
    job = runs.sft(name, kind=kind, steps=12)
    return replace(job, train=replace(job.train, micro_batch=2, processes=2, sharding="fsdp"))


@pytest.fixture(scope="module")
def runs(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(zygote, tmp_path_factory.mktemp("sharded"))


@pytest.fixture(scope="module", params=["full", pytest.param("lora", marks=pytest.mark.long)])
def done(runs: Runs, request: pytest.FixtureRequest) -> JobSpec:
    job = spread(runs, request.param, request.param)
    assert together(runs, job) == [0, 0], runs.log(job.run_id)
    return job


def goes_on_exactly(runs: Runs, done: JobSpec, *, from_step: int) -> None:
    """A twin of a run that is done, both of its processes killed, ends with the same weights."""
    twin = renamed(runs, done, f"{done.run_id}-killed")
    name = twin.run_id
    codes = interrupted(runs, twin, lambda: runs.newest_step(name) >= from_step, signal.SIGKILL, slice(2))
    assert codes == [-signal.SIGKILL] * 2
    assert together(runs, twin) == [0, 0], runs.log(name)
    assert (runs.progress(name).resumed_from_step or 0) >= from_step
    assert runs.weights(name) == runs.weights(done.run_id)


def files(runs: Runs, name: str) -> dict[str, str]:
    """Hashes of the newest checkpoint's files."""
    newest = runs.head(name).newest
    assert newest is not None
    return {entry.path: entry.sha256 for entry in read_manifest(runs.store(name), newest).files}


def test_it_learns_and_gives_a_whole_model(runs: Runs, done: JobSpec) -> None:
    name = done.run_id
    base, tuned = losses(runs, name)
    whole = renamed(runs, done, f"{name}-whole")
    runs.complete(replace(whole, train=replace(whole.train, micro_batch=4, processes=1, sharding="none")))
    # dropout draws other numbers on other processes
    assert (base, tuned) == pytest.approx(losses(runs, whole.run_id), rel=1e-3 if name == "full" else 5e-3)
    assert tuned < base - (1 if name == "full" else 0.3)
    shards = {path for path in files(runs, name) if path.startswith("shard-")}
    assert shards == {f"shard-0000{rank}-model-00001-of-00001.safetensors" for rank in (1, 2)}
    assert not {"model.safetensors", "adapter_model.safetensors", "optimizer.pt"} & set(files(runs, name))
    weights = "model.safetensors" if name == "full" else "adapter_model.safetensors"
    assert weights in {path.name for path in runs.output(name).iterdir()}


def test_killed_and_resumed_exactly(runs: Runs, done: JobSpec) -> None:
    goes_on_exactly(runs, done, from_step=4)


def test_a_checkpoint_of_many_files_is_gone_on_from_exactly(runs: Runs, done: JobSpec) -> None:
    """Each process writes its shard in files so small that a host has room for three of each."""
    twin = renamed(runs, done, f"{done.run_id}-many")
    name = twin.run_id
    pids = runs.start_together(twin, 2, "tests.jobs.test_sharded:train_in_small_files")
    while runs.newest_step(name) < 4:
        time.sleep(0.001)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [runs.zygote.wait(pid) for pid in pids] == [-signal.SIGKILL] * 2
    assert sum(path.startswith("shard-00001-model-") for path in files(runs, name)) > 2
    assert together(runs, twin) == [0, 0], runs.log(name)
    assert (runs.progress(name).resumed_from_step or 0) >= 4
    assert runs.weights(name) == runs.weights(done.run_id)


def train_in_small_files(arguments: list[str]) -> None:
    """A rank whose files hold a few tensors each."""
    from jobs import sharded

    sharded._in_files.__defaults__ = (64e3,)
    train_as_rank(arguments)


def test_what_waits_for_the_leading_process_takes_no_memory(zygote: Zygote, tmp_path: Path) -> None:
    """Of a model in shards: before, each process wrote it whole, and once more in fp32."""
    zygote.call("tests.jobs.test_sharded:wait_for_weights", log=tmp_path / "log")


def wait_for_weights(_: list[str]) -> None:
    """As transformers loads and accelerate widens 256 MiB of bf16 in a process that does not lead."""
    import torch

    from jobs.sharded import _prepare_to_receive, loaded_once

    job = JobSpec("run", "name", ModelJob("m"), DataJob("d"), CheckpointsJob("file:///nowhere"))
    spread_out = replace(job, train=replace(job.train, sharding="fsdp"))
    model = torch.nn.Linear(8192, 16384, bias=False, device="meta", dtype=torch.bfloat16)
    before = resident_mib()
    with loaded_once(spread_out, 2):
        model.weight = torch.nn.Parameter(torch.zeros_like(model.weight, device="cpu"))
    assert resident_mib() - before < 16
    _prepare_to_receive(model, widened=True)
    assert resident_mib() - before < 16
    assert model.weight.dtype == torch.float32 and model.weight.shape == (16384, 8192)
    assert not model.weight.any()


def resident_mib() -> float:
    """Memory of this process that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024


def test_a_damaged_shard_is_found_and_passed_over(runs: Runs, done: JobSpec) -> None:
    name = f"{done.run_id}-damaged"
    job = renamed(runs, done, name)
    shutil.copytree(runs.root / done.run_id / "store", runs.root / name / "store", dirs_exist_ok=True)
    shard = (
        runs.root / name / "store" / BLOBS / files(runs, name)["shard-00002-model-00001-of-00001.safetensors"]
    )
    shard.chmod(0o600)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    answer = runs.root / name / "answer"
    runs.zygote.call(
        "tests.jobs.test_sharded:restore", job.checkpoints.uri, str(answer), log=runs.log_path(name)
    )
    step, problem = json.loads(answer.read_text())
    assert (step, problem) == (
        8,
        "step 12: shard-00002-model-00001-of-00001.safetensors is damaged: its hash is wrong",
    )
    shard.unlink()
    runs.zygote.call(
        "tests.jobs.test_sharded:restore", job.checkpoints.uri, str(answer), log=runs.log_path(name)
    )
    step, problem = json.loads(answer.read_text())
    assert (step, problem) == (8, "step 12: shard-00002-model-00001-of-00001.safetensors is missing")


def restore(arguments: list[str]) -> None:
    """The step that an attempt would go on from, and what it passed over; then every way not to be whole is refused."""
    from jobs.checkpoint import CheckpointStore
    from jobs.resume import check_resumable
    from providers.errors import CorruptDataError
    from providers.stores import open_store

    uri, answer = arguments
    target = Path(answer).with_name("restored")
    checkpoints = CheckpointStore(open_store(uri), "run")
    checkpoints.take_over()
    restored = checkpoints.restore(target, check_resumable)
    assert restored is not None
    Path(answer).write_text(json.dumps([restored.manifest.step, *restored.damaged]))
    first, second = sorted(path.name for path in target.glob("shard-*"))
    whole = json.loads((target / "shards.json").read_text())

    def refused(said: str) -> None:
        with pytest.raises(CorruptDataError, match=said):
            check_resumable(target)

    (target / "shards.json").write_text(json.dumps({**whole, "files": [first]}))
    refused("the shards do not hold")
    (target / "shards.json").write_text(json.dumps({**whole, "files": [first, first, second]}))
    refused("the shards do not hold")
    (target / "shards.json").write_text("[]")
    refused("shards.json cannot be read")
    (target / "shards.json").write_text(json.dumps(whole))
    (target / second).write_bytes((target / second).read_bytes()[:100])
    refused(f"{second} cannot be read")


def test_it_is_measured_while_it_trains(runs: Runs) -> None:
    """Saved right after an evaluation, which has gathered the embedding and the head; a kill changes nothing."""
    job = replace(
        spread(runs, "measured", "full"), evaluate=EvaluateJob("loss", every_steps=2, choose="best")
    )
    assert together(runs, job) == [0, 0], runs.log(job.run_id)
    history = History.read(runs.output(job.run_id))
    assert [one.step for one in history.evaluations] == [2, 4, 6, 8, 10, 12]
    goes_on_exactly(runs, job, from_step=4)
    assert History.read(runs.output(f"{job.run_id}-killed")) == history


@pytest.mark.long
def test_one_process_and_two_take_turns(runs: Runs, done: JobSpec) -> None:
    """From the same rows; dropouts differ, so not bit by bit."""
    name = f"{done.run_id}-turns"
    job = renamed(runs, done, name)
    runs.interrupt(job, lambda: runs.newest_step(name) >= 4)
    interrupted(runs, job, lambda: runs.newest_step(name) >= 8, signal.SIGKILL, slice(2))
    progress = runs.complete(job)
    assert progress.state == "done"
    assert losses(runs, name) == pytest.approx(losses(runs, done.run_id), rel=1e-3 if name[0] == "f" else 0.1)
    assert "1 processes saved it, 2 go on" in runs.log(name)
    assert "2 processes saved it, 1 go on" in runs.log(name)


@pytest.mark.long
def test_a_signal_to_one_saves_all_shards_of_the_step(runs: Runs, done: JobSpec) -> None:
    name = f"{done.run_id}-told"
    job = renamed(runs, done, name)
    job = replace(job, checkpoints=replace(job.checkpoints, every_steps=1000))
    started = lambda: "training from step 0" in runs.log(name)  # noqa: E731
    assert interrupted(runs, job, started, signal.SIGTERM, slice(1, 2)) == [75, 75]
    assert 1 <= runs.newest_step(name) == runs.progress(name).step < 12
    assert runs.progress(name).state == "preempted"
    assert together(runs, job) == [0, 0]
    assert runs.weights(name) == runs.weights(done.run_id)


@pytest.mark.long
def test_it_learns_what_one_process_learns(runs: Runs, done: JobSpec) -> None:
    method = replace(done.method, dropout=0.0)
    pair = renamed(runs, replace(done, method=method), f"{done.run_id}-pair")
    alone = renamed(runs, replace(pair, train=replace(done.train, sharding="none")), f"{done.run_id}-alone")
    assert together(runs, pair) == [0, 0]
    runs.complete(alone)
    assert losses(runs, pair.run_id) == pytest.approx(losses(runs, alone.run_id), rel=1e-3)
    assert {path.name for path in runs.output(pair.run_id).iterdir()} == {
        path.name for path in runs.output(alone.run_id).iterdir()
    }


_ROWS = {"dpo": paired, "reward": paired, "kto": unpaired, "grpo": prompts}


def task_job(runs: Runs, task: str, kind: str) -> JobSpec:
    """A short training of a task on two processes, both halves of the model on each."""
    train = replace(TRAIN, steps=12, micro_batch=8, processes=2, sharding="fsdp")
    method = MethodJob(kind, 8)  # type: ignore[arg-type]
    if task != "classification":
        rollout = RolloutJob(generations=8, completion_tokens=4, beta=0.02)
        train = replace(train, steps=36 if task == "grpo" else 12)
        rest = {"train": train, "method": method, "rollout": rollout}
        return job_of(runs, f"{task}-{kind}", task, _ROWS[task], **rest)
    write_reviews(runs.root / "data")
    bert = runs.root / "bert"
    runs.zygote.call("tests.jobs.tiny_models:make_classifier", str(bert), log=runs.root / "make.log")
    name = f"{task}-{kind}"
    return JobSpec(
        run_id=name,
        name=name,
        model=ModelJob("bert", path=str(bert)),
        data=DataJob("../data/train.jsonl", "../data/eval.jsonl"),
        checkpoints=CheckpointsJob(runs.store(name).uri, every_steps=10),
        task="classification",
        method=method,
        train=replace(train, steps=24, learning_rate=1e-2),
        evaluate=EvaluateJob("accuracy"),
    )


def _long(*words: str) -> Any:
    return pytest.param(*words, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("dpo", "full"),  # the frozen copy is spread as well
        ("classification", "lora"),
        *(_long("dpo", "lora"), _long("kto", "full"), _long("kto", "lora")),
        *(_long("reward", "full"), _long("reward", "lora"), _long("classification", "full")),
    ],
)
def test_other_tasks_learn_what_whole_copies_learn(runs: Runs, task: str, kind: str) -> None:
    job = task_job(runs, task, kind)
    assert together(runs, job) == [0, 0], runs.log(job.run_id)
    whole = renamed(runs, job, f"{job.run_id}-whole")
    whole = replace(whole, train=replace(job.train, sharding="none"))
    assert together(runs, whole) == [0, 0], runs.log(whole.run_id)
    spread_out, copies = results(runs.progress(job.run_id)), results(runs.progress(whole.run_id))
    assert spread_out["loss"].base == pytest.approx(copies["loss"].base)
    for name, metric in copies.items():
        assert spread_out[name].tuned == pytest.approx(metric.tuned, rel=1e-3), name
    loss = spread_out["loss"]
    assert loss.tuned is not None
    assert loss.base is not None
    assert loss.tuned < 0.97 * loss.base


@pytest.mark.long
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_answers_are_sampled_from_a_spread_model(runs: Runs, kind: str) -> None:
    """Each process samples its own; killed, they go on exactly. A full fine-tuning has its frozen copy spread too."""
    job = task_job(runs, "grpo", kind)
    job = job if kind == "lora" else replace(job, train=replace(job.train, steps=12, learning_rate=1e-3))
    assert together(runs, job) == [0, 0], runs.log(job.run_id)
    reward = results(runs.progress(job.run_id))["reward"]
    assert (reward.base or 0.0) <= 0.1
    assert (reward.tuned or 0.0) >= (0.8 if kind == "lora" else 0.0)
    goes_on_exactly(runs, job, from_step=10)


@pytest.mark.long
def test_a_kind_of_answer_that_one_process_has_none_of(runs: Runs) -> None:
    """In bf16, with layers computed again: a micro-batch of two rows is all good or all bad now and then."""
    job = task_job(runs, "kto", "lora")
    train = replace(job.train, micro_batch=2, grad_accum=4, precision="bf16", gradient_checkpointing=True)
    for sharding in ("fsdp", "none"):
        again = renamed(runs, job, f"kto-bf16-{sharding}")
        again = replace(again, train=replace(train, sharding=sharding))
        assert together(runs, again) == [0, 0], runs.log(again.run_id)
        margin = results(runs.progress(again.run_id))["reward_margin"]
        assert (margin.tuned or 0.0) > 0.5


@pytest.mark.long
@pytest.mark.parametrize("kind", [kind for kind in SHARDED_METHODS if kind not in ("full", "lora")])
def test_every_kind_of_adapter_is_spread(runs: Runs, kind: str) -> None:
    """Trained by two with a shard each as by one; the whole adapter is handed over."""
    job = spread(runs, kind, kind)
    method = replace(job.method, dropout=0.0, virtual_tokens=4)
    job = replace(job, method=method, train=replace(job.train, learning_rate=1e-2))
    assert together(runs, job) == [0, 0], runs.log(kind)
    alone = renamed(runs, job, f"{kind}-alone")
    runs.complete(replace(alone, train=replace(job.train, sharding="none")))
    base, tuned = losses(runs, kind)
    assert (base, tuned) == pytest.approx(losses(runs, alone.run_id), rel=1e-3)
    assert tuned < base or kind in PROMPT_LEARNING  # these begin with random tokens, and take longer
    check = "tests.jobs.test_methods:check_adapter"
    runs.zygote.call(check, str(runs.output(kind)), log=runs.root / "check.log")
