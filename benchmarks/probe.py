"""What a probe is worth on this machine: thirty real steps, then the whole job, for several small jobs.

    python benchmarks/probe.py                 # every job once, writes benchmarks/results/probe.md
    python benchmarks/probe.py --repeats 3 --jobs lora-32 full-32

Each job has a ledger of its own: `plan probe`, then `plan launch --wait` of 200 steps, then `plan report`. The error is
that of the predicted seconds a step (p50) against the run's mean, before and after the probe. A CPU that others use at
the same time makes both vary; the load average at the start of each part is in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/probe.md"
PLAN = Path(sys.executable).parent / "plan"
STEPS, PROBED = 200, 30
SPEC = """\
spec_version: 1
name: goat
model: {{id: {goat}/base}}
method: {method}
data: {{train: {goat}/train.jsonl, format: prompt_completion}}
train: {{steps: {steps}, sequence_length: {length}, global_batch: {batch}, precision: fp32}}
"""
JOBS = {
    "lora-32": ("{kind: lora, rank: 4}", 32, 16),
    "lora-16": ("{kind: lora, rank: 16}", 16, 8),
    "lora-wide": ("{kind: lora, rank: 8}", 32, 64),
    "full-32": ("{kind: full}", 32, 16),
    "full-wide": ("{kind: full}", 32, 64),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One job, probed and run.

    Attributes:
        job: Key of `JOBS`.
        before_s: Predicted seconds a step from the formulas alone.
        after_s: The same after the probe.
        low_s: p10 after the probe.
        high_s: p90 after the probe.
        actual_s: Mean of the run.
        loads: Load average at the start of probe and run.
    """

    job: str
    before_s: float
    after_s: float
    low_s: float
    high_s: float
    actual_s: float
    loads: tuple[float, float]


def outcome_of(job: str, home: Path) -> Outcome:
    method, length, batch = JOBS[job]
    spec = home / "spec.yaml"
    goat = ROOT / "examples/tiny-goat"
    spec.write_text(SPEC.format(goat=goat, method=method, length=length, batch=batch, steps=STEPS))
    first = os.getloadavg()[0]
    probed = plan(home, "probe", str(spec), "--steps", str(PROBED), "--yes")
    second = os.getloadavg()[0]
    run_id = plan(home, "launch", str(spec), "--infra", "local", "--no-cap", "--yes", "--wait")["run_id"]
    rows = plan(home, "report", run_id)["comparison"]
    (step,) = (row for row in rows if row["quantity"] == "step_time_s")
    after = probed["after"]["step_time_s"]
    before = probed["before"]["step_time_s"]["p50"]
    return Outcome(job, before, after["p50"], after["p10"], after["p90"], step["actual"], (first, second))


def plan(home: Path, *words: str) -> dict[str, Any]:
    """The JSON answer of a command."""
    done = subprocess.run(
        [PLAN, *words, "-o", "json"],
        env={**os.environ, "PLAN_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"plan {' '.join(words)}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def page(found: list[Outcome]) -> str:
    """The results as Markdown."""
    errors = {
        "before": [abs(one.before_s / one.actual_s - 1) for one in found],
        "after": [abs(one.after_s / one.actual_s - 1) for one in found],
    }
    inside = sum(one.low_s <= one.actual_s <= one.high_s for one in found)
    lines = [
        "# A probe, then the whole job",
        "",
        f"`python benchmarks/probe.py`, {datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores: {PROBED} steps of a tiny",
        f"model, then a run of {STEPS} steps of the same job. Seconds a step, p50 predicted against the run's mean.",
        "",
        "| job | formula | after the probe (p10-p90) | actual | error before | error after | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for index, one in enumerate(found):
        span = f"{one.after_s:.4f} ({one.low_s:.4f}-{one.high_s:.4f})"
        shares = " | ".join(f"{100 * errors[moment][index]:.1f} %" for moment in ("before", "after"))
        loads = " then ".join(f"{load:.0f}" for load in one.loads)
        lines.append(f"| {one.job} | {one.before_s:.4f} | {span} | {one.actual_s:.4f} | {shares} | {loads} |")
    before, after = (statistics.median(errors[moment]) for moment in ("before", "after"))
    return "\n".join([
        *lines,
        "",
        f"Median error {100 * before:.1f} % before and {100 * after:.1f} % after the probe;",
        f"{inside} of {len(found)} runs lie inside the interval that the probe leaves.",
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    found = []
    for job in options.jobs * options.repeats:
        with tempfile.TemporaryDirectory() as home:
            found.append(outcome_of(job, Path(home)))
        print(found[-1], flush=True)
        RESULT.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
