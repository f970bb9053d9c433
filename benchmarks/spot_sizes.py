"""How much more often large machines and groups of machines are lost: exponents of the rate, from spot records.

    python benchmarks/spot_sizes.py TRACES.json.gz [--write]

Rates are taken to grow as (GPUs of a machine)^a and (machines of a group)^b. Each exponent is measured within a zone
and a campaign: endings of the large over endings expected of it at the ages it had, divided by the same of the small.
A campaign is one observation, whatever its zones, and the mean of campaigns is shrunk towards no effect, because
there are few: a prior of none with a standard deviation of `_PRIOR_SD`, and campaigns that scatter by `_CAMPAIGN_SD`
(both assumed). `--write` puts what all campaigns say into planner/data/spot_models.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from spot_policy import AGE_EDGES_H, OUT, _fold, exposure, load

from planner.deadline.traces import Trace
from planner.spot_sizes import Sizes

_AGES = len(AGE_EDGES_H)
#: Exponents: a third is a factor of two between 1 and 8, a fifth one of 1.5.
_PRIOR_SD, _CAMPAIGN_SD = 1 / 3, 1 / 5
_SIZES = (2, 4, 8, 16)
#: Endings on each side without which a zone says nothing.
_LEAST_ENDINGS = 8


class Measured(NamedTuple):
    """Sizes, and what each campaign said by itself.

    Attributes:
        sizes: Shrunk.
        gpus: Exponent of the GPUs of a machine, by fold.
        machines: The same of the machines of a group.
    """

    sizes: Sizes
    gpus: Mapping[str, float]
    machines: Mapping[str, float]


def measured(path: Path, without: str | None = None) -> Measured:
    """Measured on all campaigns of a trace file but one fold."""
    traces = [trace for trace in load(path) if _fold(trace.campaign) != without]
    ones = [trace for trace in traces if trace.gpu.endswith("_1") and needed(trace) == 1]
    pairs = [exposure(trace.up, trace.tick_s / 3600) for trace in ones]
    ends, hours = (sum(pair[i].sum(0)[_AGES:] for pair in pairs) for i in (1, 0))
    usual = ends / hours
    by_gpus = _by_gpus(traces, usual)
    by_machines = _by_machines(path, without, usual)
    gpus, gpus_sd = _shrunk(by_gpus)
    machines, machines_sd = _shrunk(by_machines)
    gpus_of = [math.log(int(trace.gpu.rpartition("_")[2])) for trace in traces]
    reference = math.exp(np.mean(gpus_of))
    return Measured(Sizes(gpus, gpus_sd, reference, machines, machines_sd), by_gpus, by_machines)


def needed(trace: Trace) -> int:
    """Machines that must be up: the Google Cloud records count 16 and are read as of one."""
    return 1 if trace.campaign.startswith("gcp") else trace.nodes


def _over_usual(up: np.ndarray, tick_h: float, usual: np.ndarray) -> tuple[float, float]:
    """Endings of up spells, and as many as were usual at their ages."""
    hours, ends = (one.sum(0)[_AGES:] for one in exposure(up, tick_h))
    return float(ends.sum()), float((hours * usual).sum())


def _by_gpus(traces: list[Trace], usual: np.ndarray) -> dict[str, float]:
    """Mean exponent of the zones that have one and eight GPUs, by fold."""
    known = {(t.campaign, t.trace_id.rpartition("_")[0]): t for t in traces if t.gpu.endswith("_1")}
    found: dict[str, list[float]] = defaultdict(list)
    for large in (trace for trace in traces if trace.gpu.endswith("_8")):
        small = known.get((large.campaign, large.trace_id.rpartition("_")[0]))
        if small is not None:
            sides = [_over_usual(one.up, one.tick_s / 3600, usual) for one in (large, small)]
            if min(ended for ended, _ in sides) >= _LEAST_ENDINGS:
                (a, b), (c, d) = sides
                found[_fold(large.campaign)].append(math.log(a / b / (c / d)) / math.log(8))
    return {fold: float(np.mean(values)) for fold, values in found.items()}


def _by_machines(path: Path, without: str | None, usual: np.ndarray) -> dict[str, float]:
    """Mean exponent of the zones in which several machines were counted, by fold."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in counted(path):
        fold = _fold(record["campaign"])
        if fold == without:
            continue
        tick_h = record["gap_seconds"] / 3600
        count = count_of(record)
        logs = []
        one, usual_one = _over_usual(count >= 1, tick_h, usual)
        for size in (size for size in _SIZES if size <= count.max()):
            ended, expected = _over_usual(count >= size, tick_h, usual)
            if min(ended, one) >= _LEAST_ENDINGS:
                logs.append((math.log(size), math.log(ended / expected / (one / usual_one))))
        if logs:
            found[fold].append(sum(x * y for x, y in logs) / sum(x * x for x, _ in logs))
    return {fold: float(np.mean(values)) for fold, values in found.items()}


def counted(path: Path) -> list[dict[str, Any]]:
    """Records that count several machines."""
    records = json.loads(gzip.decompress(path.read_bytes()))["traces"]
    return [row for row in records if max(count for count, _ in row["count_rle"]) > 1]


def count_of(record: dict[str, Any]) -> np.ndarray:
    """Machines up, by tick."""
    return np.repeat([count for count, _ in record["count_rle"]], [ticks for _, ticks in record["count_rle"]])


def _shrunk(by_fold: Mapping[str, float]) -> tuple[float, float]:
    """Posterior mean and standard deviation; without a campaign the prior's."""
    precision = 1 / _PRIOR_SD**2 + len(by_fold) / _CAMPAIGN_SD**2
    return sum(by_fold.values()) / _CAMPAIGN_SD**2 / precision, 1 / math.sqrt(precision)


def write(found: Sizes) -> None:
    record = json.loads(OUT.read_text(encoding="utf-8"))
    record["sizes"] = {name: round(value, 3) for name, value in found._asdict().items()}
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _told(by_fold: Mapping[str, float]) -> str:
    return ", ".join(f"{fold} {value:.2f}" for fold, value in by_fold.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("--write", action="store_true", help="keep what all campaigns say")
    args = parser.parse_args()
    for without in (None, *sorted({_fold(trace.campaign) for trace in load(args.traces)})):
        (gpus, gpus_sd, reference, machines, machines_sd), by_gpus, by_machines = measured(
            args.traces, without
        )
        print(f"without {without}" if without else "all campaigns")
        print(f"  GPUs of a machine    {gpus:.3f} +- {gpus_sd:.3f}, over {reference:.2f} ({_told(by_gpus)})")
        print(f"  machines of a group  {machines:.3f} +- {machines_sd:.3f} ({_told(by_machines)})")
    if args.write:
        write(measured(args.traces).sizes)


if __name__ == "__main__":
    main()
