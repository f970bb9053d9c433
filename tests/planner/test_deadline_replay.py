from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.deadline import Placement
from planner.deadline.baselines import RulePolicy
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.replay import DeadlineJob, Market, merged, replay
from tests.planner.spot_markets import invented, market

_H = 3600


class _Script:
    """Plays back a list of choices."""

    def __init__(self, choices: tuple[Placement | None, ...]) -> None:
        self.choices = iter(choices)

    def decide(self, *_: object) -> Placement | None:
        return next(self.choices)


def _least_by_trying(job: DeadlineJob, record: Market) -> float:
    regions = record.up.shape[1]
    choices = [None, Placement(0, "on_demand"), *(Placement(r, "spot") for r in range(regions))]
    ticks = job.deadline_s // record.tick_s
    outcomes = (replay(job, record, _Script(script)) for script in product(choices, repeat=ticks))
    return min((outcome.cost_usd for outcome in outcomes if not outcome.late), default=float("inf"))


@given(
    seed=st.integers(0, 10**6),
    work_s=st.integers(1, 40),
    overhead_s=st.sampled_from([0, 3, 10, 14, 25]),
    regions=st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_optimum_equals_trying_everything(seed: int, work_s: int, overhead_s: int, regions: int) -> None:
    rng = np.random.default_rng(seed)
    ticks = 6 if regions == 1 else 5
    record = market(rng.random((ticks, regions)) < 0.6, 10, rng.uniform(0.1, 1.2, (ticks, regions)))
    job = DeadlineJob(work_s, overhead_s, 10 * ticks)
    assert omniscient_cost_usd(job, record) == pytest.approx(_least_by_trying(job, record))


def test_a_launch_bills_its_start_and_a_preemption_starts_again() -> None:
    up = np.array([[1], [1], [0], [1], [1]], bool)
    spot = Placement(0, "spot")
    job = DeadlineJob(1500, 300, 3000)
    outcome = replay(job, market(up, 600, 0.6), _Script((spot, spot, None, spot, spot)))
    assert not outcome.late
    assert (outcome.launches, outcome.spot_s, outcome.finish_s) == (2, 2400, 3000)
    assert outcome.cost_usd == pytest.approx(4 * 0.1)


def test_spot_where_there_is_none_wastes_the_tick() -> None:
    record = market(np.zeros((3, 1), bool), 600)
    outcome = replay(DeadlineJob(600, 0, 1800), record, _Script((Placement(0, "spot"),) * 3))
    assert outcome.late
    assert outcome.cost_usd == 0


@pytest.mark.parametrize("rule", ["on_demand", "spot_else_on_demand", "greedy", "uniform_progress"])
def test_simple_rules_are_in_time(rule: str) -> None:
    for seed in range(20):
        record = merged(invented(60, 600, 2, seed))
        job = DeadlineJob(8 * _H, 720, 10 * _H)
        outcome = replay(job, record, RulePolicy(rule, job, 600))
        assert not outcome.late
        assert outcome.cost_usd >= omniscient_cost_usd(job, record) - 1e-9


def test_merged_takes_the_cheapest_region_that_is_up() -> None:
    record = market(np.array([[1, 1], [1, 0], [0, 0]], bool), 600, np.array([0.5, 0.3]))
    one = merged(record)
    assert one.up[:, 0].tolist() == [True, True, False]
    assert one.spot_usd_per_h[:, 0].tolist() == [0.3, 0.5, 0.3]
