"""What a step of each task costs beside one of supervised fine-tuning: predicted, and trained for real on this machine.

    python benchmarks/tasks.py                 # writes benchmarks/results/tasks.md

The same model (25 M parameters, random), rows of 240 tokens and rows a step; only the task differs, so that the ratio
says whether the estimate counts the passes that the trainer makes: frozen copies, reference points. One core, fp32,
layers computed again in the backward pass; the quickest tenth of the steps, since others may use the machine. grpo is
not among them: what it samples from a random model ends anywhere.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.progress import read_progress
from jobs.spec import (
    CheckpointsJob,
    DataJob,
    JobSpec,
    MethodJob,
    ModelJob,
    PreferenceJob,
    TrainJob,
)
from planner.architecture import Adapter, load_architecture
from planner.hardware import cpu_facts
from planner.setup import Cluster, TrainingSetup
from planner.throughput import estimate_step
from providers.stores import open_store

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/tasks.md"
PROMPT, ANSWER, ROWS, STEPS = 100, 140, 4, 12
RANK = 8
TASKS = {
    "sft": ("sft", "auto"),
    "dpo": ("dpo", "auto"),
    "reward": ("reward", "auto"),
    "kto": ("kto", "auto"),
    "kto, apo_zero_unpaired": ("kto", "apo_zero_unpaired"),
}
MAKE = """
import sys
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
goat, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(goat)
shape = dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8)
LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=8, **shape)).save_pretrained(out)
tokenizer.save_pretrained(out)
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds a step of one task and method."""

    task: str
    method: str
    measured_s: float
    predicted_s: float


def rows_of(task: str) -> list[dict[str, Any]]:
    """Random digits: one token a character."""
    chance = random.Random(0)

    def text(length: int) -> str:
        return "".join(chance.choice("0123456789+-") for _ in range(length))

    rows = [(text(PROMPT), text(ANSWER), text(ANSWER)) for _ in range(40)]
    if task == "kto":
        return [{"prompt": p, "completion": a, "label": i % 2 == 0} for i, (p, a, _) in enumerate(rows)]
    if task in ("dpo", "reward"):
        return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows]
    return [{"prompt": p, "completion": a} for p, a, _ in rows]


def measured_s(root: Path, base: Path, name: str, method: str) -> float:
    """Seconds of the quicker steps of a real training."""
    task, loss = TASKS[name]
    run = root / f"{name}-{method}".replace(", ", "-")
    run.mkdir()
    data = run / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task)))
    job = JobSpec(
        run_id=run.name,
        name=run.name,
        model=ModelJob("random", path=str(base)),
        data=DataJob(str(data)),
        task=task,  # type: ignore[arg-type]
        preference=PreferenceJob(loss=loss),  # type: ignore[arg-type]
        checkpoints=CheckpointsJob((run / "store").as_uri(), every_steps=10 * STEPS),
        method=MethodJob(method, RANK),  # type: ignore[arg-type]
        train=TrainJob(
            steps=STEPS,
            sequence_length=PROMPT + ANSWER + 16,
            micro_batch=ROWS,
            precision="fp32",
            gradient_checkpointing=True,
            optimizer="adamw",
            learning_rate=1e-5,
        ),
    )
    (run / "job.json").write_text(job.to_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "jobs.train", str(run / "job.json")],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    progress = read_progress(open_store((run / "store").as_uri()))
    if progress is None or progress.step_time_s is None:
        raise SystemExit(f"{run.name} said nothing")
    return progress.step_time_s.p10


def predicted_s(base: Path, name: str, method: str) -> float:
    """Of the same step, from the formulas alone."""
    task, loss = TASKS[name]
    setup = TrainingSetup(
        load_architecture(str(base)),
        task=task,
        adapter=None if method == "full" else Adapter("lora", RANK, ("all-linear",)),
        precision="fp32",
        sequence_tokens=PROMPT + ANSWER,
        micro_batch=ROWS,
        preference_loss=loss,
    )
    return estimate_step(setup, Cluster(cpu_facts(1, 8.0))).step_time_s.p50


def table(outcomes: list[Outcome]) -> str:
    """The results as Markdown."""
    base = {row.method: row for row in outcomes if row.task == "sft"}
    lines = [
        "# What a step of each task costs beside one of sft",
        "",
        f"{datetime.now(UTC).date().isoformat()}, `python benchmarks/tasks.py`, one core; load average"
        f" {os.getloadavg()[2]:.1f} over the last quarter of an hour.",
        "",
        "| task | method | measured s | of sft | predicted of sft |",
        "|---|---|---|---|---|",
    ]
    for row in outcomes:
        one = base[row.method]
        ratio, said = row.measured_s / one.measured_s, row.predicted_s / one.predicted_s
        lines.append(f"| {row.task} | {row.method} | {row.measured_s:.2f} | {ratio:.2f} | {said:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tasks-") as name:
        root, outcomes = Path(name), []
        base = root / "base"
        words = [sys.executable, "-c", MAKE, str(ROOT / "examples/tiny-goat/base"), str(base)]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        for method in ("lora", "full"):
            for task in TASKS:
                measured, predicted = measured_s(root, base, task, method), predicted_s(base, task, method)
                outcomes.append(Outcome(task, method, measured, predicted))
                print(f"{task}, {method}: {measured:.2f} s, predicted {predicted:.2f}", flush=True)
    RESULT.write_text(table(outcomes))
    print(table(outcomes))


if __name__ == "__main__":
    main()
