"""Real (tiny) trainings: they learn, and every method and task runs to a model that loads."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.committed import hash_file
from jobs.manifest import BLOBS, FileEntry
from jobs.spec import (
    CheckpointsJob,
    DataJob,
    EvaluateJob,
    GuardJob,
    InputsJob,
    JobSpec,
    LimitsJob,
    MethodJob,
    ModelJob,
    OutputJob,
    TrainJob,
)
from providers.directory_store import DirectoryStore
from tests.jobs.runs import Runs, renamed
from tests.jobs.test_families import WITH_TOWERS
from tests.jobs.tiny_models import GOAT, write_reviews

pytestmark = pytest.mark.train


@pytest.mark.long
def test_the_tiny_goat_learns_to_subtract(runs: Runs) -> None:
    job = replace(
        runs.sft("goat", every=200),
        data=DataJob(str(GOAT / "train.jsonl"), str(GOAT / "eval.jsonl")),
        method=MethodJob("lora", 16),
        train=TrainJob(
            steps=600,
            sequence_length=32,
            micro_batch=64,
            learning_rate=5e-3,
            warmup=0.05,
            optimizer="adamw",
            precision="fp32",
            gradient_checkpointing=False,
        ),
    )
    progress = runs.complete(job)
    metric = progress.metrics[0]
    assert (metric.name, metric.n, metric.higher_is_better) == ("exact_match", 200, True)
    assert metric.base is not None
    assert metric.base < 0.1
    assert metric.tuned is not None
    assert metric.tuned >= 0.9
    assert [pointer.step for pointer in runs.head("goat").checkpoints] == [600, 400, 200]
    assert progress.state == "done"
    assert progress.step == progress.max_steps == 600
    assert 0 < progress.tokens_trained <= progress.tokens_padded
    assert progress.step_time_s is not None
    assert progress.step_time_s.p10 <= progress.step_time_s.p50 <= progress.step_time_s.p90
    assert {"setup", "load", "tokenise", "train", "evaluate", "save", "upload"} <= set(progress.stage_seconds)
    assert min(progress.stage_seconds.values()) >= 0


@pytest.mark.parametrize("kind", ["full", "lora", "dora", "rslora"])
def test_every_method_gives_a_model_that_loads(runs: Runs, kind: str) -> None:
    progress = runs.complete(runs.sft("run", kind=kind, steps=8, every=8))
    loss = next(metric for metric in progress.metrics if metric.name == "loss")
    assert loss.tuned is not None
    assert loss.base is not None
    assert loss.tuned < loss.base
    output = runs.output("run")
    names = {path.name for path in output.iterdir()}
    weights = {"model.safetensors", "config.json"} if kind == "full" else {"adapter_model.safetensors"}
    assert weights | {"tokenizer.json", "result.json"} <= names
    check = "check_full" if kind == "full" else "check_adapter"
    runs.zygote.call(f"tests.jobs.test_train:{check}", str(output), log=runs.root / "check.log")


def check_full(arguments: list[str]) -> None:
    """The output is a model that differs from the base."""
    from transformers import AutoModelForCausalLM

    tuned = AutoModelForCausalLM.from_pretrained(arguments[0])
    base = AutoModelForCausalLM.from_pretrained(GOAT / "base")
    assert (tuned.lm_head.weight != base.lm_head.weight).any()


def check_adapter(arguments: list[str]) -> None:
    """The output is an adapter that peft puts on the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(GOAT / "base")
    model = PeftModel.from_pretrained(base, arguments[0])
    moved = [weight.abs().sum().item() for name, weight in model.named_parameters() if "lora_B" in name]
    assert moved
    assert min(moved) > 0


SETTINGS = {
    "defaults": ({"precision": "bf16", "gradient_checkpointing": True, "optimizer": "adamw_fused"}, {}),
    "full in bf16": ({"precision": "bf16", "packing": True}, {"method": MethodJob("full")}),
    "qlora": ({"precision": "bf16", "gradient_checkpointing": True}, {"quantization": "4bit"}),
    "8bit": ({"precision": "bf16", "optimizer": "adamw_8bit"}, {"quantization": "8bit"}),
    "attention modules": (
        {"attention": "eager", "optimizer": "adafactor", "scheduler": "constant"},
        {"method": MethodJob("lora", 4, targets=("attention",))},
    ),
    "linear": (
        {"attention": "sdpa", "optimizer": "lion", "scheduler": "linear"},
        {},
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(one, marks=[pytest.mark.long] * (one in ("attention modules", "8bit")))
        for one in SETTINGS
    ],
)
def test_settings_train_and_resume_exactly(runs: Runs, name: str) -> None:
    runs.zygote.call(
        "tests.jobs.tiny_models:make_decoder", str(runs.root / "llama"), log=runs.root / "make.log"
    )
    train, rest = SETTINGS[name]
    job = replace(
        runs.sft("run", steps=6, every=3), model=ModelJob("llama", path=str(runs.root / "llama")), **rest
    )
    job = replace(job, train=replace(job.train, **train))
    loss = next(metric for metric in runs.complete(job).metrics if metric.name == "loss")
    assert loss.base is not None
    assert loss.tuned is not None
    assert loss.tuned < loss.base
    other = renamed(runs, job, "other")
    runs.interrupt(other, lambda: runs.newest_step("other") >= 3)
    runs.complete(other)
    assert runs.weights("other") == runs.weights("run")


def test_a_missing_package_is_named(runs: Runs) -> None:
    job = runs.sft("run")
    assert runs.finish(replace(job, train=replace(job.train, attention="flash"))) == 78
    assert "needs a package that is not here" in runs.log("run")


@pytest.fixture
def reviews(runs: Runs) -> JobSpec:
    write_reviews(runs.root / "data")
    runs.zygote.call(
        "tests.jobs.tiny_models:make_classifier", str(runs.root / "bert"), log=runs.root / "make.log"
    )
    return JobSpec(
        run_id="reviews",
        name="reviews",
        model=ModelJob("bert", path="../bert"),
        data=DataJob("../data/train.jsonl", "../data/eval.jsonl"),
        checkpoints=CheckpointsJob(runs.store("reviews").uri, every_steps=20),
        method=MethodJob("full"),
        task="classification",
        train=TrainJob(
            epochs=8.0,
            sequence_length=16,
            micro_batch=8,
            learning_rate=1e-3,
            precision="fp32",
            gradient_checkpointing=False,
        ),
        evaluate=EvaluateJob("accuracy"),
    )


@pytest.mark.parametrize(("kind", "rate"), [("full", 2e-3), ("lora", 3e-3)])
def test_classification_learns(runs: Runs, reviews: JobSpec, kind: str, rate: float) -> None:
    job = replace(
        reviews,
        method=MethodJob(kind, 8),  # type: ignore[arg-type]
        train=replace(reviews.train, learning_rate=rate),
    )
    metrics = {metric.name: metric for metric in runs.complete(job).metrics}
    assert next(iter(metrics)) == "accuracy"
    assert metrics["accuracy"].n == 60
    assert (metrics["accuracy"].base or 0) <= 0.7
    assert (metrics["accuracy"].tuned or 0) >= 0.95
    assert (metrics["f1"].tuned or 0) >= 0.95
    tokenizer = json.loads((runs.output("reviews") / "tokenizer.json").read_text())
    assert (tokenizer["truncation"], tokenizer["padding"]) == (None, None)  # rows were cut at 16 tokens
    if kind == "full":
        config = json.loads((runs.output("reviews") / "config.json").read_text())
        assert config["id2label"] == {"0": "negative", "1": "positive"}


def test_plain_text_is_packed(runs: Runs) -> None:
    job = runs.sft("text", steps=4)
    data = runs.root / "data" / "text.txt"
    data.write_text("12+34=64\n" * 40)
    job = replace(
        job, data=DataJob(str(data)), evaluate=EvaluateJob(), train=replace(job.train, packing=True)
    )
    progress = runs.complete(job)
    assert progress.metrics == ()
    assert progress.tokens_trained >= 0.9 * progress.tokens_padded  # only the last row is not full
    assert "no held-out rows" in runs.log("text")


@pytest.mark.parametrize("turns", [1, 2])
def test_conversations_train(runs: Runs, turns: int) -> None:
    """One answer: only it is learned, so that it can be matched. Several: the whole text is learned."""
    base = shutil.copytree(GOAT / "base", runs.root / "chat")
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings["chat_template"] = [
        {"name": "default", "template": "{% for m in messages %}{{ m.content }}{% endfor %}"},
        {"name": "tool_use", "template": "tools"},
    ]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    turn = [{"role": "user", "content": "7-5="}, {"role": "assistant", "content": "2"}]
    (runs.root / "chat.jsonl").write_text((json.dumps({"messages": turn * turns}) + "\n") * 16)
    job = replace(
        runs.sft("chat", steps=4),
        model=ModelJob("chat", path=str(base)),
        data=DataJob(str(runs.root / "chat.jsonl"), str(runs.root / "chat.jsonl")),
        evaluate=EvaluateJob("exact_match" if turns == 1 else "perplexity"),
    )
    metric = runs.complete(job).metrics[0]
    assert metric.n == 16
    assert metric.tuned is not None
    assert metric.base is not None
    assert (metric.tuned >= metric.base) == metric.higher_is_better
    check = "tests.jobs.test_train:check_chat_templates"
    runs.zygote.call(check, str(base), str(runs.output("chat")), log=runs.root / "check.log")


def check_chat_templates(arguments: list[str]) -> None:
    """The second directory's tokenizer has those of the first."""
    from transformers import AutoTokenizer

    before, after = (AutoTokenizer.from_pretrained(directory).chat_template for directory in arguments)
    assert list(before) == ["default", "tool_use"]
    assert after == before


def test_conversations_need_a_chat_template(runs: Runs) -> None:
    turn = [{"role": "user", "content": "7-5="}, {"role": "assistant", "content": "2"}]
    (runs.root / "chat.jsonl").write_text(json.dumps({"messages": turn}) + "\n")
    job = replace(runs.sft("chat"), data=DataJob(str(runs.root / "chat.jsonl")), evaluate=EvaluateJob())
    assert runs.finish(job) == 78
    assert "has no chat template" in runs.log("chat")


def test_a_second_start_of_a_finished_run_trains_nothing(runs: Runs) -> None:
    job = runs.sft("run", steps=4)
    first = runs.complete(job)
    weights = runs.weights("run")
    again = runs.complete(job)
    assert "finished already" in runs.log("run")
    assert again.state == "done"
    assert again.metrics == first.metrics
    assert again.step == first.step
    assert again.last_checkpoint == first.last_checkpoint
    assert runs.weights("run") == weights


def test_what_was_committed_by_an_attempt_that_died_of_it_is_told_by_the_next(runs: Runs) -> None:
    told = runs.complete(runs.sft("told", steps=4))
    job = runs.sft("died", steps=4)
    died = runs.zygote.wait(runs.start(job, "tests.jobs.runs:train_and_die_once_finished"))
    assert died == -signal.SIGKILL and runs.head("died").output is not None
    again = runs.complete(job)
    assert (again.metrics, again.output_step) == (told.metrics, told.output_step)
    output = runs.head("died").output
    assert output is not None and again.output_manifest_sha256 == output.sha256


def test_a_model_that_reads_images_keeps_its_processor(runs: Runs) -> None:
    """Whole and merged, as servers load it."""
    base, shape = runs.root / "gemma", json.dumps({"model_type": "gemma3", **WITH_TOWERS["gemma3"]})
    runs.zygote.call("benchmarks.small_jobs:make_base", str(base), shape, log=runs.root / "make.log")
    (base / "preprocessor_config.json").write_text('{"do_resize": true}')
    model = ModelJob("gemma", path=str(base))
    for kind in ("full", "lora"):
        runs.complete(replace(runs.sft(kind, kind=kind, steps=1), model=model))
    job, adapter, merged = runs.root / "lora" / "job.json", runs.output("lora"), runs.root / "merged"
    words = [str(job), "--adapter", str(adapter), "--out", str(merged)]
    runs.zygote.call("jobs.merge:main", *words, log=runs.root / "merge.log")
    for whole in (runs.output("full"), merged):
        assert (whole / "preprocessor_config.json").read_text() == '{"do_resize": true}'
        assert not (whole / "processor_config.json").exists()
    assert not (adapter / "preprocessor_config.json").exists()


def test_the_output_is_copied_where_the_job_wants_it(runs: Runs) -> None:
    target = runs.root / "my models" / "goat"
    runs.complete(replace(runs.sft("run", steps=4), output=OutputJob(target.as_uri())))
    copied = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    assert copied == {path.name: path.read_bytes() for path in runs.output("run").iterdir()}
    assert "adapter_model.safetensors" in copied


def test_nothing_of_another_model_stays_beside_the_copied_one(runs: Runs) -> None:
    target = runs.root / "models"
    target.mkdir()
    for name in (
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "config.json",
        "README.md",
        "my.txt",
    ):
        (target / name).write_text("another model's")
    runs.complete(replace(runs.sft("run", steps=4), output=OutputJob(target.as_uri())))
    copied = {path.name for path in target.iterdir() if path.is_file()}
    assert copied - {"README.md"} == {path.name for path in runs.output("run").iterdir()} - {"README.md"} | {
        "my.txt"
    }


def test_a_model_that_its_guard_rejects_is_committed_and_not_copied(runs: Runs) -> None:
    target = runs.root / "models"
    target.mkdir()
    (target / "adapter_model.safetensors").write_text("the good one")
    guard = GuardJob(str(runs.sft("run").data.eval), "loss", at_most_worse=-1000.0)
    job = replace(runs.sft("run", steps=4), evaluate=EvaluateJob("loss", guard=guard))
    job = replace(job, output=OutputJob(target.as_uri()))
    for said in ("the finished model is not copied", "finished already"):  # also by the next attempt
        assert runs.finish(job) == 79
        assert said in runs.log("run")
        assert (target / "adapter_model.safetensors").read_text() == "the good one"
    assert (runs.output("run") / "adapter_model.safetensors").exists()


def test_an_adapter_does_not_name_the_path_of_a_base_that_was_brought_to_a_rented_machine(runs: Runs) -> None:
    store = DirectoryStore(runs.root / "_inputs")
    files = []
    for path in sorted((GOAT / "base").iterdir()):
        entry = FileEntry(f"inputs/model/{path.name}", path.stat().st_size, hash_file(path))
        store.put_file(BLOBS + entry.sha256, path)
        files.append(entry)
    model, inputs = ModelJob("my-base", path="inputs/model"), InputsJob(store.uri, tuple(files))
    runs.complete(replace(runs.sft("run", steps=4), model=model, inputs=inputs))
    output = runs.output("run")
    config = json.loads((output / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./my-base"
    assert [path.name for path in output.iterdir() if str(runs.root).encode() in path.read_bytes()] == []


def test_an_output_that_was_committed_and_not_copied_is_copied_by_the_next_attempt(runs: Runs) -> None:
    target = runs.root / "models"
    target.write_text("no directory")
    job = replace(runs.sft("run", steps=4), output=OutputJob(target.as_uri()))
    assert runs.finish(job) == 1 and runs.head("run").output is not None
    target.unlink()
    target.mkdir()
    (target / "adapter_model.safetensors").write_text("half of it")
    assert runs.complete(job).state == "done" and "finished already" in runs.log("run")
    copied = {path.name: path.read_bytes() for path in target.iterdir() if path.is_file()}
    assert copied == {path.name: path.read_bytes() for path in runs.output("run").iterdir()}


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (LimitsJob(max_duration_s=600.0), "time limit of 600 s reached"),
        (LimitsJob(cap_usd=5.0, usd_per_hour=3.0, spent_usd=4.9), "cap of 5 US dollars reached"),
    ],
)
def test_a_limit_ends_it_after_a_commit(runs: Runs, limits: LimitsJob, reason: str) -> None:
    job = replace(runs.sft("run", steps=100_000, every=4), limits=limits)
    assert runs.zygote.wait(runs.start(job, "tests.jobs.runs:train_on_a_jumping_clock")) == 77
    progress = runs.progress("run")
    assert progress.state == "capped"
    assert progress.exit_reason == reason
    assert runs.newest_step("run") == progress.step > 4
    assert min(progress.stage_seconds[part] for part in ("train", "save", "upload")) > 0


def test_a_spent_cap_stops_before_training(runs: Runs) -> None:
    limits = LimitsJob(cap_usd=5.0, usd_per_hour=1.0, spent_usd=5.0)
    assert runs.finish(replace(runs.sft("run"), limits=limits)) == 77
    assert runs.newest_step("run") == 0


def test_a_loss_that_is_no_number_ends_the_run(runs: Runs) -> None:
    """And the last good checkpoint stands: the next would have held no numbers."""
    job = runs.sft("run", steps=40)
    assert runs.zygote.wait(runs.start(job, "tests.jobs.runs:train_until_the_loss_is_nan")) == 1
    assert "the weights are no numbers any more at step 8: the last committed checkpoint stands" in runs.log(
        "run"
    )
    assert "hint: lower the learning rate" in runs.log("run")
    assert runs.progress("run").state == "failed"
    assert [pointer.step for pointer in runs.head("run").checkpoints] == [4]


def test_a_loss_that_is_no_number_is_seen_between_checkpoints(runs: Runs) -> None:
    job = runs.sft("run", steps=40, every=1000)
    assert runs.zygote.wait(runs.start(job, "tests.jobs.runs:train_until_the_loss_is_nan")) == 1
    assert "the loss is nan at step 10" in runs.log("run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": DataJob("none.jsonl")}, "none.jsonl does not exist"),
        ({"model": ModelJob("x", path="nowhere")}, "has no config.json"),
        ({"method": MethodJob(targets=("no_such_layer",))}, "method.targets"),
        ({"evaluate": EvaluateJob("accuracy")}, "metric accuracy does not go with task sft"),
        ({"task": "classification"}, "cannot learn from data of format prompt_completion"),
    ],
)
def test_a_job_that_cannot_be_run_is_told_apart(runs: Runs, change: dict[str, object], said: str) -> None:
    assert runs.finish(replace(runs.sft("run"), **change)) == 78  # type: ignore[arg-type]
    assert said in runs.log("run")
    assert "Traceback" not in runs.log("run")
    assert runs.progress("run").state == "failed"


def test_a_bad_job_document_is_told_apart(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"schema": "tuneplan/job", "schema_version": 2}')
    pid = runs.zygote.start("jobs.train:main", [str(tmp_path / "job.json")], tmp_path / "log")
    assert runs.zygote.wait(pid) == 78
    assert "schema_version: 2, this worker reads 1" in (tmp_path / "log").read_text()
