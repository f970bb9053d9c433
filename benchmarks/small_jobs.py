"""Small trainings of every task, for benchmarks and tests that hold an estimate against real steps.

python -m benchmarks.small_jobs DIRECTORY SHAPE      # a random model with the tiny Goat's tokens; SHAPE is JSON
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
from planner.model_support import as_launched
from planner.setup import Parallelism, TrainingSetup

ROOT = Path(__file__).parents[1]
GOAT = ROOT / "examples/tiny-goat/base"
RANK, ROWS = 8, 4
ENCODERS = frozenset({"bert", "distilbert", "roberta", "modernbert"})


@dataclass(frozen=True, slots=True)
class SmallJob:
    """A training whose rows are all of one length.

    Attributes:
        accumulated: Micro-batches of an optimizer step.
        loss: Of kto.
        beta: Weight of the distance to the base model in grpo.
        processes: The model is spread over so many where there is more than one.
    """

    task: str
    method: str
    prompt_tokens: int
    answer_tokens: int
    steps: int
    precision: str = "fp32"
    again: bool = True
    accumulated: int = 1
    loss: str = "auto"
    beta: float = 0.0
    processes: int = 1

    def write(self, root: Path, base: Path) -> Path:
        """Its data and its document, below a directory; the document."""
        data = root / "train.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in self._rows()))
        job = JobSpec(
            run_id="small",
            name="small",
            model=ModelJob("random", path=str(base)),
            data=DataJob(str(data)),
            task=self.task,  # type: ignore[arg-type]
            preference=PreferenceJob(loss=self.loss),  # type: ignore[arg-type]
            rollout=RolloutJob(generations=4, completion_tokens=self.answer_tokens, beta=self.beta),
            checkpoints=CheckpointsJob((root / "store").as_uri(), every_steps=10 * self.steps),
            method=MethodJob(self.method, RANK),  # type: ignore[arg-type]
            train=TrainJob(
                steps=self.steps,
                sequence_length=self.prompt_tokens + self.answer_tokens + 16,
                micro_batch=ROWS,
                grad_accum=self.accumulated,
                precision=self.precision,  # type: ignore[arg-type]
                gradient_checkpointing=self.again,
                optimizer="adamw",
                learning_rate=1e-5,
                processes=self.processes,
                sharding="none" if self.processes == 1 else "fsdp",
            ),
        )
        document = root / "job.json"
        document.write_text(job.to_json())
        return document

    def setup(self, base: Path) -> TrainingSetup:
        """What the estimate is of."""
        arch = as_launched(load_architecture(str(base)))
        return TrainingSetup(
            arch,
            task=self.task,
            attention="sdpa" if arch.fused_attention else "eager",
            adapter=None if self.method == "full" else Adapter("lora", RANK, ("all-linear",)),
            precision=self.precision,
            cpu_autocast=True,
            sequence_tokens=self.prompt_tokens + self.answer_tokens,
            micro_batch=ROWS,
            grad_accum=self.accumulated,
            gradient_checkpointing=self.again,
            preference_loss=self.loss,
            reference=self.task != "grpo" or self.beta > 0,
            generated_tokens=self.answer_tokens,
            parallelism=Parallelism() if self.processes == 1 else Parallelism("fsdp", self.processes),
        )

    def _rows(self) -> list[dict[str, Any]]:
        """Random digits: one token a character."""
        chance = random.Random(0)

        def text(length: int) -> str:
            return "".join(chance.choice("0123456789+-") for _ in range(length))

        rows = [
            (text(self.prompt_tokens), text(self.answer_tokens), text(self.answer_tokens)) for _ in range(400)
        ]
        if self.task == "classification":
            return [{"text": p + a, "label": i % 2} for i, (p, a, _) in enumerate(rows)]
        if self.task == "kto":
            return [{"prompt": p, "completion": a, "label": i % 2 == 0} for i, (p, a, _) in enumerate(rows)]
        if self.task in ("dpo", "reward"):
            return [{"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows]
        if self.task == "grpo":
            return [{"prompt": p, "answer": a} for p, a, _ in rows]
        return [{"prompt": p, "completion": a} for p, a, _ in rows]


def in_process(*words: str) -> None:
    """A module and its arguments, on one core."""
    in_processes(words)


def in_processes(*commands: Sequence[str]) -> None:
    """As many ranks that talk to each other, each a module and its arguments on one core."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, **shared, **_place(rank, len(commands), port)},
            stdout=subprocess.DEVNULL,
        )
        for rank, words in enumerate(commands)
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise SystemExit(f"{commands[0]}: ended with {codes}")


def _place(rank: int, size: int, port: int) -> dict[str, str]:
    if size == 1:
        return {}
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_PORT": port,
    }
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in told.items()}}


def make_base(arguments: list[str]) -> None:
    """A random model of a shape, a Llama with as many words as the tokenizer has unless the shape says."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from jobs.towers import text_model_class

    out, shape = arguments
    tokenizer = AutoTokenizer.from_pretrained(GOAT)
    fields = {"model_type": "llama", **json.loads(shape)}
    if "text_config" not in fields:
        fields.setdefault("vocab_size", len(tokenizer))
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    kind = AutoModel if config.model_type in ENCODERS else text_model_class(config)
    kind.from_config(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


if __name__ == "__main__":
    make_base(sys.argv[1:])
