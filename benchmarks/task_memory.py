"""Peak memory of a step of each task: by the closed form, and of a real training on this machine.

    python benchmarks/task_memory.py                 # writes benchmarks/results/task_memory.md
    python benchmarks/task_memory.py --processes 2   # spread over them (FSDP2): benchmarks/results/sharded_memory.md

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

from small_jobs import ROOT, SmallJob, in_process, in_processes

from planner.hardware import gpu_facts
from planner.memory import estimate_memory
from planner.setup import Cluster

RESULT, SHARDED = (ROOT / "benchmarks/results" / name for name in ("task_memory.md", "sharded_memory.md"))
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
    processes: int = 1

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
            processes=self.processes,
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
    document = str(case.job.write(run, base))
    peaks = [run / f"peaks-{rank}.json" for rank in range(case.processes)]
    in_processes(*(("benchmarks.step_peaks", str(path), document) for path in peaks))
    static, most = max((peak for path in peaks for peak in json.loads(path.read_text())), key=sum)
    return static + most, static


def predicted(base: Path, case: Case) -> tuple[float, str]:
    """The same by formula, and in which phase of the step."""
    gpu = gpu_facts("A100-80GB")
    assert gpu is not None
    memory = estimate_memory(case.job.setup(base), Cluster(gpu, gpus_per_node=case.processes))
    return memory.allocated_bytes, memory.peak_phase


def table(outcomes: list[Outcome], processes: int) -> str:
    """The results as Markdown."""
    several = processes > 1
    words = f" --processes {processes}" if several else ""
    lines = [
        "# Peak memory of a step of each task" + (f", spread over {processes} processes" if several else ""),
        "",
        f"{datetime.now(UTC).date().isoformat()}, `python benchmarks/task_memory.py{words}`: MiB of tensors at the peak"
        + (" of one process." if several else "."),
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
    parser.add_argument("--processes", type=int, default=1, help="that the model is spread over")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="task-memory-") as name:
        root, outcomes = Path(name), []
        base = root / "base"
        in_process("benchmarks.small_jobs", str(base), json.dumps(SHAPE))
        precisions = args.precision or ["fp32", "bf16"]
        recomputed = (True, False) if args.processes == 1 else (True,)
        tasks = args.task or [task for task in TASKS if args.processes == 1 or "96 rows" not in task]
        for parts in product(tasks, ("lora", "full"), precisions, recomputed):
            case = Case(*parts, args.processes)
            most, lying = measured(root, base, case)
            said, phase = predicted(base, case)
            outcomes.append(Outcome(case, most, lying, said, phase))
            print(f"{case}: {most / MIB:.1f} MiB, predicted {said / MIB:.1f} ({phase})", flush=True)
    if not (args.task or args.precision):
        (RESULT if args.processes == 1 else SHARDED).write_text(table(outcomes, args.processes))
    print(table(outcomes, args.processes))


if __name__ == "__main__":
    main()
