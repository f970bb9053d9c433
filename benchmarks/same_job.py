"""What a probe of the same job is worth: published runs that were measured twice, the first taken as the probe.

    python benchmarks/same_job.py

Rows of one source that state the same of everything are one job. The first calibrates the formula as a probe does
(`planner.calibration`, with its shrinkage), the others are predicted with and without it. Some tables repeat a label
for jobs that differ in something they do not say, so this is an upper bound of the error.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

from accuracy import DATA, dense_with_known_tokens, percent, read
from fit_throughput import number

from planner.backtest import OUTCOME_COLUMNS, UnsupportedRunError, estimate_run
from planner.calibration import Calibration, Observation, log_sd

#: Columns that name a row or its source's remarks, and no part of the job.
ASIDE = OUTCOME_COLUMNS | {"id", "source_locator", "mem_metric", "mem_unit", "dup_group", "date"}
GROUPS = {"stack": "s", "gpu": "g", "class": "c", "place": "cloud", "model": "m", "job": "j"}


def repeated() -> list[list[dict[str, str]]]:
    """Rows of the same job, at least two."""
    jobs = defaultdict(list)
    for row in read(DATA):
        if number(row["measured_tokens_per_s_total"]) and dense_with_known_tokens(row):
            jobs[tuple(value for name, value in row.items() if name not in ASIDE)].append(row)
    return [rows for rows in jobs.values() if len(rows) > 1]


def errors() -> dict[str, list[tuple[float, float]]]:
    """Source -> (error of the formula, error after the probe) as |log|, for each row after the first."""
    found = defaultdict(list)
    for rows in repeated():
        try:
            step = estimate_run(rows[0]).step
        except UnsupportedRunError:
            continue
        if step is None:
            continue
        off = [math.log(step.tokens_per_s_total.p50 / float(r["measured_tokens_per_s_total"])) for r in rows]
        probe = Calibration((Observation("probe", GROUPS, {"step_time": off[0]}),))
        learned = math.log(probe.correction("step_time", GROUPS, log_sd(step.step_time_s)).factor)
        found[rows[0]["source"]] += [(abs(one), abs(one - learned)) for one in off[1:]]
    return found


def main() -> None:
    found = errors()
    print("| source | runs | formula | after a probe of the same job |\n|---|---|---|---|")
    for source, pairs in sorted(found.items()):
        before, after = (math.exp(statistics.median(values)) - 1 for values in zip(*pairs, strict=True))
        print(f"| {source} | {len(pairs)} | {percent(before)} | {percent(after)} |")
    medians = [statistics.median(after for _, after in pairs) for pairs in found.values()]
    print(f"| macro | | | {percent(math.exp(statistics.mean(medians)) - 1)} |")


if __name__ == "__main__":
    main()
