"""What a step of each task costs beside one of supervised fine-tuning: predicted, and trained for real on this machine.

    python benchmarks/tasks.py                 # writes benchmarks/results/tasks.md

The same model (25 M parameters, random), rows of 240 tokens and rows a step; only the task differs, so that the ratio
says whether the estimate counts the passes that the trainer makes: frozen copies, reference points. One core, fp32,
layers computed again in the backward pass; CPU seconds of the quicker steps, since others may use the machine. grpo is
not among them: what it samples from a random model ends anywhere.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from small_jobs import ROOT, SmallJob, in_process

from planner.hardware import cpu_facts
from planner.setup import Cluster
from planner.throughput import estimate_step

RESULT = ROOT / "benchmarks/results/tasks.md"
PROMPT, ANSWER, STEPS = 100, 140, 9
TASKS = {
    "sft": ("sft", "auto"),
    "dpo": ("dpo", "auto"),
    "reward": ("reward", "auto"),
    "kto": ("kto", "auto"),
    "kto, apo_zero_unpaired": ("kto", "apo_zero_unpaired"),
}
SHAPE = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}


@dataclass(frozen=True, slots=True)
class Outcome:
    """CPU seconds a step of one task and method."""

    task: str
    method: str
    measured_s: float
    predicted_s: float


def job_of(name: str, method: str) -> SmallJob:
    task, loss = TASKS[name]
    return SmallJob(task, method, PROMPT, ANSWER, STEPS, loss=loss)


def measured_s(root: Path, base: Path, name: str, method: str) -> float:
    """CPU seconds of the second quickest step of a real training."""
    run = Path(tempfile.mkdtemp(dir=root))
    seconds = run / "seconds.json"
    in_process("benchmarks.step_seconds", str(seconds), str(job_of(name, method).write(run, base)))
    return float(sorted(json.loads(seconds.read_text()))[1])


def predicted_s(base: Path, name: str, method: str) -> float:
    """Of the same step, from the formulas alone."""
    return estimate_step(job_of(name, method).setup(base), Cluster(cpu_facts(1, 8.0))).step_time_s.p50


def table(outcomes: list[Outcome]) -> str:
    """The results as Markdown."""
    base = {row.method: row for row in outcomes if row.task == "sft"}
    lines = [
        "# What a step of each task costs beside one of sft",
        "",
        f"{datetime.now(UTC).date().isoformat()}, `python benchmarks/tasks.py`, one core; load average"
        f" {os.getloadavg()[2]:.1f} over the last quarter of an hour.",
        "",
        "| task | method | measured CPU s | of sft | predicted of sft |",
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
        in_process("benchmarks.small_jobs", str(base), json.dumps(SHAPE))
        for method in ("lora", "full"):
            for task in TASKS:
                measured, predicted = measured_s(root, base, task, method), predicted_s(base, task, method)
                outcomes.append(Outcome(task, method, measured, predicted))
                print(f"{task}, {method}: {measured:.2f} s, predicted {predicted:.2f}", flush=True)
    RESULT.write_text(table(outcomes))
    print(table(outcomes))


if __name__ == "__main__":
    main()
