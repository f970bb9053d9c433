"""The deadline policy on records of real spot markets: fit its models, and measure it against the exact optimum.

    python benchmarks/spot_policy.py score TRACES.json.gz single|multi [--jobs 2] [--history-h 0] [--shipped]
        [--foresight]
    python benchmarks/spot_policy.py fit TRACES.json.gz

`score` leaves one campaign out: the models that a job is replayed with have seen no trace of its campaign. With
`--shipped` it uses the models in planner/data instead. With `--foresight` our policy knows for how many of the next
hours each region's spot really lasts, which nobody can: what not knowing the events costs. `fit` writes the models from
all traces. `planner/deadline/traces.py` says what a trace file is.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from planner.deadline import DeadlinePolicy, Placement
from planner.deadline.baselines import RulePolicy
from planner.deadline.belief import ZoneBeliefs
from planner.deadline.models import SpotModels, shipped_models
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.replay import DeadlineJob, Market, merged, replay
from planner.deadline.traces import Trace, load_traces

CELLS_H = [(48, 52), (48, 60), (48, 72), (48, 92), (8, 9), (8, 10), (8, 12), (8, 16)]
OVERHEADS_H = (0.05, 0.2, 0.5)
AGE_EDGES_H = np.array([0, 1 / 6, 1 / 3, 2 / 3, 1, 2, 4, 8, 24])
MODELS, WINDOW_H = 6, 24
OUT = Path(__file__).parent.parent / "planner" / "data" / "spot_models.json"
#: Time resolution in seconds by tick, so that tick, work and overhead are whole numbers of it.
UNIT_S = {600: 60, 300: 60, 288: 36, 195: 39, 306: 34}


def load(path: Path) -> list[Trace]:
    return [trace for trace in load_traces(path) if "intel" not in trace.gpu and "c3" not in trace.gpu]


# ------------------------------------------------------------------ fit


def exposure(up: np.ndarray, tick_h: float) -> tuple[np.ndarray, np.ndarray]:
    """Hours in, and ends of, each state and age, by window: two arrays [window, 2 x ages]."""
    per, ages = int(WINDOW_H / tick_h), len(AGE_EDGES_H)
    hours = np.zeros((len(up) // per + 1, 2 * ages))
    ends = np.zeros_like(hours)
    age_h = 0.0
    for k in range(1, len(up)):
        cell = ages * int(up[k - 1]) + int(np.searchsorted(AGE_EDGES_H, age_h + 1e-9, side="right")) - 1
        hours[k // per, cell] += tick_h
        ended = up[k] != up[k - 1]
        ends[k // per, cell] += ended
        age_h = 0.0 if ended else age_h + tick_h
    return hours, ends


def fit(traces: list[Trace], starts: int = 6, rounds: int = 150) -> SpotModels:
    """Mixture of piecewise-constant hazards by expectation maximisation; each window of a day follows one model."""
    pairs = [exposure(trace.up, trace.tick_s / 3600) for trace in traces]
    hours, ends = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    full = hours.sum(1) > WINDOW_H / 2
    hours, ends = hours[full], ends[full]
    pooled = (ends.sum(0) + 0.5) / (hours.sum(0) + 0.5)
    rng, best = np.random.default_rng(0), (-math.inf, pooled, pooled)
    for _ in range(starts):
        rates = pooled * np.exp(rng.normal(0, 1, (MODELS, len(pooled))))
        weight = np.full(MODELS, 1 / MODELS)
        total = -math.inf
        for _ in range(rounds):
            score = ends @ np.log(rates).T - hours @ rates.T + np.log(weight)
            top = score.max(1, keepdims=True)
            share = np.exp(score - top)
            total = float((top[:, 0] + np.log(share.sum(1))).sum())
            share /= share.sum(1, keepdims=True)
            weight = (share.sum(0) + 0.5) / (share.sum() + 0.5 * MODELS)
            rates = (share.T @ ends + pooled / pooled.mean()) / (share.T @ hours + 1 / pooled.mean())
        if total > best[0]:
            best = (total, rates, weight)
    return SpotModels(best[1].reshape(MODELS, 2, -1), best[2], AGE_EDGES_H)


def write(models: SpotModels, traces: list[Trace]) -> None:
    campaigns = sorted({trace.campaign for trace in traces})
    kept = json.loads(OUT.read_text(encoding="utf-8"))["sizes"]  # of benchmarks/spot_sizes.py
    record = {
        "what": "Rates per hour at which a spell of spot capacity ends: [model][0 down, 1 up][age bucket]",
        "source": f"benchmarks/spot_policy.py fit, {len(traces)} zones of public GPU spot records: "
        + ", ".join(campaigns),
        "age_edges_h": [round(float(edge), 6) for edge in models.age_edges_h],
        "weight": [round(float(weight), 5) for weight in models.weight],
        "hazard_per_h": [
            [[float(f"{rate:.4g}") for rate in row] for row in model] for model in models.hazard_per_h
        ],
        "sizes": kept,
    }
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# ------------------------------------------------------------------ score


def jobs(traces: list[Trace], mode: str, count: int, seed: int) -> Iterator[tuple]:
    """Random starts of every cell on every zone (single) or on every campaign's zones together (multi)."""
    rng = np.random.default_rng(seed)
    groups: dict = defaultdict(list)
    for index, trace in enumerate(traces):
        groups[(trace.campaign, trace.gpu, trace.nodes) if mode == "multi" else index].append(trace)
    for zones in groups.values():
        if mode == "multi" and len(zones) < 2:
            continue
        zones = zones[:7]
        tick_s, length = zones[0].tick_s, min(len(zone.up) for zone in zones)
        up = np.stack([zone.up[:length] for zone in zones], 1)
        price = np.stack([zone.price[:length] for zone in zones], 1)
        for work_h, deadline_h in CELLS_H:
            ticks = int(deadline_h * 3600 / tick_s + 1e-9)
            low = max(max(zone.history_ticks for zone in zones), int(48 * 3600 / tick_s))
            high = length - ticks - 1
            if high <= low:
                continue
            starts = sorted(rng.choice(np.arange(low, high), size=min(count, high - low), replace=False))
            for overhead_h in OVERHEADS_H:
                for start in starts:
                    yield zones[0].campaign, (work_h, deadline_h), overhead_h, tick_s, up, price, int(start)


class Foreseen(ZoneBeliefs):
    """Knows how long the spell of each region that is up really lasts."""

    def __init__(self, models: SpotModels, market: Market) -> None:
        super().__init__(models, market.tick_s / 3600, market.up.shape[1])
        self._up_in, self._tick = market.up, -1

    def survival(self, horizon_h: float) -> list[float]:
        """Share of the horizon that each lasts."""
        ahead = self._up_in[self._tick :].astype(bool)
        ticks = [len(ahead) if one.all() else int(np.argmin(one)) for one in ahead.T]
        return [min(1.0, count * self._tick_h / horizon_h) for count in ticks]

    def see(self, up: Sequence[bool | None]) -> None:
        super().see(up)
        self._tick += 1


def as_case(job: tuple, history_h: float) -> tuple[DeadlineJob, Market, list[np.ndarray] | None]:
    """The job, its market with on-demand at 1, and what is known of each region's past."""
    _, (work_h, deadline_h), overhead_h, tick_s, up, price, start = job
    unit_s, ticks = UNIT_S[tick_s], int(deadline_h * 3600 / tick_s + 1e-9)
    work_s = round(work_h * 3600 / unit_s) * unit_s
    overhead_s = max(1, round(overhead_h * 3600 / unit_s)) * unit_s
    market = Market(tick_s, up[start : start + ticks], price[start : start + ticks], np.ones(up.shape[1]))
    past = up[max(0, start - int(history_h * 3600 / tick_s)) : start]
    return (
        DeadlineJob(work_s, overhead_s, ticks * tick_s),
        market,
        list(past.T.astype(int)) if history_h else None,
    )


def policy_of(
    case: DeadlineJob,
    market: Market,
    history: list[np.ndarray] | None,
    models: SpotModels,
    losses: Sequence[float] | None = None,
) -> DeadlinePolicy:
    return DeadlinePolicy(
        case.work_s / 3600,
        case.deadline_s / 3600,
        case.overhead_s / 3600,
        market.tick_s / 3600,
        market.on_demand_usd_per_h.tolist(),
        history=history,
        models=models,
        losses=losses,
    )


def costs(
    job: tuple, models: SpotModels, history_h: float, *, foresight: bool = False
) -> tuple[np.ndarray, bool, int]:
    """Cost of ours, the rules, paying greedy and the optimum; whether ours was late; decisions."""
    case, market, history = as_case(job, history_h)
    policy = policy_of(case, market, history, models)
    if foresight and market.up.shape[1] > 1:
        policy._zones = Foreseen(models, market)
    ours, one = replay(case, market, policy), merged(market)
    rules = [replay(case, one, RulePolicy(rule, case, market.tick_s)).cost_usd for rule in _RULES]
    paying = replay(case, market, PayingGreedy(case, market.tick_s)).cost_usd
    return (
        np.array([ours.cost_usd, *rules, paying, omniscient_cost_usd(case, market)]),
        ours.late,
        ours.finish_s // market.tick_s,
    )


_RULES = ("uniform_progress", "greedy", "on_demand")


class PayingGreedy:
    """Greedy that pays its moves: keeps its machine, and begins again in the cheapest region when it is lost."""

    def __init__(self, job: DeadlineJob, tick_s: int) -> None:
        self._rule, self._region = RulePolicy("greedy", job, tick_s), 0

    def decide(self, elapsed_h, work_h, available, spot_usd_per_h, current, left_h):
        up = [region for region, state in enumerate(available) if state]
        if current is None and up:
            self._region = min(up, key=lambda region: spot_usd_per_h[region])
        here = None if current is None else Placement(0, current.market)
        seen, price = [available[self._region]], [spot_usd_per_h[self._region]]
        choice = self._rule.decide(elapsed_h, work_h, seen, price, here, left_h)
        return choice if choice is None else Placement(self._region, choice.market)


def score(traces: list[Trace], args: argparse.Namespace) -> None:
    folds = sorted({_fold(trace.campaign) for trace in traces})
    models = {
        fold: shipped_models() if args.shipped else fit([t for t in traces if _fold(t.campaign) != fold])
        for fold in folds
    }
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(6))
    late = count = decisions = 0
    seconds = time.process_time()
    for job in jobs(traces, args.mode, args.jobs, args.seed):
        paid, missed, asked = costs(job, models[_fold(job[0])], args.history_h, foresight=args.foresight)
        for key in ("all", f"restart {job[2] * 60:.0f} min", f"{job[1][0]} h in {job[1][1]} h"):
            totals[key] += paid
        late, count, decisions = late + missed, count + 1, decisions + asked
    seconds = time.process_time() - seconds
    kind = "shipped models" if args.shipped else "one campaign left out"
    print(f"{args.mode}, {args.history_h:g} h of history, {kind}: {count} jobs, {late} late,")
    print(f"{decisions} decisions, {seconds:.0f} s of CPU with optimum and rules\n")
    print("| cost / omniscient | ours | Uniform Progress | greedy | on-demand | greedy that pays its moves |")
    print("|---|---|---|---|---|---|")
    for key, paid in sorted(totals.items(), key=lambda item: not item[0].startswith(("all", "restart"))):
        print(f"| {key} |", " | ".join(f"{value / paid[-1]:.4f}" for value in paid[:-1]), "|")


def _fold(campaign: str) -> str:
    """Campaigns of one cloud and month are left out together."""
    return campaign[:11]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["score", "fit"])
    parser.add_argument("traces", type=Path)
    parser.add_argument("mode", choices=["single", "multi"], nargs="?", default="single")
    parser.add_argument("--jobs", type=int, default=2, help="jobs a cell")
    parser.add_argument("--history-h", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=23)
    parser.add_argument("--foresight", action="store_true", help="of the regions' spells, in many regions")
    parser.add_argument("--shipped", action="store_true", help="use the shipped models: not left out")
    args = parser.parse_args()
    traces = load(args.traces)
    if args.command == "fit":
        write(fit(traces), traces)
    else:
        score(traces, args)


if __name__ == "__main__":
    main()
