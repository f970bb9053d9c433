"""What the factor of losses does to the deadline policy, on records of real spot markets.

    python benchmarks/spot_losses.py TRACES.json.gz single|multi [--jobs 1] [--history-h 0] [--factors 0.5,2]
        [--kept SHARE] [--told] [--every 1]
    python benchmarks/spot_losses.py TRACES.json.gz large|groups [--jobs 4] [--history-h 0]

With `single` and `multi` every job of `spot_policy.py` is replayed without a factor and with each of some, whatever the
record is like: what a wrong one costs, with the standard error of the difference. `--kept 0.5` changes the truth: of
the times that the record has no more machines, one that runs is kept through half, drawn by spell; there is no optimum
to compare with then, and the cost over that without a factor is told. `--told` adds a way that knows how often each
zone loses machines over its whole record, which nobody can: what signals could bring at best. `large` replays machines
of eight GPUs, `groups` groups of 4, 8 and 16 machines, with the factor of their size against none. Models and sizes
have seen no trace of the job's campaign. `--every` should be no multiple of 3, the overheads that take turns.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from spot_policy import AGE_EDGES_H, _fold, as_case, exposure, fit, jobs, load, policy_of
from spot_risk import _LEAST_UP, GROUPS
from spot_sizes import _over_usual, count_of, counted, measured

from planner.deadline import DeadlinePolicy
from planner.deadline.models import SpotModels
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.replay import Outcome, replay
from planner.deadline.traces import Trace


def drawn_kept(up: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Where one's own machine is kept: while there are machines, and through a share of the spells without."""
    kept = up.astype(bool).copy()
    for region in range(up.shape[1]):
        edges = np.flatnonzero(np.diff(up[:, region].astype(int))) + 1
        for first, last in zip([0, *edges], [*edges, len(up)], strict=True):
            if not up[first, region] and rng.random() < share:
                kept[first:last, region] = True
    return kept


class OwnKept:
    """A policy on a market in which its own machine is kept through some of the times that have no more machines."""

    def __init__(self, policy: DeadlinePolicy, up: np.ndarray) -> None:
        """`up`: whether there are machines to be had, [tick, region]."""
        self._policy, self._ticks = policy, iter(up.astype(bool).tolist())

    def decide(self, elapsed_h, work_h, available, spot_usd_per_h, current, left_h):
        """`available` tells what is kept: only the region that it is in has that."""
        seen = next(self._ticks)
        if current is not None and current.market == "spot":
            seen[current.region] = True
        choice = self._policy.decide(elapsed_h, work_h, seen, spot_usd_per_h, current, left_h)
        return None if choice is not None and choice.market == "spot" and not seen[choice.region] else choice


def costs(
    job: tuple,
    models: SpotModels,
    factors: list[list[float]],
    args: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[list[Outcome], float]:
    """The job with each factor, and the optimum's cost."""
    case, market, history = as_case(job, args.history_h)
    kept = replace(market, up=drawn_kept(market.up, args.kept, rng))
    policies = [policy_of(case, market, history, models, losses) for losses in factors]
    outcomes = [replay(case, kept, OwnKept(policy, market.up)) for policy in policies]
    return outcomes, 0.0 if args.kept else omniscient_cost_usd(case, market)


def told(up: np.ndarray, tick_h: float, usual: np.ndarray) -> list[float]:
    """How many times as often as usual at their ages the spells of each region end; two endings more of the usual."""
    sides = [_over_usual(one, tick_h, usual) for one in up.T]
    return [(ended + 2) / (expected + 2) for ended, expected in sides]


def usual_without(traces: list[Trace], fold: str) -> np.ndarray:
    """Endings of up spells per hour by age, in all other campaigns."""
    pairs = [exposure(one.up, one.tick_s / 3600) for one in traces if _fold(one.campaign) != fold]
    hours, ends = (sum(pair[i].sum(0)[len(AGE_EDGES_H) :] for pair in pairs) for i in (0, 1))
    return ends / hours


def sized(path: Path, traces: list[Trace], mode: str) -> Iterator[tuple[Trace, int, int]]:
    """Records of large machines or of groups, with the machines and GPUs of each."""
    by_id = {trace.trace_id: trace for trace in traces}
    if mode == "large":
        yield from ((trace, 1, 8) for trace in traces if trace.gpu.endswith("_8"))
        return
    for record in counted(path):
        for machines in GROUPS:
            up = count_of(record) >= machines
            if up.mean() >= _LEAST_UP:
                yield replace(by_id[record["id"]], up=up), machines, 1


def asked(
    args: argparse.Namespace, traces: list[Trace]
) -> tuple[list[str], list[tuple[tuple, list[list[float]], str]]]:
    """Names of the ways, the first of which is without a factor, and the jobs with the regions' factors in each."""
    folds = {_fold(trace.campaign) for trace in traces}
    if args.mode in ("single", "multi"):
        factors = [1.0, *(float(one) for one in args.factors.split(",") if one)]
        usual = {fold: usual_without(traces, fold) for fold in folds}
        todo = []
        for job in jobs(traces, args.mode, args.jobs, args.seed):
            campaign, _, _, tick_s, up, _, _ = job
            own = [told(up, tick_s / 3600, usual[_fold(campaign)])] if args.told else []
            todo.append((job, [*([factor] * up.shape[1] for factor in factors), *own], "all"))
        return [*(f"x {factor:g}" for factor in factors), *(["told"] if args.told else [])], todo
    sizes = {fold: measured(args.traces, fold).sizes for fold in folds}
    return ["x 1", "by its size"], [
        (job, [[1.0], [sizes[_fold(trace.campaign)].factor(machines, gpus)]], f"{machines} x {gpus}")
        for trace, machines, gpus in sized(args.traces, traces, args.mode)
        for job in jobs([trace], "single", args.jobs, args.seed)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", type=Path)
    parser.add_argument("mode", choices=["single", "multi", "large", "groups"])
    parser.add_argument("--jobs", type=int, default=1, help="jobs a cell")
    parser.add_argument("--history-h", type=float, default=0.0)
    parser.add_argument("--factors", default="0.5,2")
    parser.add_argument("--kept", type=float, default=0.0, help="share of losses that spare a machine")
    parser.add_argument("--told", action="store_true", help="a way that knows each zone's losses")
    parser.add_argument("--every", type=int, default=1, help="of so many jobs one is replayed")
    parser.add_argument("--seed", type=int, default=23)
    args = parser.parse_args()
    traces = load(args.traces)
    folds = sorted({_fold(trace.campaign) for trace in traces})
    models = {fold: fit([t for t in traces if _fold(t.campaign) != fold]) for fold in folds}
    late, rng = 0, np.random.default_rng(args.seed)
    paid: dict[str, list[list[float]]] = defaultdict(list)
    names, todo = asked(args, traces)
    for job, factors, kind in todo[:: args.every]:
        outcomes, best_usd = costs(job, models[_fold(job[0])], factors, args, rng)
        row = [best_usd or outcomes[0].cost_usd, *(one.cost_usd for one in outcomes)]
        cell = f"{job[1][0]} h in {job[1][1]} h"
        for key in {"all", kind, _fold(job[0]), cell, f"restart {job[2] * 60:.0f} min"}:
            paid[key].append(row)
        late += sum(one.late for one in outcomes)
    print(f"{args.mode}, {args.history_h:g} h of history, kept {args.kept:g}: {late} late\n")
    print("| cost / " + ("factor 1" if args.kept else "omniscient"), "jobs", *names, sep=" | ", end=" |\n")
    print("|---" * (len(names) + 2) + "|")
    for key, rows in sorted(paid.items(), key=lambda item: (not item[0].startswith("all"), item[0])):
        best, *ways = np.array(rows).T
        doubts = [len(rows) ** 0.5 * (way - ways[0]).std() / best.sum() for way in ways]
        told = [
            f"{way.sum() / best.sum():.4f} +- {doubt:.4f}" for way, doubt in zip(ways, doubts, strict=True)
        ]
        print(f"| {key} | {len(rows)} |", " | ".join(told), "|")


if __name__ == "__main__":
    main()
