"""Peak memory of a step of each task: by the closed form, and of a real training on this machine.

    python benchmarks/task_memory.py                 # writes benchmarks/results/task_memory.md

The worker trains a small model (random, 8 M parameters) for a few optimizer steps of two micro-batches; torch's
CPU allocator is read from the second step on, when the optimizer has its state. The estimate is that of the
`planner.memory` closed form of the tensors (`allocated_bytes`), for the same set-up on a CPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from small_jobs import ROOT, SmallJob, in_process

from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.setup import Cluster

RESULT = ROOT / "benchmarks/results/task_memory.md"
TOKENS, ANSWER, STEPS = 256, 250, 3
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
SHAPE = {
    "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 8192,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """What is trained."""

    task: str
    method: str
    precision: str
    again: bool

    @property
    def job(self) -> SmallJob:
        """The same as a job."""
        task, beta, accumulated = TASKS[self.task]
        answer = SAMPLED if task == "grpo" else ANSWER
        return SmallJob(
            task,
            self.method,
            TOKENS - answer,
            answer,
            STEPS,
            precision=self.precision,
            again=self.again,
            accumulated=accumulated,
            beta=beta,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """Peaks in bytes, and what lies there all the time."""

    case: Case
    measured: float
    lying: float
    predicted: float
    phase: str


def measured(root: Path, base: Path, case: Case) -> tuple[float, float]:
    """Peak of the tensors of a real training, and the part of it that lies there between steps; bytes."""
    run = Path(tempfile.mkdtemp(dir=root))
    in_process("benchmarks.step_peaks", str(run / "peaks.json"), str(case.job.write(run, base)))
    static, most = max(json.loads((run / "peaks.json").read_text()), key=sum)
    return static + most, static


def predicted(base: Path, case: Case) -> tuple[float, str]:
    """The same by formula, and in which phase of the step."""
    gpu = gpu_facts("A100-80GB")
    assert gpu is not None
    memory = estimate_memory(case.job.setup(base), Cluster(gpu))
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
        in_process("benchmarks.small_jobs", str(base), json.dumps(SHAPE))
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
