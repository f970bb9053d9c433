"""Fit the constants of the time model and report leave-one-source-out errors.

    python benchmarks/fit_throughput.py            # honest errors: each source predicted by a fit without it
    python benchmarks/fit_throughput.py --fit      # one fit on all sources, prints the constants
    python benchmarks/fit_throughput.py --more other_runs.csv --without a-source     # with a second table

Shipped constants are shown beside the left-out fits: a refit is worth shipping if those are better. Sources named by
--without stay out of every fit and are only predicted. A coordinate search on the macro-average over sources, pulled
towards physical priors, so that a constant moves only if several sources want it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from planner.backtest import OUTCOME_COLUMNS, Run, UnsupportedRunError, read_run
from planner.throughput import constants
from planner.throughput.estimate import estimate_step

DATA = Path(__file__).parent / "data" / "measured_runs.csv"
# Tables whose runs count as compared: those that the formula meets within its bar (ACCURACY.md).
COMPARED_TABLES = (DATA, DATA.with_name("further_runs.csv"), DATA.with_name("later_runs.csv"))
BAD = frozenset(
    {"variable_len", "extrapolated_from_throughput", "coarse", "range_midpoint", "inconsistent_in_source"}
)
PRIORS = {
    "matmul": 0.89, "few_tokens": 1.5, "narrow": 1.6, "fp8": 1.86, "attention_first": 0.55, "sdpa": 0.3,
    "attention_hopper": 7.0, "elementwise": 2.0, "compiled": 0.45, "loss_bytes": 40.0, "dequantise": 18.0,
    "launch_forward": 2.0, "launch_backward": 1.3, "link": 0.7,
    "overlap": 0.5, "fsdp_layer_s": 0.005, "fsdp_layer_native_s": 0.001, "fp32": 0.89,
}  # fmt: skip
PULL = 0.05  # penalty for a factor e away from the prior
Case = tuple[str, Run, float]


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def truth(row: dict[str, str]) -> float | None:
    """Tokens per second, also from hours and the data's tokens where every row is padded to one length."""
    rate = number(row["measured_tokens_per_s_total"])
    hours, tokens = number(row["measured_wall_clock_h"]), number(row["dataset_tokens"])
    if rate is None and row["source"] == "hf-run-glue" and hours and tokens:
        return tokens * (number(row["epochs"]) or 1.0) / hours / 3600
    return rate


def cases(tables: Iterable[Path] = (DATA,)) -> list[Case]:
    found = []
    for row in (
        row for table in tables for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    ):
        rate = truth(row)
        if rate is None or row["quality"] in BAD or row["is_moe"] == "true":
            continue
        if (number(row["num_nodes"]) or 1) > 1:
            continue
        try:
            run = read_run({k: v for k, v in row.items() if k not in OUTCOME_COLUMNS})
        except UnsupportedRunError:
            continue
        if run.speed_known:
            found.append((row["source"], run, rate))
    return found


def errors(data: list[Case]) -> dict[str, list[float]]:
    by_source = defaultdict(list)
    for source, run, rate in data:
        predicted = estimate_step(run.setup, run.cluster).tokens_per_s_total.p50
        by_source[source].append(math.log(predicted / rate))
    return by_source


def objective(data: list[Case]) -> float:
    sources = errors(data).values()
    fit = statistics.mean(statistics.mean(min(abs(e), 0.7) for e in one) for one in sources)
    moved = sum(abs(math.log(constants.TIME[name] / prior)) for name, prior in PRIORS.items())
    return fit + PULL * moved / 4


def fit(data: list[Case], rounds: int = 3) -> dict[str, float]:
    constants.TIME.update(PRIORS)
    best = objective(data)
    for scale in (1.35, 1.15, 1.06)[:rounds]:
        for name in PRIORS:
            for factor in (scale, 1 / scale):
                while True:
                    old = constants.TIME[name]
                    constants.TIME[name] = old * factor
                    score = objective(data)
                    if score >= best - 1e-5:
                        constants.TIME[name] = old
                        break
                    best = score
    return {name: constants.TIME[name] for name in PRIORS}


def summary(by_source: dict[str, list[float]]) -> dict[str, object]:
    medians = {s: math.exp(statistics.median(map(abs, e))) - 1 for s, e in by_source.items() if len(e) >= 3}
    return {
        "macro_median": round(statistics.mean(medians.values()), 3),
        "by_source": {s: [len(by_source[s]), round(m, 3)] for s, m in sorted(medians.items())},
    }


def left_out(data: list[Case], tests: frozenset[str] = frozenset()) -> dict[str, list[float]]:
    """Errors of every source with a fit on the others; sources of `tests` are in none."""
    held: dict[str, list[float]] = {}
    known = [case for case in data if case[0] not in tests]
    for source in sorted({s for s, _, _ in known}):
        fit([case for case in known if case[0] != source])
        held |= errors([case for case in data if case[0] == source])
    if tests:
        fit(known)
        held |= errors([case for case in data if case[0] in tests])
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--more", type=Path, action="append", default=[], help="a further table of runs")
    parser.add_argument("--without", action="append", default=[], help="a source that no fit sees")
    options = parser.parse_args()
    data, tests = cases([DATA, *options.more]), frozenset(options.without)
    print("shipped", json.dumps(summary(errors(data))))
    if options.fit:
        print(
            json.dumps({k: float(f"{v:.3g}") for k, v in fit([c for c in data if c[0] not in tests]).items()})
        )
        print("in sample", json.dumps(summary(errors(data))))
        return
    print("leave one source out", json.dumps(summary(left_out(data, tests))))


if __name__ == "__main__":
    main()
