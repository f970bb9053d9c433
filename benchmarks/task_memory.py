"""Peak memory of a step of each task: by the closed form, and of a real training on this machine.

    python benchmarks/task_memory.py                 # writes benchmarks/results/task_memory.md

The worker trains a small model (random, 8 M parameters) for a few optimizer steps of two micro-batches; torch's
CPU allocator is read from the second step on, when the optimizer has its state. The estimate is that of the
`planner.memory` closed form of the tensors (`allocated_bytes`), for the same set-up on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from jobs.spec import (
    CheckpointsJob,
    DataJob,
    JobSpec,
    MethodJob,
    ModelJob,
    PreferenceJob,
    RolloutJob,
    TrainJob,
)
from planner.architecture import Adapter, load_architecture
from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.setup import Cluster, TrainingSetup

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/task_memory.md"
PROMPT, ANSWER, ROWS, STEPS, RANK = 6, 250, 4, 3, 8
SAMPLED = 24  # tokens of an answer of grpo: every operation is on record, and each token takes hundreds
#: The job's task, weight of the distance to the base model in grpo, micro-batches of an optimizer step.
TASKS = {
    "sft": ("sft", 0.0, 2),
    "classification": ("classification", 0.0, 2),
    "dpo": ("dpo", 0.0, 2),
    "reward": ("reward", 0.0, 2),
    "kto": ("kto", 0.0, 2),
    "grpo": ("grpo", 0.0, 2),
    "grpo, beta 0.1": ("grpo", 0.1, 2),
    "grpo, 96 rows a step": ("grpo", 0.0, 24),
}
MIB = 2.0**20
MAKE = """
import sys
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
goat, out = sys.argv[1:]
shape = dict(hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=4)
LlamaForCausalLM(LlamaConfig(vocab_size=8192, num_key_value_heads=2, **shape)).save_pretrained(out)
AutoTokenizer.from_pretrained(goat).save_pretrained(out)
"""


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained."""

    task: str
    method: str
    precision: str
    again: bool

    @property
    def kind(self) -> str:
        """The job's task."""
        return TASKS[self.task][0]

    @property
    def beta(self) -> float:
        """Weight of the distance to the base model in grpo."""
        return TASKS[self.task][1]

    @property
    def accumulated(self) -> int:
        """Micro-batches of an optimizer step."""
        return TASKS[self.task][2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Peaks in bytes, and what lies there all the time."""

    case: Case
    measured: float
    lying: float
    predicted: float
    phase: str


def rows_of(task: str) -> list[dict[str, Any]]:
    """Random digits: one token a character."""
    chance = random.Random(0)

    def text(length: int) -> str:
        return "".join(chance.choice("0123456789+-") for _ in range(length))

    answer = SAMPLED if task == "grpo" else ANSWER
    rows = [(text(PROMPT + ANSWER - answer), text(answer), text(answer)) for _ in range(400)]
    if task == "classification":
        return [{"text": p + a, "label": i % 2} for i, (p, a, _) in enumerate(rows)]
    if task == "kto":
        return [{"prompt": p, "completion": a, "label": i % 2 == 0} for i, (p, a, _) in enumerate(rows)]
    if task in ("dpo", "reward"):
        return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows]
    if task == "grpo":
        return [{"prompt": p, "answer": a} for p, a, _ in rows]
    return [{"prompt": p, "completion": a} for p, a, _ in rows]


def measured(root: Path, base: Path, case: Case) -> tuple[float, float]:
    """Peak of the tensors of a real training, and the part of it that lies there between steps; bytes."""
    run = root / "-".join(
        str(part).replace(", ", "-") for part in (case.task, case.method, case.precision, case.again)
    )
    run.mkdir()
    data = run / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(case.kind)))
    job = JobSpec(
        run_id=run.name.replace(" ", "-").replace(".", "-"),
        name="memory",
        model=ModelJob("random", path=str(base)),
        data=DataJob(str(data)),
        task=case.kind,  # type: ignore[arg-type]
        preference=PreferenceJob(),
        rollout=RolloutJob(generations=4, completion_tokens=SAMPLED, beta=case.beta),
        checkpoints=CheckpointsJob((run / "store").as_uri(), every_steps=10 * STEPS),
        method=MethodJob(case.method, RANK),  # type: ignore[arg-type]
        train=TrainJob(
            steps=STEPS,
            sequence_length=PROMPT + ANSWER + 16,
            micro_batch=ROWS,
            grad_accum=case.accumulated,
            precision=case.precision,  # type: ignore[arg-type]
            gradient_checkpointing=case.again,
            optimizer="adamw",
            learning_rate=1e-5,
        ),
    )
    (run / "job.json").write_text(job.to_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-m", "benchmarks.step_peaks", str(run / "peaks.json"), str(run / "job.json")],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    peaks = json.loads((run / "peaks.json").read_text())
    static, most = max(peaks, key=sum)
    return static + most, static


def predicted(base: Path, case: Case) -> tuple[float, str]:
    """The same by formula, and in which phase of the step."""
    setup = TrainingSetup(
        load_architecture(str(base)),
        task=case.kind,
        adapter=None if case.method == "full" else Adapter("lora", RANK, ("all-linear",)),
        precision=case.precision,
        sequence_tokens=PROMPT + ANSWER,
        micro_batch=ROWS,
        grad_accum=case.accumulated,
        gradient_checkpointing=case.again,
        generated_tokens=SAMPLED,
        reference=case.kind != "grpo" or case.beta > 0,
    )
    gpu = gpu_facts("A100-80GB")
    assert gpu is not None
    memory = estimate_memory(setup, Cluster(gpu))
    return memory.allocated_bytes, memory.peak_phase


def table(outcomes: list[Outcome]) -> str:
    """The results as Markdown."""
    lines = [
        "# Peak memory of a step of each task",
        "",
        f"{datetime.now(UTC).date().isoformat()}, `python benchmarks/task_memory.py`: MiB of tensors at the peak.",
        "",
        "| task | method | precision | recomputed | measured | of it always | predicted | predicted / measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in outcomes:
        case, again = row.case, "yes" if row.case.again else "no"
        sizes = " | ".join(f"{value / MIB:.1f}" for value in (row.measured, row.lying, row.predicted))
        ratio = row.predicted / row.measured
        lines.append(f"| {case.task} | {case.method} | {case.precision} | {again} | {sizes} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", action="append", help="only this one; may be given again")
    parser.add_argument("--precision", action="append", help="fp32 and bf16")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="task-memory-") as name:
        root, outcomes = Path(name), []
        base = root / "base"
        words = [sys.executable, "-c", MAKE, str(ROOT / "examples/tiny-goat/base"), str(base)]
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        precisions = args.precision or ["fp32", "bf16"]
        for parts in product(args.task or TASKS, ("lora", "full"), precisions, (True, False)):
            case = Case(*parts)
            most, lying = measured(root, base, case)
            said, phase = predicted(base, case)
            outcomes.append(Outcome(case, most, lying, said, phase))
            print(f"{case}: {most / MIB:.1f} MiB, predicted {said / MIB:.1f} ({phase})", flush=True)
    if not (args.task or args.precision):
        RESULT.write_text(table(outcomes))
    print(table(outcomes))


if __name__ == "__main__":
    main()
