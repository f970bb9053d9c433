"""Predicted against replayed: cost and finish of jobs that wait for spot in one zone of a recorded market.

    python benchmarks/spot_risk.py TRACES.json.gz [--jobs 20] [--seed 5] [--one-size] [--groups]

Each job is predicted (`planner/preemption.py`) with hazards fitted, and effects of size measured (`spot_sizes.py`),
without its campaign and without a look at the zone, then run on the record from a time that has a machine, as estimates
assume of the first start. Told is how many jobs came out at or below the predicted p50 and p90, over all jobs, by
overhead and by size of the machines; 0.5 and 0.9 would be perfect. Starts leave four times the work to the record's
end. Of a job that is not done by then only a lower bound is known, what it has billed and how long it has taken: it is
above a prediction that this exceeds, and open otherwise. Shares are told with the open ones as above, and in brackets
as below. `--one-size` predicts as if all machines were lost alike. `--groups` replays groups of 4, 8 and 16 machines
instead, where records count so many.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from spot_policy import _fold, fit, load
from spot_sizes import count_of, counted, measured, needed

from planner.deadline.baselines import RulePolicy
from planner.deadline.replay import DeadlineJob, Market, replay
from planner.deadline.traces import Trace
from planner.hazards import SpotHazards, from_record
from planner.preemption import Preemptions
from planner.risk import PLACE_DOUBT
from planner.spot_sizes import Sizes

WORK_H = (2.0, 8.0, 24.0, 48.0)
OVERHEADS_H = (0.05, 0.2, 0.5)
GROUPS = (4, 8, 16)
#: A group that is had more rarely is left out: hardly a job of it would be done.
_LEAST_UP = 0.05


class Zone(NamedTuple):
    """A record, and the machines that must be up in it."""

    trace: Trace
    machines: int
    gpus: int

    @property
    def size(self) -> str:
        if self.machines > 1:
            return f"{self.machines} machines"
        return f"{self.gpus} GPU{'s' if self.gpus > 1 else ''} a machine"


def single_zones(traces: list[Trace]) -> Iterator[Zone]:
    for trace in traces:
        yield Zone(trace, needed(trace), int(trace.gpu.rpartition("_")[2]))


def group_zones(path: Path, traces: list[Trace]) -> Iterator[Zone]:
    by_id = {trace.trace_id: trace for trace in traces}
    for record in counted(path):
        count, trace = count_of(record), by_id[record["id"]]
        for machines in GROUPS:
            up = count >= machines
            if up.mean() >= _LEAST_UP:
                yield Zone(replace(trace, up=up), machines, int(trace.gpu.rpartition("_")[2]))


def hazards_without(traces: list[Trace], fold: str) -> SpotHazards:
    models = fit([trace for trace in traces if _fold(trace.campaign) != fold])
    names = ("hazard_per_h", "weight", "age_edges_h")
    return from_record({name: getattr(models, name).tolist() for name in names})


def run(trace: Trace, start: int, work_h: float, overhead_h: float) -> tuple[float, float, bool]:
    """Billed hours, hours to the result, and whether it was done; until the record's end if it was not."""
    left = len(trace.up) - start
    job = DeadlineJob(round(work_h * 3600), round(overhead_h * 3600), left * trace.tick_s)
    up = trace.up[start:, None]
    market = Market(trace.tick_s, up, np.ones(up.shape), np.array([1e9]))
    # the deadline is the record's end and never presses before: spot, else wait
    outcome = replay(job, market, RulePolicy("greedy", job, trace.tick_s))
    done = not outcome.late and outcome.on_demand_s == 0
    return outcome.spot_s / 3600, outcome.finish_s / 3600, done


def judged(zones: list[Zone], args: argparse.Namespace) -> dict[str, list[tuple[bool, ...]]]:
    """By kind of job: whether cost and finish are within p50 and p90, open ones as above, then as below."""
    rng, traces = np.random.default_rng(args.seed), load(args.traces)
    folds = sorted({_fold(zone.trace.campaign) for zone in zones})
    hazards = {fold: hazards_without(traces, fold) for fold in folds}
    sizes = {fold: Sizes() if args.one_size else measured(args.traces, fold).sizes for fold in folds}
    solved: dict[tuple[str, float, float], Preemptions] = {}
    inside: dict[str, list[tuple[bool, ...]]] = defaultdict(list)
    for zone in zones:
        trace, fold = zone.trace, _fold(zone.trace.campaign)
        factor = sizes[fold].factor(zone.machines, zone.gpus)
        for work_h in WORK_H:
            last = len(trace.up) - int(4 * work_h * 3600 / trace.tick_s)
            if last <= 0:
                continue
            starts = np.flatnonzero(trace.up[:last])
            for start in rng.choice(starts, size=min(args.jobs, len(starts)), replace=False):
                for overhead_h in OVERHEADS_H:
                    key = (fold, overhead_h, factor)
                    if key not in solved:
                        lost = hazards[fold].times(factor)
                        solved[key] = Preemptions(lost, overhead_h, 0.0, args.doubt)
                    hits = _hits(solved[key], trace, int(start), work_h, overhead_h)
                    names = ("all", f"restart {overhead_h * 60:.0f} min", f"{work_h:g} h", fold, zone.size)
                    for name in names:
                        inside[name].append(hits)
    return inside


def _hits(
    solved: Preemptions, trace: Trace, start: int, work_h: float, overhead_h: float
) -> tuple[bool, ...]:
    waste = solved.waste(work_h)
    billed, finish, done = run(trace, start, work_h, overhead_h)
    least, tick_h = work_h + overhead_h, trace.tick_s / 3600
    reached = [
        actual <= least + extra + tick_h  # whole ticks are billed
        for actual, told in ((billed, waste.billed_h), (finish, waste.delay_h))
        for extra in (told.p50, told.p90)
    ]
    return (*(done and hit for hit in reached), *reached)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("--jobs", type=int, default=20, help="starts of each work on each zone")
    parser.add_argument("--doubt", type=float, default=PLACE_DOUBT, help="see planner/risk.py")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--one-size", action="store_true", help="no effect of the machines' size")
    parser.add_argument("--groups", action="store_true", help="groups of machines instead")
    args = parser.parse_args()
    traces = load(args.traces)
    inside = judged(list(group_zones(args.traces, traces) if args.groups else single_zones(traces)), args)
    print(
        "| jobs | n | cost <= p50 | cost <= p90 | finish <= p50 | finish <= p90 |\n|---|---|---|---|---|---|"
    )
    for name, hits in inside.items():
        shares = np.mean(hits, axis=0)
        told = " | ".join(f"{low:.2f} ({high:.2f})" for low, high in zip(shares[:4], shares[4:], strict=True))
        print(f"| {name} | {len(hits)} | {told} |")


if __name__ == "__main__":
    main()
