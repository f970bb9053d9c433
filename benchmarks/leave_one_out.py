"""Honest errors: every source predicted with constants fitted without it, memory and time, in one command (30 s).

    python benchmarks/leave_one_out.py

Fitted anew without the source: 17 constants of the time model and 7 of the allocator; its stacks and GPUs count as
never compared unless another source has them. Not undone: which terms the models have, and how wide each doubt is,
were chosen by people who had seen these runs. So a source that nobody here has seen does worse: coverage is shown
too as if every error were half as large again. "No fit at all" (the physical priors, no run used) bounds what the fit
contributes.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fit_memory
import fit_throughput
from accuracy import DATA, DOUBTFUL, WORSE, decided, percent, quantile, read

from planner.backtest import UnsupportedRunError, estimate_run
from planner.memory.constants import CONSTANTS
from planner.throughput import estimate_step
from planner.throughput.constants import COMPARED, TIME
from planner.throughput.doubts import covered_by
from planner.workload import micro_batch_tokens

GIB = 2**30


@dataclass
class Held:
    """Errors of one source that the fit did not see."""

    memory: list[float] = field(default_factory=list)
    above: list[bool] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    if_worse: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    verdicts: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def shipped_constants() -> Iterator[None]:
    """Put back what the fits change."""
    time, memory, compared = dict(TIME), dict(CONSTANTS), dict(COMPARED)
    try:
        yield
    finally:
        TIME.update(time)
        CONSTANTS.update(memory)
        COMPARED.clear()
        COMPARED.update(compared)


def held_out() -> dict[str, Held]:
    rows = [row for row in read(DATA) if row["quality"] not in DOUBTFUL]
    memory, time = fit_memory.memory_cases(rows), fit_throughput.cases()
    ran = fit_throughput.cases(fit_throughput.COMPARED_TABLES)
    found = {}
    with shipped_constants():
        for source in sorted({row["source"] for row in rows}):
            fit_memory.fit_memory([case for case in memory if case[0] != source])
            others = [case for case in time if case[0] != source]
            fit_throughput.fit(others)
            COMPARED.clear()
            COMPARED.update(compared([case for case in ran if case[0] != source]))
            held = predicted(source, rows, memory, time)
            if held.memory or held.time or held.verdicts:
                found[source] = held
    return found


def compared(cases: list[fit_throughput.Case]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Stack, GPU and method of these runs with the fewest and most tokens of a micro-batch.

    A loop of which nothing is known, timed as transformers, says nothing of transformers.
    """
    spans: dict[tuple[str, str, str], tuple[float, float]] = {}
    for _, run, _ in (case for case in cases if case[1].setup.framework != "other"):
        group, tokens = covered_by(run.setup, run.cluster.gpu), micro_batch_tokens(run.setup)
        fewest, most = spans.get(group, (tokens, tokens))
        spans[group] = min(fewest, tokens), max(most, tokens)
    return spans


def predicted(
    source: str, rows: list[dict[str, str]], memory: list[fit_memory.Case], time: list[fit_throughput.Case]
) -> Held:
    held = Held()
    for _, metric, run, truth in (case for case in memory if case[0] == source):
        held.memory.append(fit_memory.predicted_gib(metric, run) / truth - 1)
    for _, run, truth in (case for case in time if case[0] == source):
        rate = estimate_step(run.setup, run.cluster, run.doubts).tokens_per_s_total
        held.time.append(math.log(rate.p50 / truth))
        held.covered.append(rate.p10 <= truth <= rate.p90)
        held.if_worse.append(abs(held.time[-1]) * WORSE <= math.log(rate.p90 / rate.p50))
        held.widths.append(rate.p90 / rate.p10)
    for row in (row for row in rows if row["source"] == source):
        try:
            estimate = estimate_run(row).memory
        except UnsupportedRunError:
            continue
        gib = float(row["mem_gib_norm"]) if row["mem_gib_norm"] else None
        if gib is not None:
            held.above.append(gib > estimate.upper_bytes / GIB)
        verdict = decided(row, gib, estimate.verdict)
        if verdict:
            held.verdicts.append(verdict)
    return held


def median(values: list[float]) -> str:
    return percent(statistics.median(map(abs, values))) if values else ""


def share_of(values: list[bool]) -> float:
    return sum(values) / len(values)


def table(found: dict[str, Held]) -> Iterator[str]:
    yield "| source left out | memory n | median | above upper | time n | median | covered | if worse | p90/p10 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for source, held in found.items():
        memory = f"{len(held.memory)} | {median(held.memory)} | {sum(held.above) if held.memory else ''}"
        time = [math.exp(abs(error)) - 1 for error in held.time]
        rest = f"{len(time)} | {median(time)} | | | "
        if time:
            shares = f"{percent(share_of(held.covered))} | {percent(share_of(held.if_worse))}"
            rest = f"{len(time)} | {median(time)} | {shares} | {statistics.median(held.widths):.2f}"
        yield f"| {source} | {memory} | {rest} |"


def summary(found: dict[str, Held]) -> dict[str, float]:
    memory = [one for one in found.values() if len(one.memory) >= 3]
    time = [one for one in found.values() if len(one.time) >= 3]
    all_memory = [abs(error) for one in found.values() for error in one.memory]
    all_time = [abs(error) for one in found.values() for error in one.time]
    above = [value for one in found.values() for value in one.above]
    verdicts = [value for one in found.values() for value in one.verdicts]
    oom = [said for real, said in verdicts if real == "oom"]
    fits = [said for real, said in verdicts if real == "fits"]
    return {
        "memory_macro_median": statistics.mean(statistics.median(map(abs, one.memory)) for one in memory),
        "memory_p90": quantile(all_memory, 0.9),
        "memory_within_20": sum(error < 0.2 for error in all_memory) / len(all_memory),
        "truth_above_upper": sum(above) / len(above),
        "time_macro_median": math.exp(statistics.mean(statistics.median(map(abs, one.time)) for one in time))
        - 1,
        "time_p90": math.exp(quantile(all_time, 0.9)) - 1,
        "interval_coverage": statistics.mean(share_of(one.covered) for one in time),
        "interval_coverage_if_worse": statistics.mean(share_of(one.if_worse) for one in time),
        "interval_p90_over_p10": statistics.median(w for one in found.values() for w in one.widths),
        "verdict_right": (oom.count("oom") + fits.count("fits")) / len(verdicts),
        "verdict_borderline": (oom + fits).count("borderline") / len(verdicts),
        "oom_missed": float(oom.count("fits")),
        "oom": float(len(oom)),
        "false_alarms": fits.count("oom") / len(fits),
    }


def without_any_fit() -> float:
    """Macro median error of time where every constant is its physical prior."""
    with shipped_constants():
        TIME.update(fit_throughput.PRIORS)
        errors = fit_throughput.errors(fit_throughput.cases()).values()
    by_source = [statistics.median(map(abs, one)) for one in errors if len(one) >= 3]
    return math.exp(statistics.mean(by_source)) - 1


def main() -> None:
    found = held_out()
    print("\n".join(table(found)))
    print()
    for name, value in summary(found).items():
        print(f"- {name}: {value:.3g}")
    print(f"- time_macro_median, no fit at all: {without_any_fit():.3g}")


if __name__ == "__main__":
    main()
