"""The tracer against torch's own allocator, and `plan estimate --trace`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planner.setup import Parallelism
from planner.tracing import traceable
from providers.errors import UsageError
from tests.planner.setups import lora, setup

ROOT = Path(__file__).parents[2]
SHAPE = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 256,
    "intermediate_size": 688, "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
FAMILIES = {"llama": GROUPED, "qwen2": GROUPED, "gpt_neox": {}}
FIELDS = {"precision": "fp32", "optimizer": "sgd", "micro_batch": 4, "sequence_tokens": 256}
CASES = [
    ({"model_type": family} | SHAPE | more, FIELDS | {"gradient_checkpointing": again})
    for family, more in FAMILIES.items()
    for again in (False, True)
]


def run(arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env=environment,
        **options,
    )


def test_the_trace_equals_the_cpu_allocator_where_the_backward_pass_dominates():
    done = run([str(Path(__file__).with_name("cpu_peaks.py"))], input=json.dumps(CASES))
    assert done.returncode == 0, done.stderr[-2000:]
    pairs = json.loads(done.stdout[done.stdout.rindex("[[") :])
    assert len(pairs) == len(CASES)
    for allocated, traced, phase in pairs:
        assert phase == "backward"
        assert traced == pytest.approx(allocated, rel=0.001)


def test_a_small_estimate_with_its_trace(tmp_path):
    spec = ROOT / "examples" / "tiny-goat" / "spec.yaml"
    script = "import sys; from planner.cli.main import main; sys.exit(main())"
    ask = ["-c", script, "estimate", str(spec), "--infra", "local", "--trace", "-o", "json"]
    done = run(ask, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    trace = document["trace"]
    assert trace["candidate_id"] == document["recommended"]
    assert trace["operations"] > 1000
    # Twenty kilobytes of rounding weigh on a model of a few megabytes.
    assert trace["closed_form_allocated_gib"] == pytest.approx(trace["traced_allocated_gib"], rel=0.2)


def test_the_trace_knows_one_kernel_beside_eager():
    padded = setup(adapter=lora(), repeats_keys=True)
    for some, word in (
        (padded, "repeated"),
        (padded._replace(attention="math", repeats_keys=False), "scores"),
    ):
        plain, changed = traceable(some)
        assert (plain.attention, plain.repeats_keys) == ("flash", False)
        assert any(word in text for text in changed)


def test_what_is_left_out_is_said():
    spread = setup(adapter=lora())._replace(parallelism=Parallelism("fsdp", 8), grad_accum=4, framework="trl")
    plain, changed = traceable(spread)
    assert plain.parallelism == Parallelism()
    assert any("fsdp over 8 GPUs" in text for text in changed)
    assert any("loss" in text for text in changed)
    assert traceable(plain)[1] == ()


@pytest.mark.parametrize("change", [{"task": "grpo"}, {"quantization": "fp8"}, {"precision": "fp8"}])
def test_what_cannot_be_traced_is_refused(change):
    with pytest.raises(UsageError, match="--trace cannot run"):
        traceable(setup(adapter=lora())._replace(**change))
