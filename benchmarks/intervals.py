"""How often the 80 % interval of throughput holds, on all tables of published runs, each source left out.

    python benchmarks/intervals.py            # means over sources, table by table
    python benchmarks/intervals.py --sources  # and source by source

A source's stacks and GPUs count as never compared while its rows are predicted, unless another source has them. Its
errors are taken twice: as the shipped formula has them, which was mended with these tables in view, and at first sight,
as versions had them that had not seen the source (benchmarks/data/first_sight.csv: their predictions, and the commit
of this repository that made them; the calibration runs were in view from the start). The interval is the shipped one
both times. Sizes of the doubts were chosen on these figures.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from accuracy import DATA, Result, percent, read, results
from fit_throughput import COMPARED_TABLES, cases
from leave_one_out import compared, shipped_constants

from planner.stacks import stack_of
from planner.throughput.constants import COMPARED

TABLES = ("measured", "further", "later", "pages", "repositories", "documents", "threads", "reports")


class Held(NamedTuple):
    """One row: the logarithms of true / predicted, and of the interval's ends about the prediction."""

    source: str
    now: float
    first: float
    slower: float
    quicker: float


def first_predictions() -> dict[str, float]:
    with DATA.with_name("first_sight.csv").open(encoding="utf-8", newline="") as stream:
        return {row["id"]: float(row["predicted_tokens_per_s_total"]) for row in csv.DictReader(stream)}


def left_out(table: Path) -> Iterator[Held]:
    """Rows of a table, each source's by what the others say."""
    rows, ran, first = read(table), cases(COMPARED_TABLES), first_predictions()
    for source in sorted({row["source"] for row in rows}):
        with shipped_constants():
            COMPARED.clear()
            COMPARED.update(compared([case for case in ran if case[0] != source]))
            for done in results(row for row in rows if row["source"] == source):
                if done.time_error is not None:
                    yield held(done, first.get(done.row["id"]))


def held(done: Result, first: float | None) -> Held:
    step = done.estimate.step
    assert step is not None and done.time_error is not None
    at_first = -done.time_error
    if first is not None:
        slowdown = stack_of(done.estimate.run.setup.framework).slowdown  # no version before had one
        at_first = math.log(float(done.row["measured_tokens_per_s_total"]) / first * slowdown)
    return Held(done.row["source"], -done.time_error, at_first, math.log(step.spread), math.log(step.quicker))


def covered(error: float, row: Held) -> bool:
    return -row.slower <= error <= row.quicker


def shares(rows: list[Held]) -> tuple[float, float]:
    return (
        statistics.mean(covered(row.first, row) for row in rows),
        statistics.mean(covered(row.now, row) for row in rows),
    )


def width(rows: list[Held]) -> float:
    return math.exp(statistics.median(row.slower + row.quicker for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sources", action="store_true")
    by_source = parser.parse_args().sources
    print(
        "| table | sources | covered at first sight | covered now | median p90/p10 |\n|---|---|---|---|---|"
    )
    for name in TABLES:
        rows = list(left_out(DATA.with_name(f"{name}_runs.csv")))
        groups: dict[str, list[Held]] = defaultdict(list)
        for row in rows:
            groups[row.source].append(row)
        each = [shares(group) for group in groups.values() if len(group) >= 3]
        first, now = (percent(statistics.mean(values)) for values in zip(*each, strict=True))
        print(f"| {name} | {len(each)} | {first} | {now} | {width(rows):.2f} |")
        for source, group in groups.items() if by_source else ():
            at_first, today = (percent(share) for share in shares(group))
            print(f"| - {source} | {len(group)} rows | {at_first} | {today} | {width(group):.2f} |")


if __name__ == "__main__":
    main()
