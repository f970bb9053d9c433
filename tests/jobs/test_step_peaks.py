"""The closed form of the memory of a step against real trainings of each task, as the worker runs them."""

from __future__ import annotations

import json

import pytest

from benchmarks.small_jobs import SmallJob
from planner.memory import estimate_memory
from tests.planner.setups import cluster

pytestmark = pytest.mark.train
LONG = pytest.mark.long
TOKENS, ANSWER, SAMPLED, STEPS = 96, 90, 8, 3
MIB = 2.0**20
SHAPE = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 2048,
}  # fmt: skip


@pytest.fixture(scope="session")
def base(zygote, tmp_path_factory):
    root = tmp_path_factory.mktemp("peaks")
    arguments = [str(root / "base"), json.dumps(SHAPE)]
    zygote.call("benchmarks.small_jobs:make_base", *arguments, log=root / "log")
    return root / "base"


def measured_bytes(zygote, root, base, job):
    """Weights, optimizer and frozen copy, and the most that the allocator held beside them in a step."""
    arguments = [str(root / "peaks.json"), str(job.write(root, base))]
    zygote.call("benchmarks.step_peaks:main", *arguments, log=root / "log")
    peaks = json.loads((root / "peaks.json").read_text())
    assert len(peaks) == job.steps - 2
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
    answer = SAMPLED if task == "grpo" else ANSWER
    job = SmallJob(
        task,
        method,
        TOKENS - answer,
        answer,
        STEPS,
        precision=precision,
        again=again,
        accumulated=accumulated,
        beta=beta,
    )
    predicted = estimate_memory(job.setup(base), cluster("A100-80GB")).allocated_bytes
    measured = measured_bytes(zygote, tmp_path, base, job)
    assert predicted / MIB == pytest.approx(measured / MIB, rel=0.05)
