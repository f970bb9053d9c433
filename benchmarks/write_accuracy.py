"""Write the figures of ACCURACY.md between its markers, so that the document says what the program does (40 s).

    python benchmarks/write_accuracy.py            # in sample and with each source left out
    python benchmarks/write_accuracy.py --in-sample  # only what the shipped constants give (2 s)

Blocks are `<!-- begin NAME -->` ... `<!-- end NAME -->`; text outside them is written by people.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import accuracy
import leave_one_out

DOCUMENT = Path(__file__).parents[1] / "ACCURACY.md"
# Name, words, bar, lower is better.
ROWS = (
    ("memory_macro_median", "Memory, macro median error", "10 %"),
    ("memory_p90", "Memory, 90th percentile of the error", "30 %"),
    ("memory_within_20", "Memory within 20 %", "75 % or more"),
    ("truth_above_upper", "Measured above our upper bound", "5 %"),
    ("time_macro_median", "Throughput of dense models, macro median error", "18 %"),
    ("time_p90", "Throughput, 90th percentile of the error", "50 %"),
    ("interval_coverage", "80 % interval covers, macro", "70-90 %"),
    ("interval_coverage_if_worse", "The same, were every error half as large again", "70-90 %"),
    ("interval_p90_over_p10", "Median p90 / p10 of the interval", "2.5"),
    ("verdict_right", "Verdict right", "80 % or more"),
    ("verdict_borderline", "Verdict borderline", "15 %"),
    ("false_alarms", "Runs that fitted and that we said would not", "5 %"),
)


def headline(shipped: dict[str, float], held: dict[str, float] | None, before: str) -> str:
    lines = ["| quantity | shipped constants | source left out | bar |", "|---|---|---|---|"]
    kept = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|", before, re.MULTILINE))
    for name, words, bar in ROWS:
        left = kept.get(words, "") if held is None else shown(name, held[name])
        lines.append(f"| {words} | {shown(name, shipped[name])} | {left} | {bar} |")
    missed = f"{shipped['oom_missed']:.0f} of {shipped['oom']:.0f}"
    left = kept.get("Out of memory, and we said it fits", "")
    if held is not None:
        left = f"{held['oom_missed']:.0f} of {held['oom']:.0f}"
    return "\n".join([*lines, f"| Out of memory, and we said it fits | {missed} | {left} | 1 in 19 |"])


def shown(name: str, value: float) -> str:
    return f"{value:.2f}" if name == "interval_p90_over_p10" else accuracy.percent(value)


def block(text: str, name: str) -> str:
    match = re.search(rf"<!-- begin {name} -->\n(.*?)<!-- end {name} -->", text, re.DOTALL)
    if match is None:
        raise SystemExit(f"ACCURACY.md has no block {name}")
    return match[1]


def replaced(text: str, name: str, content: str) -> str:
    old = block(text, name)
    mark = f"<!-- begin {name} -->\n"
    return text.replace(mark + old, mark + content.strip() + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--in-sample", action="store_true")
    only_shipped = parser.parse_args().in_sample
    text = DOCUMENT.read_text(encoding="utf-8")
    done = accuracy.results(accuracy.read(accuracy.DATA))
    tables = "\n".join(
        line for title, key in accuracy.KEYS.items() for line in accuracy.table(title, done, key)
    )
    text = replaced(replaced(text, "groups", tables), "misses", "\n".join(accuracy.misses(done)))
    held = None
    if not only_shipped:
        found = leave_one_out.held_out()
        held = leave_one_out.summary(found)
        text = replaced(text, "left-out", "\n".join(leave_one_out.table(found)))
    summary = accuracy.summary(done)
    text = replaced(text, "headline", headline(summary, held, block(text, "headline")))
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
