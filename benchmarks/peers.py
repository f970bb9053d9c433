"""The same published runs through other estimators: ftuneai, canifinetune, hf-vram-calc and accelerate's rule.

    python benchmarks/peers.py            # makes an environment with pinned packages (once), writes the table
    python benchmarks/peers.py --venv DIR # an environment that is already there

Each peer gets the model's exact shape and parameter count, method, rank, targets, batch, length, recomputation and
sharding, as far as it has an option for it; runs it cannot express are not counted against it. Errors are compared
with the metric that the source measured; we are scored on the very rows that the peer answered. Peers were not made
for all of these runs (hf-vram-calc knows no activations, accelerate only weights and optimizer): the table says how
far their figure can be used as the answer to "will it fit", not how good they are at what they promise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import venv
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accuracy
from fit_throughput import number

from planner.architecture import parameter_counts
from planner.backtest import RunEstimate

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "peers.md"
PACKAGES = ("ftuneai==0.4.1", "canifinetune==0.4.1", "hf-vram-calc==1.0.9", "accelerate==1.15.0")
Answer = dict[str, dict[str, float] | None]


def environment(path: Path) -> Path:
    """Python of an environment of the peers' own; 3 GB with the torch that two of them want."""
    python = path / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(PACKAGES)} into {path}", file=sys.stderr)
        venv.create(path, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def job_of(estimate: RunEstimate) -> dict[str, Any]:
    """A run as the peers can be told of it."""
    setup, cluster = estimate.run.setup, estimate.run.cluster
    arch, adapter = setup.arch, setup.adapter
    method = "full" if adapter is None else "lora" if setup.quantization == "none" else "qlora"
    wide = adapter is not None and adapter.targets == ("all-linear",)
    few = adapter is not None and len(adapter.targets) <= 2
    precision = "fp32" if "32" in setup.precision else "fp16" if "fp16" in setup.precision else "bf16"
    return {
        "parameters": parameter_counts(arch, setup.task, setup.labels).total,
        "family": "gpt2" if arch.mlp_matrices == 2 else "llama",
        "shape": {
            "hidden_size": arch.hidden,
            "num_hidden_layers": arch.layers + arch.decoder_layers,
            "num_attention_heads": arch.heads,
            "num_key_value_heads": arch.kv_heads,
            "intermediate_size": arch.intermediate,
            "vocab_size": arch.vocab,
            "tie_word_embeddings": arch.tied_embeddings,
        },
        "method": method,
        "quantization": setup.quantization,
        "rank": adapter.rank if adapter else 16,
        "targets": "all_linear" if wide else "attention" if few else "attention_all",
        "micro_batch": setup.micro_batch,
        "sequence": setup.sequence_tokens,
        "checkpointing": setup.gradient_checkpointing,
        "fused_attention": setup.attention != "eager",
        "optimizer": setup.optimizer,
        "precision": precision,
        "mixed": {"fp32": "float32", "fp16": "float16"}.get(precision, "bfloat16"),
        "sharding": setup.parallelism.kind,
        "gpus": setup.parallelism.gpus_total,
        "gpu": cluster.gpu.name,
        "gpu_gib": cluster.gpu_mem_gib or cluster.gpu.memory_gib,
    }


def asked(python: Path, done: list[accuracy.Result]) -> tuple[list[Answer], dict[str, str]]:
    jobs = json.dumps([job_of(one.estimate) for one in done])
    worker = Path(__file__).with_name("peers_worker.py")
    ran = subprocess.run([python, worker], input=jobs, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(ran.stderr[-2000:])
    document = json.loads(ran.stdout[ran.stdout.index('{"answers"') :])
    return document["answers"], document["errors"]


def memory_rows(
    done: list[accuracy.Result], answers: list[Answer]
) -> dict[str, list[tuple[str, float, float]]]:
    """Peer -> (source, its signed error, ours) of every run that it answered."""
    found = defaultdict(list)
    for one, answer in zip(done, answers, strict=True):
        truth = number(one.row["mem_gib_norm"])
        for name, said in answer.items():
            if truth and said and one.memory_error is not None:
                found[name].append((one.row["source"], said["gib"] / truth - 1, one.memory_error))
    return found


def speed_rows(
    done: list[accuracy.Result], answers: list[Answer]
) -> dict[str, list[tuple[str, float, float]]]:
    """The same for tokens per second, as ratio - 1 of the larger to the smaller."""
    found = defaultdict(list)
    for one, answer in zip(done, answers, strict=True):
        rate, step = number(one.row["measured_tokens_per_s_total"]), one.estimate.step
        for name, said in answer.items():
            if rate and step and one.time_error is not None and said and "tokens_per_s" in said:
                theirs, ours = said["tokens_per_s"], step.tokens_per_s_total.p50
                found[name].append((one.row["source"], apart(theirs, rate), apart(ours, rate)))
    return found


def apart(said: float, truth: float) -> float:
    return max(said / truth, truth / said) - 1


def macro(rows: list[tuple[str, float]]) -> float:
    by_source = defaultdict(list)
    for source, error in rows:
        by_source[source].append(abs(error))
    medians = [statistics.median(errors) for errors in by_source.values() if len(errors) >= 3]
    return statistics.mean(medians) if medians else float("nan")


def table(found: dict[str, list[tuple[str, float, float]]]) -> list[str]:
    lines = [
        "| estimator | runs | macro median error | over all runs | too low by over 5 % | ours on these runs |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        theirs, ours = [(s, t) for s, t, _ in rows], [(s, o) for s, _, o in rows]
        low = sum(t < -0.05 for _, t in theirs) / len(theirs)
        shares = (macro(theirs), overall(theirs), low, macro(ours))
        lines.append(f"| {name} | {len(rows)} | {' | '.join(map(accuracy.percent, shares))} |")
    return lines


def overall(rows: list[tuple[str, float]]) -> float:
    return statistics.median(abs(error) for _, error in rows)


def speed_table(found: dict[str, list[tuple[str, float, float]]]) -> list[str]:
    lines = [
        "| estimator | runs | macro median error | over all runs | ours on these runs |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        theirs = [(s, t) for s, t, _ in rows]
        shares = (macro(theirs), overall(theirs), macro([(s, o) for s, _, o in rows]))
        lines.append(f"| {name} | {len(rows)} | {' | '.join(map(accuracy.percent, shares))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-peers")
    python = environment(parser.parse_args().venv)
    done = accuracy.results(accuracy.read(accuracy.DATA))
    answers, errors = asked(python, done)
    lines = [
        "# Other estimators on the same published runs",
        "",
        f"`python benchmarks/peers.py`, {datetime.now(UTC).date().isoformat()}, with {', '.join(PACKAGES)}; what is"
        " compared is said in its docstring.",
        "",
        "## Memory",
        "",
        *table(memory_rows(done, answers)),
        "",
        "## Tokens per second (only ftuneai predicts time)",
        "",
        *speed_table(speed_rows(done, answers)),
        "",
    ]
    lines = [*lines, *(f"- {name} failed on some runs: {text}" for name, text in errors.items())]
    RESULT.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
