"""How far the estimates are from published runs: prints the tables of ACCURACY.md.

    python benchmarks/accuracy.py                   # in sample: the shipped constants
    python benchmarks/accuracy.py --runs other.csv  # runs that nobody here has seen
    python benchmarks/leave_one_out.py              # each source predicted by a fit without it

Errors: memory |predicted / measured - 1| of the metric that the source measured (allocated, reserved or NVML); time
exp |ln(predicted / measured)| - 1 in tokens per second. Macro is the mean over sources of the source's median.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fit_throughput import number

from planner.backtest import RunEstimate, UnsupportedRunError, estimate_run

DATA = Path(__file__).parent / "data" / "measured_runs.csv"
GIB = 2**30
WORSE = 1.5  # what errors may grow by on sources that nobody looked at
# Rows whose truth is doubtful by the table's own remark.
DOUBTFUL = frozenset({"variable_len", "extrapolated_from_throughput", "coarse", "upper_bound", "range_midpoint",
                      "inconsistent_in_source", "seq_unstated", "gpu_unstated", "tps_scope_unclear",
                      "machine4_used1", "superlinear_suspect", "gpu_label_suspect"})  # fmt: skip
# Sources that do not say how many tokens a step holds.
UNKNOWN_TOKENS = frozenset({"rocm-blogs", "hf-blog-zero", "hf-blog-copilot", "hf-blog-fsdp70b"})
PLAIN_TASKS = frozenset({"", "sft", "pretrain", "qa", "classification", "ner"})


@dataclass(frozen=True, slots=True)
class Result:
    """One row with its prediction; None where the row did not measure it."""

    row: dict[str, str]
    estimate: RunEstimate
    memory_error: float | None
    above_upper: bool | None
    time_error: float | None
    covered: bool | None
    verdict: tuple[str, str] | None
    width: float | None


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def results(rows: Iterable[dict[str, str]]) -> list[Result]:
    found = []
    for row in rows:
        if row["quality"] in DOUBTFUL:
            continue
        try:
            found.append(result(row, estimate_run(row)))
        except UnsupportedRunError:
            continue
    return found


def result(row: dict[str, str], estimate: RunEstimate) -> Result:
    memory, step = estimate.memory, estimate.step
    truth = number(row["mem_gib_norm"])
    predicted = predicted_gib(row["mem_metric"].lower(), estimate)
    rate = number(row["measured_tokens_per_s_total"])
    time_error = covered = width = None
    if step is not None and rate and dense_with_known_tokens(row):
        time_error = math.log(step.tokens_per_s_total.p50 / rate)
        covered = step.tokens_per_s_total.p10 <= rate <= step.tokens_per_s_total.p90
        width = step.tokens_per_s_total.p90 / step.tokens_per_s_total.p10
    return Result(
        row=row,
        estimate=estimate,
        memory_error=None if truth is None else predicted / truth - 1,
        above_upper=None if truth is None else truth > memory.upper_bytes / GIB,
        time_error=time_error,
        covered=covered,
        verdict=decided(row, truth, memory.verdict),
        width=width,
    )


def predicted_gib(metric: str, estimate: RunEstimate) -> float:
    memory = estimate.memory
    if "nvml" in metric or "smi" in metric:
        return memory.nvml_bytes / GIB
    allocated = "alloc" in metric and "reserved" not in metric
    return (memory.allocated_bytes if allocated else memory.reserved_bytes) / GIB


def dense_with_known_tokens(row: dict[str, str]) -> bool:
    known = row["source"] not in UNKNOWN_TOKENS and row["is_moe"] != "true" and row["task"] in PLAIN_TASKS
    return known and (number(row["num_nodes"]) or 1) <= 1


def decided(row: dict[str, str], truth: float | None, verdict: str) -> tuple[str, str] | None:
    limit = number(row["gpu_mem_gb"])
    if row["oom"] == "true":
        return ("oom", verdict)
    return ("fits", verdict) if truth and limit and truth <= 0.9 * limit else None


def macro(values: Iterable[tuple[str, float]]) -> float:
    by_source = defaultdict(list)
    for source, value in values:
        by_source[source].append(value)
    return statistics.mean(statistics.median(v) for v in by_source.values() if len(v) >= 3)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def table(title: str, done: list[Result], key: Callable[[Result], str]) -> list[str]:
    groups = defaultdict(list)
    for one in done:
        groups[key(one)].append(one)
    lines = [
        f"| {title} | memory n | median | bias | time n | median | covered |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in sorted(groups.items()):
        memory = [r.memory_error for r in group if r.memory_error is not None]
        time = [r.time_error for r in group if r.time_error is not None]
        covered = [r.covered for r in group if r.covered is not None]
        if memory or time:
            lines.append(f"| {name} | {memory_cells(memory)} | {time_cells(time, covered)} |")
    return [*lines, ""]


def memory_cells(errors: list[float]) -> str:
    if not errors:
        return "0 | |"
    return f"{len(errors)} | {percent(statistics.median(map(abs, errors)))} | {percent(statistics.median(errors))}"


def time_cells(errors: list[float], covered: list[bool]) -> str:
    if not errors:
        return "0 | |"
    median = math.exp(statistics.median(map(abs, errors))) - 1
    return f"{len(errors)} | {percent(median)} | {percent(sum(covered) / len(covered))}"


def summary(done: list[Result]) -> dict[str, float]:
    memory = [(r.row["source"], abs(r.memory_error)) for r in done if r.memory_error is not None]
    time = [(r.row["source"], abs(r.time_error)) for r in done if r.time_error is not None]
    covered = [(r.row["source"], r.covered) for r in done if r.covered is not None]
    if_worse = [
        (r.row["source"], WORSE * abs(r.time_error) <= math.log(r.width) / 2)
        for r in done
        if r.time_error is not None and r.width is not None
    ]
    verdicts = [r.verdict for r in done if r.verdict]
    above = [r.above_upper for r in done if r.above_upper is not None]
    return {
        "memory_macro_median": macro(memory),
        "memory_p90": quantile([e for _, e in memory], 0.9),
        "memory_within_20": sum(e < 0.2 for _, e in memory) / len(memory),
        "truth_above_upper": sum(above) / len(above),
        "time_macro_median": math.exp(macro(time)) - 1,
        "time_p90": math.exp(quantile([e for _, e in time], 0.9)) - 1,
        "interval_coverage": mean_share(covered),
        "interval_coverage_if_worse": mean_share(if_worse),
        "interval_p90_over_p10": statistics.median(r.width for r in done if r.width is not None),
        "verdict_right": sum(a == b for a, b in verdicts) / len(verdicts),
        "verdict_borderline": sum(b == "borderline" for _, b in verdicts) / len(verdicts),
        "false_alarms": sum(v == ("fits", "oom") for v in verdicts) / sum(a == "fits" for a, _ in verdicts),
        "oom_missed": float(sum(v == ("oom", "fits") for v in verdicts)),
        "oom": float(sum(a == "oom" for a, _ in verdicts)),
    }


def mean_share(values: list[tuple[str, bool]]) -> float:
    by_source = defaultdict(list)
    for source, value in values:
        by_source[source].append(value)
    return statistics.mean(sum(v) / len(v) for v in by_source.values() if len(v) >= 3)


def misses(done: list[Result], count: int = 12) -> list[str]:
    """The worst predictions, one a source and kind, so that a big table does not crowd out the others."""
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for one in done:
        for kind, error in (("memory", one.memory_error), ("time", one.time_error)):
            size = abs(error) if error is not None else 0.0
            place = (one.row["source"], kind)
            if error is not None and size > worst.get(place, (0.25, ""))[0]:
                factor = math.exp(error) if kind == "time" else 1 + error
                what = " ".join(
                    one.row[name] for name in ("model", "method", "gpu", "num_gpus", "parallelism")
                )
                worst[place] = (
                    size,
                    f"- {one.row['id']} ({kind}): {factor:.2f} of the measured value; {what}",
                )
    return [line for _, line in sorted(worst.values(), reverse=True)[:count]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=DATA)
    options = parser.parse_args()
    done = results(read(options.runs))
    for name, value in summary(done).items():
        print(f"- {name}: {value:.3g}")
    for title, key in KEYS.items():
        print("\n".join(["", *table(title, done, key)]))
    print("\n".join(misses(done)))


KEYS: dict[str, Callable[[Result], str]] = {
    "source": lambda r: r.row["source"],
    "method": lambda r: r.row["method"] if r.row["method"] in ("full", "lora", "qlora") else "other adapters",
    "GPU": lambda r: r.row["gpu"],
    "spread over": lambda r: r.estimate.run.setup.parallelism.kind,
}

if __name__ == "__main__":
    main()
