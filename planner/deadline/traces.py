"""Records of real spot markets (`spot-traces-rle/1`), and jobs on them.

A trace file is JSON, gzipped or not, {"traces": [{"id", "campaign", "cloud", "zone", "gpu", "nodes", "gap_seconds",
"history_ticks", "od_price", "count_rle": [[machines up, ticks], ...], "spot_price_rle": [[USD per hour, ticks], ...] or
null}]}. A group of n machines is up when n are; records of half a minute are taken in blocks of nine, up only if up
throughout. A jobs file is CSV with the columns of `COLUMNS`; `traces` are ids of one tick length separated by `;`, one
for each region, and `start_tick` counts ticks of them (blocks, where they are taken in blocks).
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.deadline.models import FloatArray
from planner.deadline.replay import DeadlineJob, Market
from providers.errors import UsageError

#: Spot price over the on-demand price where a record has none: the mean of those that have one.
TYPICAL_SPOT = 0.318
COLUMNS = ("job_id", "traces", "start_tick", "work_h", "deadline_h", "restart_overhead_h")
#: May be left out; hours of the record before the start that the policy is shown.
HISTORY_COLUMN = "history_h"
_HALF_MINUTE_S, _BLOCK = 34, 9
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, eq=False)
class Trace:
    """One zone's record.

    Attributes:
        trace_id: Its name in the file.
        campaign: Records made together.
        gpu: As the file says it.
        nodes: Machines of a group.
        tick_s: Length of a tick.
        history_ticks: Ticks at the start that are meant as history.
        up: Whether the group is up, by tick.
        price: Spot price over the on-demand price, by tick.
        on_demand_usd_per_h: On-demand price; 1 where the file has none.
    """

    trace_id: str
    campaign: str
    gpu: str
    nodes: int
    tick_s: int
    history_ticks: int
    up: npt.NDArray[np.bool_]
    price: FloatArray
    on_demand_usd_per_h: float


@dataclass(frozen=True, eq=False)
class TracedJob:
    """A job on a part of some records.

    Attributes:
        job_id: Its name.
        job: What is to be done.
        market: The record from the job's start to its deadline.
        history: 0/1 capacity before the start by region; None if the policy is shown none.
    """

    job_id: str
    job: DeadlineJob
    market: Market
    history: list[npt.NDArray[np.int_]] | None


def load_traces(path: Path) -> list[Trace]:
    """All traces of a file.

    Raises:
        UsageError: It cannot be read or is of another form.
    """
    try:
        content = path.read_bytes()
        records = json.loads(gzip.decompress(content) if content.startswith(_GZIP) else content)["traces"]
        return [_trace(record) for record in records]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no trace file: {error}", hint="JSON of the form spot-traces-rle/1, gzipped or not"
        ) from error


def load_jobs(path: Path, traces: list[Trace]) -> Iterator[TracedJob]:
    """Jobs of a CSV file, in its order.

    Raises:
        UsageError: There is no job, or, with its line: a column is missing, a value is wrong, or a job does not lie
            within its traces.
    """
    known = {trace.trace_id: trace for trace in traces}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    hint = f"columns: {', '.join(COLUMNS)}, and if wanted {HISTORY_COLUMN}"
    if not rows:
        raise UsageError(f"{path} has no job", hint=hint)
    for line, row in enumerate(rows, 2):
        try:
            yield _job(row, known)
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}, line {line}: {_said(error)}", hint=hint) from error


def _said(error: Exception) -> str:
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)


def _trace(record: Mapping[str, Any]) -> Trace:
    need = 1 if record["cloud"] == "gcp" else record["nodes"]
    up: npt.NDArray[np.bool_] = np.asarray(_expanded(record["count_rle"]) >= need)
    rle, on_demand = record["spot_price_rle"], float(record["od_price"] or 1.0)
    price = _expanded(rle) / on_demand if rle else np.full(len(up), TYPICAL_SPOT)
    tick_s, history = record["gap_seconds"], record["history_ticks"]
    if tick_s <= _HALF_MINUTE_S:
        blocks = len(up) // _BLOCK
        up = np.asarray(up[: blocks * _BLOCK].reshape(blocks, _BLOCK).all(1))
        price = price[: blocks * _BLOCK].reshape(blocks, _BLOCK).mean(1)
        tick_s, history = tick_s * _BLOCK, history // _BLOCK
    return Trace(
        record["id"],
        record["campaign"],
        record["gpu"],
        record["nodes"],
        round(tick_s),
        history,
        up,
        price,
        on_demand,
    )


def _expanded(runs: list[list[float]]) -> FloatArray:
    return np.concatenate([np.full(ticks, value, float) for value, ticks in runs])


def _job(row: Mapping[str, str], known: Mapping[str, Trace]) -> TracedJob:
    zones = [known[name.strip()] for name in row["traces"].split(";")]
    tick_s, start = zones[0].tick_s, int(row["start_tick"])
    if any(zone.tick_s != tick_s for zone in zones):
        raise ValueError("its traces have ticks of different lengths")
    work_s, deadline_s, overhead_s = (_seconds(row, name) for name in COLUMNS[3:])
    seen = _seconds(row, HISTORY_COLUMN) // tick_s if row.get(HISTORY_COLUMN) else 0
    ticks, length = deadline_s // tick_s, min(len(zone.up) for zone in zones)
    if min(work_s, ticks) <= 0 or min(overhead_s, seen) < 0:
        raise ValueError("work and deadline must be positive, overhead and history not negative")
    if not 0 <= start <= length - ticks:
        raise ValueError(f"ticks {start} to {start + ticks} do not lie within its traces of {length}")
    on_demand = np.array([zone.on_demand_usd_per_h for zone in zones])
    up = np.stack([zone.up[start : start + ticks] for zone in zones], 1)
    price = np.stack([zone.price[start : start + ticks] for zone in zones], 1) * on_demand
    history = [zone.up[max(0, start - seen) : start].astype(int) for zone in zones] if seen else None
    job = DeadlineJob(work_s, overhead_s, deadline_s)
    return TracedJob(row["job_id"], job, Market(tick_s, up, price, on_demand), history)


def _seconds(row: Mapping[str, str], name: str) -> int:
    """A column in hours."""
    hours = float(row[name])
    if not math.isfinite(hours):
        raise ValueError(f"{name} is {row[name]}")
    return round(hours * 3600)
