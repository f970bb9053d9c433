"""`plan backtest`: predict published runs, to see how far the estimates can be trusted."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TextIO

import click

from planner.backtest import COLUMNS, Prediction, predictions
from planner.cli.output import echo_err
from planner.whole_file import whole_file
from providers.errors import UsageError

_EXAMPLE = """\b
Example:
  plan backtest benchmarks/data/measured_runs.csv --out predictions.csv
"""


_LONGEST_CELL = 2**31 - 1  # characters; remarks may be longer than csv's own 131,072


@click.command("backtest", epilog=_EXAMPLE, short_help="Predict published runs")
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="CSV file to write; stdout if not given.")
def command(runs: Path, out: Path | None) -> None:
    """Predict every run of a table: memory, verdict, step time and throughput, each with its interval.

    RUNS is a CSV file with the columns of benchmarks/data/README.md. Measured values and remarks are never
    read. A run that cannot be predicted keeps its row, with the reason.
    """
    answers = list(predictions(_rows(runs)))
    if out is None:
        _write(answers, sys.stdout)
    else:
        with whole_file(out) as beside, beside.open("w", encoding="utf-8", newline="") as stream:
            _write(answers, stream)
    refused = sum(1 for answer in answers if answer["unsupported_reason"])
    echo_err(f"{len(answers) - refused} of {len(answers)} runs predicted, {refused} with a reason why not")


def _rows(path: Path) -> list[dict[str, str]]:
    csv.field_size_limit(_LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            names = reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or []]
            rows = [{key: value for key, value in row.items() if key is not None} for row in reader]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a CSV file in UTF-8: {error}", path=str(path)) from error
    missing = [name for name in ("id", "model", "gpu") if name not in names]
    if missing:
        raise UsageError(
            f"{path} lacks the columns {', '.join(missing)}",
            hint="The columns are explained in benchmarks/data/README.md.",
            path=str(path),
        )
    return rows


def _write(answers: list[Prediction], stream: TextIO) -> None:
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(answers)
