"""Predicted against replayed: cost and finish of jobs that wait for spot in one zone of a recorded market.

    python benchmarks/spot_risk.py TRACES.json.gz [--jobs 20] [--seed 5]

Each job is predicted (`planner/preemption.py`) with hazards fitted without its campaign, at any time of the zone and
without a look at it, then run on the record. Told is how many jobs came out at or below the predicted p50 and p90, over
all jobs and by overhead; 0.5 and 0.9 would be perfect. Starts leave four times the work to the record's end. Of a job
that is not done by then only a lower bound is known, what it has billed and how long it has taken: it is above a
prediction that this exceeds, and open otherwise. Shares are told with the open ones as above, and in brackets as below.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from spot_policy import _fold, fit, load

from planner.deadline.baselines import RulePolicy
from planner.deadline.replay import DeadlineJob, Market, replay
from planner.deadline.traces import Trace
from planner.hazards import SpotHazards, from_record
from planner.preemption import Preemptions
from planner.risk import PLACE_DOUBT

WORK_H = (2.0, 8.0, 24.0, 48.0)
OVERHEADS_H = (0.05, 0.2, 0.5)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("--jobs", type=int, default=20, help="starts of each work on each zone")
    parser.add_argument("--doubt", type=float, default=PLACE_DOUBT, help="see planner/risk.py")
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    traces, rng = load(args.traces), np.random.default_rng(args.seed)
    hazards = {fold: hazards_without(traces, fold) for fold in sorted({_fold(t.campaign) for t in traces})}
    solved: dict[tuple[str, float], Preemptions] = {}
    inside: dict[str, list[tuple[bool, ...]]] = defaultdict(list)
    for trace in traces:
        for work_h in WORK_H:
            last = len(trace.up) - int(4 * work_h * 3600 / trace.tick_s)
            if last <= 0:
                continue
            for start in rng.choice(last, size=min(args.jobs, last), replace=False):
                for overhead_h in OVERHEADS_H:
                    key = (_fold(trace.campaign), overhead_h)
                    if key not in solved:
                        solved[key] = Preemptions(hazards[key[0]], overhead_h, 0.0, "any", args.doubt)
                    waste = solved[key].waste(work_h)
                    billed, finish, done = run(trace, int(start), work_h, overhead_h)
                    least, tick_h = work_h + overhead_h, trace.tick_s / 3600
                    reached = [
                        actual <= least + extra + tick_h  # whole ticks are billed
                        for actual, told in ((billed, waste.billed_h), (finish, waste.delay_h))
                        for extra in (told.p50, told.p90)
                    ]
                    hits = (*(done and hit for hit in reached), *reached)
                    for name in (
                        "all",
                        f"restart {overhead_h * 60:.0f} min",
                        f"{work_h:g} h",
                        _fold(trace.campaign),
                    ):
                        inside[name].append(hits)
    print(
        "| jobs | n | cost <= p50 | cost <= p90 | finish <= p50 | finish <= p90 |\n|---|---|---|---|---|---|"
    )
    for name, hits in inside.items():
        shares = np.mean(hits, axis=0)
        told = " | ".join(f"{low:.2f} ({high:.2f})" for low, high in zip(shares[:4], shares[4:], strict=True))
        print(f"| {name} | {len(hits)} | {told} |")


if __name__ == "__main__":
    main()
