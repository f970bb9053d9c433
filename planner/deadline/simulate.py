"""Policies over many jobs: on records, and on zones drawn from hazards (Monte Carlo)."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from planner.deadline.baselines import Rule, RulePolicy
from planner.deadline.models import FloatArray
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.policy import LIVE_TIME_SHARE, TIME_SHARE, DeadlinePolicy, on_grid
from planner.deadline.replay import DeadlineJob, Market, Outcome, Policy, merged, replay
from planner.deadline.traces import TracedJob
from planner.hazards import Spell, SpotHazards, over_prior
from planner.preemption import loss_factors

PolicyName = Literal["ours", "uniform_progress", "greedy", "spot_else_on_demand", "on_demand", "omniscient"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)
#: Ticks of a drawn market: a sixtieth of the work, in whole minutes up to five, as a launched run decides. The work of
#: a long job takes no more than so many, or a thousand jobs would take long. What is billed is whole ticks.
_LEAST_TICKS, _MOST_TICKS, _SHORTEST_TICK_S, _USUAL_TICK_S = 60, 300, 60, 300
#: Many jobs share a value table: a large one is worth its memory.
_TABLE_BYTES = 320_000_000
#: So many jobs under a policy that takes long are worth processes of their own, each with tables of its own.
_MANY, _MOST_WORKERS = 100, 4
_LONG_POLICIES = ("ours", "omniscient")


@dataclass(frozen=True, slots=True)
class Simulated:
    """One job under one policy.

    Attributes:
        cost_usd: What it costs; infinite if nobody could have done it in time.
        outcome: How it went; None of the optimum, of which only the cost is known.
    """

    cost_usd: float
    outcome: Outcome | None

    @property
    def late(self) -> bool:
        """Whether work was left at the deadline."""
        return self.cost_usd == math.inf if self.outcome is None else self.outcome.late


def simulate_all(jobs: Sequence[TracedJob], policy: PolicyName) -> Iterator[tuple[int, Simulated]]:
    """Every job under a policy, with its index, in no order; several at once where there are processors for it.

    Jobs that share value tables stay together, so the answers are those of one process.
    """
    left = _alike(jobs)
    workers = min(os.cpu_count() or 1, _MOST_WORKERS, len(left))
    if policy in _LONG_POLICIES and workers > 1 and len(jobs) >= _MANY:
        with contextlib.suppress(BrokenProcessPool, OSError, NotImplementedError):  # one process will do
            for part, done in _side_by_side(jobs, left, policy, workers):
                left.remove(part)
                yield from zip(part, done, strict=True)
    for part in left:
        for index in part:
            yield index, simulate(jobs[index], policy)


def _side_by_side(
    jobs: Sequence[TracedJob], parts: list[list[int]], policy: PolicyName, workers: int
) -> Iterator[tuple[list[int], list[Simulated]]]:
    """The parts as they are done, by processes that share nothing."""
    with ProcessPoolExecutor(workers) as pool:
        asked = {pool.submit(_simulated, [jobs[index] for index in part], policy): part for part in parts}
        try:
            for future in as_completed(asked):
                yield asked[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _simulated(jobs: list[TracedJob], policy: PolicyName) -> list[Simulated]:
    return [simulate(job, policy) for job in jobs]


def _alike(jobs: Sequence[TracedJob]) -> list[list[int]]:
    """Indices of the jobs, those together that share a value table, the largest first; the longest parts first."""

    def kind(index: int) -> tuple[object, ...]:
        job, market = jobs[index].job, jobs[index].market
        up, spot = market.up[0], market.spot_usd_per_h[0]
        price = (spot[up] if up.any() else spot).min() / market.on_demand_usd_per_h.min()
        return (len(up) > 1, job.overhead_s, market.tick_s, on_grid(float(price)))

    def size(index: int) -> tuple[object, ...]:
        return (-jobs[index].job.work_s, -jobs[index].job.deadline_s, index)

    ordered = sorted(range(len(jobs)), key=lambda index: (kind(index), size(index)))
    parts = [list(part) for _, part in groupby(ordered, key=kind)]
    return sorted(parts, key=lambda part: -sum(jobs[index].job.work_s for index in part))


def simulate(traced: TracedJob, policy: PolicyName) -> Simulated:
    """One job of a record under a policy.

    On several regions the rules see them as one and move free of charge; ours and the optimum pay for each move.
    """
    if policy == "omniscient":
        return Simulated(omniscient_cost_usd(traced.job, traced.market), None)
    if policy == "ours":
        outcome = replay(traced.job, traced.market, policy_of(traced.job, traced.market, traced.history))
    else:
        market = merged(traced.market) if traced.market.up.shape[1] > 1 else traced.market
        outcome = replay(traced.job, market, RulePolicy(policy, traced.job, market.tick_s))
    return Simulated(outcome.cost_usd, outcome)


def policy_of(
    job: DeadlineJob,
    market: Market,
    history: Sequence[npt.NDArray[np.int_]] | None = None,
    *,
    time_share: float = TIME_SHARE,
    losses: Sequence[float | None] | None = None,
) -> DeadlinePolicy:
    """Our policy for a job on a market; of the market it is told tick, on-demand prices and what losses to expect."""
    return DeadlinePolicy(
        job.work_s / 3600,
        job.deadline_s / 3600,
        job.overhead_s / 3600,
        market.tick_s / 3600,
        market.on_demand_usd_per_h.tolist(),
        history=history,
        most_bytes=_TABLE_BYTES,
        time_share=time_share,
        losses=losses,
    )


@dataclass(frozen=True, slots=True)
class DrawnJobs:
    """A job to be simulated on drawn zones.

    Attributes:
        work_h: Its work, one value for each simulated job in turn.
        restart_h: Billed hours of a start, rework of half a checkpoint interval included.
        deadline_h: Hours to the deadline; None if there is none.
        spot_usd_per_h: Price of all its machines.
        on_demand_usd_per_h: The same on demand; None where it cannot be had.
    """

    work_h: tuple[float, ...]
    restart_h: float
    deadline_h: float | None
    spot_usd_per_h: float
    on_demand_usd_per_h: float | None


def monte_carlo(
    drawn: DrawnJobs,
    hazards: SpotHazards,
    jobs: int,
    seed: int,
    *,
    only: str | None = None,
    doubt: float = 1.0,
    told: Callable[[int], None] = lambda _: None,
) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Cost in USD, finish in hours and share of spot in the billed time of each simulated job, by way of running it.

    "spot" waits for spot, whatever the deadline; "on_demand" never leaves on-demand; "ours" keeps the deadline wherever
    on-demand can, else it is on on-demand to its late end. It is there if the shortest work can be in time. All see the
    same zones, and start when the zone has capacity; `doubt` is that of the place, as of `Preemptions`. "ours"
    expects the losses of these hazards, as a launched run does, and does not know how those of the drawn zone differ.
    `told` is called with the number of jobs that are done.
    """
    tick_s, losses = tick_of(drawn), [over_prior(hazards)]
    found: dict[str, list[Outcome]] = {}
    # The longest first: the shorter ones' tables are parts of theirs.
    ordered = sorted(range(jobs), key=lambda job: -drawn.work_h[job % len(drawn.work_h)])
    for done, index in enumerate(ordered, 1):
        work_h = drawn.work_h[index % len(drawn.work_h)]
        for name, job, horizon_s in _ways(drawn, work_h, tick_s):
            if only not in (None, name):
                continue
            zone = np.random.default_rng((seed, index))
            up = drawn_zone(hazards, horizon_s // tick_s, tick_s / 3600, zone, doubt)[:, None]
            on_demand = drawn.on_demand_usd_per_h or math.inf
            prices = np.full(up.shape, drawn.spot_usd_per_h)
            market = Market(tick_s, up, prices, np.array([on_demand]))
            policy = (
                policy_of(job, market, time_share=LIVE_TIME_SHARE, losses=losses)
                if name == "ours"
                else _rule(name, job, tick_s)
            )
            found.setdefault(name, []).append(replay(replace(job, deadline_s=horizon_s), market, policy))
        told(done)
    return {
        name: (
            np.array([outcome.cost_usd for outcome in outcomes]),
            np.array([outcome.finish_s / 3600 if not outcome.late else math.inf for outcome in outcomes]),
            np.array([o.spot_s / max(o.spot_s + o.on_demand_s, 1) for o in outcomes]),
        )
        for name, outcomes in found.items()
    }


def _ways(drawn: DrawnJobs, work_h: float, tick_s: int) -> Iterator[tuple[str, DeadlineJob, int]]:
    """Names, jobs and the time that has to be drawn for them, to their end even where that is late."""
    work_s, start_s = max(round(work_h * 3600), 1), round(drawn.restart_h * 3600)
    long_s = (work_s + start_s) * 20 + 14 * 86400
    yield "spot", DeadlineJob(work_s, start_s, long_s), long_s
    if drawn.on_demand_usd_per_h is None:
        return
    enough_s = (math.ceil((work_s + start_s) / tick_s) + 1) * tick_s
    yield "on_demand", DeadlineJob(work_s, start_s, enough_s), enough_s
    if drawn.deadline_h is not None:
        deadline_s, shortest_s = round(drawn.deadline_h * 3600), round(min(drawn.work_h) * 3600) + start_s
        if deadline_s // tick_s >= math.ceil(shortest_s / tick_s):
            yield "ours", DeadlineJob(work_s, start_s, deadline_s), max(deadline_s, enough_s)


def _rule(name: str, job: DeadlineJob, tick_s: int) -> Policy:
    rule: Rule = "on_demand" if name == "on_demand" else "greedy"
    return RulePolicy(rule, job, tick_s)


def tick_of(drawn: DrawnJobs) -> int:
    """Seconds of a tick, by the work alone: what a job costs must not depend on how far off its deadline is."""
    work_s = (sum(drawn.work_h) / len(drawn.work_h) + drawn.restart_h) * 3600
    short_s = int(work_s / _LEAST_TICKS) // _SHORTEST_TICK_S * _SHORTEST_TICK_S
    long_s = math.ceil(work_s / _MOST_TICKS / _USUAL_TICK_S) * _USUAL_TICK_S
    return max(min(short_s, long_s), _SHORTEST_TICK_S)


def drawn_zone(
    hazards: SpotHazards, ticks: int, tick_h: float, rng: np.random.Generator, doubt: float = 1.0
) -> npt.NDArray[np.bool_]:
    """Capacity of one zone by tick, from a moment when it has some; its kind, and how its losses differ, are drawn."""
    chances = np.array([model.weight * model.up_share for model in hazards.models])
    model = hazards.models[rng.choice(len(chances), p=chances / chances.sum())]
    factors, shares = zip(*loss_factors(doubt), strict=True)
    factor = factors[rng.choice(len(factors), p=shares)] if len(factors) > 1 else 1.0
    up = replace(model.up, ends_per_h=tuple(rate * factor for rate in model.up.ends_per_h))
    many = _lengths(up, 512, rng)
    up_h = rng.choice(many, p=many / many.sum()) * rng.random()
    states, state = np.zeros(ticks, bool), True
    at_h, until_h = 0.0, float(up_h)
    while at_h < ticks * tick_h:
        first, last = (min(round(h / tick_h), ticks) for h in (at_h, until_h))
        states[first:last] = state
        state = not state
        at_h, until_h = until_h, until_h + float(_lengths(up if state else model.down, 1, rng)[0])
    states[0] = True
    return states


def _lengths(spell: Spell, count: int, rng: np.random.Generator) -> FloatArray:
    """Spells drawn from their hazards: where the integrated hazard reaches an exponential draw."""
    edges, rates = np.array(spell.edges_h), np.array(spell.ends_per_h)
    reached = np.concatenate([[0.0], np.cumsum(np.diff(edges) * rates[:-1])])
    drawn = rng.exponential(size=count)
    bucket = np.searchsorted(reached, drawn, side="right") - 1
    lengths: FloatArray = edges[bucket] + (drawn - reached[bucket]) / rates[bucket]
    return lengths
