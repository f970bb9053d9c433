"""The closed form of the memory of a step against real trainings of each task, as the worker runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.spec import CheckpointsJob, DataJob, JobSpec, MethodJob, ModelJob, RolloutJob, TrainJob
from planner.architecture import Adapter, load_architecture
from planner.memory import estimate_memory
from planner.setup import TrainingSetup
from tests.jobs.tiny_models import GOAT
from tests.planner.setups import cluster

pytestmark = pytest.mark.train
LONG = pytest.mark.long
PROMPT, ANSWER, ROWS, SAMPLED, RANK = 6, 90, 4, 8, 8
MIB = 2.0**20


def make_base(arguments):
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=2048, num_key_value_heads=2, **shape)).save_pretrained(
        arguments[0]
    )
    AutoTokenizer.from_pretrained(GOAT / "base").save_pretrained(arguments[0])


@pytest.fixture(scope="session")
def base(zygote, tmp_path_factory):
    root = tmp_path_factory.mktemp("peaks")
    zygote.call("tests.jobs.test_step_peaks:make_base", str(root / "base"), log=root / "log")
    return root / "base"


def rows_of(task):
    """As many tokens each: one a character."""
    answer = SAMPLED if task == "grpo" else ANSWER
    prompt, one, other = "1" * (PROMPT + ANSWER - answer), "2" * answer, "3" * answer
    if task == "classification":
        return [{"text": prompt + one, "label": label} for label in (0, 1)]
    if task == "kto":
        return [{"prompt": prompt, "completion": one, "label": label} for label in (True, False)]
    if task in ("dpo", "reward"):
        return [{"prompt": prompt, "chosen": one, "rejected": other}]
    return [{"prompt": prompt, "completion": one, "answer": one}]


def measured_bytes(zygote, root: Path, base: Path, task, method, train, beta=0.0):
    """Weights, optimizer and frozen copy, and the most that the allocator held beside them in a step."""
    data = root / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task) * 64))
    job = JobSpec(
        run_id=task,
        name=task,
        model=ModelJob("random", path=str(base)),
        data=DataJob(str(data)),
        task=task,
        rollout=RolloutJob(generations=4, completion_tokens=SAMPLED, beta=beta),
        checkpoints=CheckpointsJob((root / "store").as_uri(), every_steps=100),
        method=MethodJob(method, RANK),
        train=train,
    )
    (root / "job.json").write_text(job.to_json())
    arguments = [str(root / "peaks.json"), str(root / "job.json")]
    zygote.call("benchmarks.step_peaks:main", *arguments, log=root / "log")
    peaks = json.loads((root / "peaks.json").read_text())
    assert len(peaks) == train.steps - 2
    return max(sum(peak) for peak in peaks)


@pytest.mark.parametrize(
    ("task", "method", "precision", "again", "accumulated"),
    [
        ("sft", "full", "bf16", True, 2),
        ("dpo", "lora", "bf16", False, 1),
        ("kto", "full", "fp32", True, 1),
        ("grpo", "lora", "bf16", True, 16),
        ("classification", "lora", "bf16", True, 2),
        pytest.param("sft", "lora", "bf16", False, 2, marks=LONG),
        pytest.param("dpo", "full", "bf16", True, 2, marks=LONG),
        pytest.param("kto", "lora", "bf16", False, 2, marks=LONG),
        pytest.param("reward", "lora", "bf16", True, 2, marks=LONG),
        pytest.param("reward", "full", "bf16", False, 2, marks=LONG),
        pytest.param("grpo", "full", "bf16", False, 2, marks=LONG),
    ],
)
def test_a_real_step_of_each_task_holds_what_the_closed_form_says(
    zygote, base, tmp_path, task, method, precision, again, accumulated
):
    beta = 0.1 if (task, method) == ("grpo", "full") else 0.0
    train = TrainJob(
        steps=3,
        sequence_length=PROMPT + ANSWER + 16,
        micro_batch=ROWS,
        grad_accum=accumulated,
        precision=precision,
        gradient_checkpointing=again,
        optimizer="adamw",
        learning_rate=1e-5,
    )
    setup = TrainingSetup(
        load_architecture(str(base)),
        task=task,
        adapter=None if method == "full" else Adapter("lora", RANK, ("all-linear",)),
        precision=precision,
        sequence_tokens=PROMPT + ANSWER,
        micro_batch=ROWS,
        grad_accum=accumulated,
        gradient_checkpointing=again,
        reference=task != "grpo" or beta > 0,
        generated_tokens=SAMPLED,
    )
    predicted = estimate_memory(setup, cluster("A100-80GB")).allocated_bytes
    measured = measured_bytes(zygote, tmp_path, base, task, method, train, beta)
    assert predicted / MIB == pytest.approx(measured / MIB, rel=0.05)
