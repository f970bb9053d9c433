"""How much of the time between two LoRA checkpoints the training thread waits for a save.

    python benchmarks/blocked_share.py [--minutes 8] [--hazard 0.5] [--out benchmarks/results/blocked-share.md]

Trains rank-16 adapters on all linear modules of an untrained Llama of 135M parameters (the shape of SmolLM2-135M, whose
checkpoints are about 59 MB) with the worker itself, which chooses the interval from the hazard and its own saves.
What is counted is the time from the end of a step to the moment the checkpoint is handed to the thread that uploads it:
gathering, writing it to the local disk, random states. Needs the extras train and dev.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from jobs.progress import read_progress  # noqa: E402
from jobs.spec import CheckpointsJob, DataJob, JobSpec, LimitsJob, MethodJob, ModelJob, TrainJob  # noqa: E402
from providers.directory_store import DirectoryStore  # noqa: E402

TOKENIZER = ROOT / "examples" / "tiny-goat"
SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def make_model(target: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(target)
    AutoTokenizer.from_pretrained(TOKENIZER / "base").save_pretrained(target)


def job_of(root: Path, minutes: float, hazard_per_h: float) -> JobSpec:
    return JobSpec(
        run_id="blocked",
        name="blocked",
        model=ModelJob("llama-135m", path=str(root / "model")),
        data=DataJob(str(TOKENIZER / "train.jsonl")),
        checkpoints=CheckpointsJob((root / "store").as_uri(), hazard_per_h=hazard_per_h),
        method=MethodJob("lora", 16),
        train=TrainJob(steps=1_000_000, sequence_length=32, micro_batch=4, gradient_checkpointing=False),
        limits=LimitsJob(max_duration_s=minutes * 60),
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--hazard", type=float, default=0.5, help="expected losses an hour")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blocked-") as scratch:
        root = Path(scratch)
        make_model(root / "model")
        (root / "job.json").write_text(job_of(root, options.minutes, options.hazard).to_json())
        log = root / "log"
        with log.open("w") as out:
            code = subprocess.run(
                [sys.executable, "-m", "jobs.train", str(root / "job.json")],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                cwd=root,
                stdout=out,
                stderr=subprocess.STDOUT,
            ).returncode
        progress = read_progress(DirectoryStore(root / "store"))
        if code != 77 or progress is None or progress.last_checkpoint is None:
            print(log.read_text()[-3000:])
            return 1
        seconds = progress.stage_seconds
        saves = log.read_text().count("committed:")
        train_s = seconds["train"] + seconds["save"]
        load = os.getloadavg()
        result = {
            "checkpoint_mb": progress.last_checkpoint.bytes / 1e6,
            "commits": saves,
            "interval_s": train_s / saves,
            "blocked_s_each": seconds["save"] / saves,
            "blocked_share": seconds["save"] / train_s,
            "upload_s_each": seconds["upload"] / saves,
        }
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    text = (
        f"# Training thread blocked between two LoRA checkpoints\n\n"
        f"Commit {commit}, {datetime.now(UTC):%Y-%m-%d}, {platform.machine()} with {os.cpu_count()} cores, "
        f"load {load[0]:.1f} / {load[1]:.1f} / {load[2]:.1f}.\n"
        f"`python benchmarks/blocked_share.py --minutes {options.minutes:g} --hazard {options.hazard:g}`\n\n"
        "| checkpoint | commits | mean interval | blocked for each | share of the time | upload beside it |\n"
        "|---|---|---|---|---|---|\n"
        f"| {result['checkpoint_mb']:.0f} MB | {saves} | {result['interval_s']:.0f} s "
        f"| {result['blocked_s_each']:.3f} s | {result['blocked_share']:.2%} | {result['upload_s_each']:.2f} s |\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
