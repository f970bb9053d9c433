from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.deadline import DeadlinePolicy, Placement
from planner.deadline.baselines import RulePolicy
from planner.deadline.optimum import omniscient_cost_usd
from planner.deadline.replay import DeadlineJob, Market, Outcome, replay
from tests.planner.spot_markets import invented, market

_H = 3600


def _policy(job: DeadlineJob, record: Market, **more: object) -> DeadlinePolicy:
    return DeadlinePolicy(
        job.work_s / _H,
        job.deadline_s / _H,
        job.overhead_s / _H,
        record.tick_s / _H,
        record.on_demand_usd_per_h.tolist(),
        **more,
    )


def _run(job: DeadlineJob, record: Market, **more: object) -> Outcome:
    return replay(job, record, _policy(job, record, **more))


def _least_deadline_s(work_s: int, overhead_s: int, tick_s: int) -> int:
    return math.ceil((work_s + overhead_s) / tick_s) * tick_s


@st.composite
def _cases(draw: st.DrawFn) -> tuple[DeadlineJob, Market]:
    tick_s = draw(st.sampled_from([180, 195, 288, 300, 600]))
    work_s = draw(st.integers(60, 5 * _H))
    overhead_s = draw(st.integers(0, 45 * 60))
    slack_ticks = draw(st.integers(0, 20))
    deadline_s = _least_deadline_s(work_s, overhead_s, tick_s) + slack_ticks * tick_s
    ticks, regions = deadline_s // tick_s, draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    up = rng.random((ticks, regions)) < draw(st.sampled_from([0.05, 0.5, 0.95, 1.0]))
    spot = draw(st.sampled_from([0.1, 0.3, 0.9, 1.0, 1.5]))
    shaken = np.exp(rng.normal(0, draw(st.sampled_from([0.0, 0.5])), up.shape))
    return DeadlineJob(work_s, overhead_s, deadline_s), market(up, tick_s, spot * shaken)


@given(_cases())
@settings(max_examples=80, deadline=None)
def test_never_late_and_never_dearer_than_the_whole_window(case: tuple[DeadlineJob, Market]) -> None:
    job, record = case
    outcome = _run(job, record)
    assert not outcome.late
    assert outcome.finish_s <= job.deadline_s
    assert outcome.cost_usd >= omniscient_cost_usd(job, record) - 1e-9


@pytest.mark.parametrize(
    ("work_h", "deadline_h", "overhead_min", "tick_s"),
    [(8, 9, 3, 600), (8, 9, 30, 600), (8, 10, 12, 300), (8, 16, 30, 180), (4, 4.7, 30, 180)],
)
def test_no_invented_market_makes_it_late_or_dear(
    work_h: float, deadline_h: float, overhead_min: int, tick_s: int
) -> None:
    job = DeadlineJob(round(work_h * _H), overhead_min * 60, round(deadline_h * _H))
    ours = on_demand = 0.0
    for seed in range(60):
        record = invented(job.deadline_s // tick_s, tick_s, 1, seed, preempt=[1, 0.2, 5][seed % 3])
        outcome = _run(job, record)
        assert not outcome.late
        ours += outcome.cost_usd
        on_demand += replay(job, record, RulePolicy("on_demand", job, tick_s)).cost_usd
    assert ours <= on_demand + 1e-6


class _Adversary:
    """Takes the machine away as soon as spot runs, gives spot back there as soon as it does not."""

    def __init__(self, policy: DeadlinePolicy, ticks: int, regions: int) -> None:
        self.policy, self.left, self.regions = policy, ticks, regions

    def run(self, work_h: float, overhead_h: float, tick_h: float) -> tuple[float, float]:
        """Cost at spot 0.3 and on-demand 1, and work left at the deadline."""
        current, start_h, cost = None, 0.0, 0.0
        for k in range(self.left):
            if work_h <= 1e-9:
                break
            up = [current != (region, "spot") for region in range(self.regions)]
            if not all(up):
                current, start_h = None, 0.0
            choice = self.policy.decide(k * tick_h, work_h, up, [0.3] * self.regions, current, start_h)
            if choice is not None:
                start_h = overhead_h if choice != current else start_h
                work_h -= max(0.0, tick_h - start_h)
                start_h = max(0.0, start_h - tick_h)
                cost += tick_h * (0.3 if choice.market == "spot" else 1.0)
            current = choice
        return cost, max(work_h, 0.0)


@pytest.mark.parametrize("regions", [1, 3])
@pytest.mark.parametrize("overhead_h", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("deadline_h", [8.75, 10, 16])
def test_preempted_right_after_every_launch(deadline_h: float, overhead_h: float, regions: int) -> None:
    tick_h = 1 / 6
    ticks = int(deadline_h / tick_h + 1e-9)
    policy = DeadlinePolicy(8, deadline_h, overhead_h, tick_h, [1.0] * regions)
    cost, left = _Adversary(policy, ticks, regions).run(8.0, overhead_h, tick_h)
    assert left < 1e-6
    assert cost <= 8 + overhead_h + tick_h + 0.3 * (deadline_h - 8)


def test_takes_on_demand_at_once_without_slack() -> None:
    policy = DeadlinePolicy(8, 8.2, 0.2, 0.1, [1.2, 1.0])
    assert policy.decide(0, 8, [True, True], [0.1, 0.1], None, 0) == Placement(1, "on_demand")


def test_keeps_on_demand_when_too_late_anyway() -> None:
    policy = DeadlinePolicy(8, 4, 0.2, 0.1, [1.0])
    assert policy.decide(0, 8, [True], [0.1], None, 0) == Placement(0, "on_demand")
    assert "too late" in policy.explain()
    assert policy.decide(5.0, 3, [True], [0.1], Placement(0, "on_demand"), 0) == Placement(0, "on_demand")


def test_spot_dearer_than_on_demand_is_left_and_not_taken() -> None:
    policy = DeadlinePolicy(8, 12, 0.05, 1 / 6, [1.0])
    current = policy.decide(0, 8, [True], [0.3], None, 0)
    assert current == Placement(0, "spot")
    spiked = policy.decide(1 / 6, 7.9, [True], [2.5], current, 0)
    assert spiked is None or spiked.market == "on_demand"
    outcome = _run(DeadlineJob(8 * _H, 180, 12 * _H), market(np.ones((72, 1), bool), 600, 1.3))
    assert outcome.spot_s == 0


def test_follows_a_price_that_stays_and_ignores_a_spike() -> None:
    policy = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0])
    current = policy.decide(0, 8, [True], [0.3], None, 0)
    before = policy.last.chosen.cost_usd
    for k in range(1, 9):
        spike = 2.0 if k == 2 else 0.3
        current = policy.decide(k / 6, 8, [True], [spike], Placement(0, "spot"), 0)
        if k != 2:
            assert policy.last.chosen.cost_usd < 1.3 * before
    settled = policy.last.chosen.cost_usd
    for k in range(9, 17):
        current = policy.decide(k / 6, 8, [True], [0.6], current, 0)
    assert policy.last.chosen.cost_usd > 1.3 * settled


def test_goes_to_the_cheaper_region() -> None:
    policy = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0, 1.0, 1.0])
    assert policy.decide(0, 8, [True, True, True], [0.5, 0.2, 0.5], None, 0) == Placement(1, "spot")


def test_an_unprobed_region_is_not_chosen_but_its_running_machine_is_kept() -> None:
    policy = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0, 1.0])
    first = policy.decide(0, 8, [None, True], [0.1, 0.3], None, 0)
    assert first == Placement(1, "spot")
    kept = policy.decide(1 / 6, 7.9, [None, None], [0.1, 0.3], first, 0)
    assert kept == first
    nothing = policy.decide(2 / 6, 7.8, [None, None], [0.1, 0.3], None, 0)
    assert nothing is None or nothing.market == "on_demand"


def test_same_inputs_same_decisions() -> None:
    job, record = DeadlineJob(8 * _H, 720, 12 * _H), invented(72, 600, 2, 5)
    assert _run(job, record, seed=1) == _run(job, record, seed=2)


def test_steady_history_makes_it_readier_to_wait_for_spot() -> None:
    steady = np.ones(288, int)
    steady[-1:] = 0
    rare = np.zeros(288, int)
    rare[::24] = 1
    rare[-1:] = 0
    gains = []
    for past in (steady, rare):
        policy = DeadlinePolicy(8, 12, 0.2, 1 / 6, [1.0], history=[past])
        policy.decide(0, 8, [False], [0.3], None, 0)
        costs = {option.placement: option.cost_usd for option in policy.last.options}
        gains.append(costs[Placement(0, "on_demand")] - costs[None])
    assert gains[0] > gains[1]


def test_more_work_than_planned_is_still_in_time() -> None:
    policy = DeadlinePolicy(4, 10, 0.1, 1 / 6, [1.0])
    assert policy.decide(0, 4, [True], [0.3], None, 0) == Placement(0, "spot")
    assert policy.decide(1 / 6, 9.7, [True], [0.3], None, 0) == Placement(0, "on_demand")


def test_explains_with_slack_and_the_cost_of_each_option() -> None:
    policy = DeadlinePolicy(8, 12, 0.2, 1 / 6, [2.0, 2.0])
    assert policy.explain() == "No decision yet."
    policy.decide(0, 8, [False, True], [0.6, 0.6], None, 0)
    text = policy.explain()
    assert text.startswith("Spot in region 1. 8.0 h of work left, 12.0 h to the deadline: 3.7 h to spare")
    for option in policy.last.options:
        assert f"${option.cost_usd:.2f}" in text


def test_ten_regions_of_three_minute_ticks_and_two_hundred_hours() -> None:
    tick_s, regions = 180, 10
    job = DeadlineJob(200 * _H, 1800, 206 * _H)
    record = invented(job.deadline_s // tick_s, tick_s, regions, 3, preempt=3)
    policy = _policy(job, record)
    left, work_h = job.deadline_s // tick_s, 12.0
    late_start = left - math.ceil((work_h * _H + 3600) / tick_s)
    current, start_h = None, 0.0
    for k in range(late_start, left):
        if work_h <= 0:
            break
        if current is not None and current.market == "spot" and not record.up[k, current.region]:
            current, start_h = None, 0.0
        choice = policy.decide(k * 0.05, work_h, record.up[k].tolist(), [0.3] * regions, current, start_h)
        if choice is not None:
            start_h = 0.5 if choice != current else start_h
            work_h -= max(0.0, 0.05 - start_h)
            start_h = max(0.0, start_h - 0.05)
        current = choice
    assert work_h <= 1e-6


@pytest.mark.parametrize("unknown", [math.nan, math.inf, None])
def test_spot_of_unknown_price_is_not_taken_and_not_left(unknown: float | None) -> None:
    policy = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0, 1.0])
    assert policy.decide(0, 8, [True, True], [unknown, 0.3], None, 0) == Placement(1, "spot")
    assert policy.decide(1 / 6, 7.9, [True, True], [unknown, unknown], Placement(1, "spot"), 0) == Placement(
        1, "spot"
    )
    nothing = policy.decide(2 / 6, 7.8, [True, True], [unknown, unknown], None, 0)
    assert nothing is None or nothing.market == "on_demand"


def test_a_price_of_nothing_and_one_beyond_all_measure_are_prices() -> None:
    free = DeadlinePolicy(8, 16, 0.1, 1 / 6, [0.0, 1.0])
    assert free.decide(0, 8, [True, True], [0.3, 0.3], None, 0) == Placement(0, "on_demand")
    policy = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0])
    assert policy.decide(0, 8, [True], [0.0], None, 0) == Placement(0, "spot")
    dear = DeadlinePolicy(8, 16, 0.1, 1 / 6, [1.0]).decide(0, 8, [True], [1e300], None, 0)
    assert dear is None or dear.market == "on_demand"


def test_without_on_demand_anywhere_it_runs_on_spot_or_waits() -> None:
    policy = DeadlinePolicy(8, 8.5, 0.1, 1 / 6, [math.inf, math.nan])
    assert policy.decide(0, 8, [False, False], [0.3, 0.3], None, 0) is None
    assert policy.decide(1 / 6, 8, [False, True], [0.3, 0.3], None, 0) == Placement(1, "spot")
    some = DeadlinePolicy(8, 8.3, 0.1, 1 / 6, [math.nan, 2.0])
    assert some.decide(0, 8, [True, True], [0.3, 0.3], None, 0) == Placement(1, "on_demand")
    there = Placement(0, "on_demand")  # it runs there, whatever the list says
    assert some.decide(1 / 6, 8, [True, True], [0.3, 0.3], there, 0) == there


def test_numbers_of_any_kind_decide_the_same() -> None:
    def first(number: type, array: Callable[[list[object]], object]) -> tuple[float, ...]:
        history = array([[1, 0, 1, 1], [0, 0, 1, 1]])
        policy = DeadlinePolicy(
            number(8), number(12), number(0.25), number(0.125), [number(1), number(2)], history
        )
        policy.decide(number(0), number(8), array([True, False]), array([0.5, 0.5]), None, number(0))
        assert policy.last is not None
        return tuple(option.cost_usd for option in policy.last.options)

    assert first(float, list) == first(np.float64, np.array) == first(Fraction, np.array)


def test_records_of_different_lengths_end_together() -> None:
    def costs(history: list[list[int | None]]) -> list[float]:
        policy = DeadlinePolicy(8, 12, 0.2, 1 / 6, [1.0, 1.0], history)
        policy.decide(0, 8, [True, True], [0.3, 0.3], None, 0)
        assert policy.last is not None
        return [option.cost_usd for option in policy.last.options]

    assert costs([[1, 1, 0, 1], [0, 1]]) == costs([[1, 1, 0, 1], [None, None, 0, 1]])
    with pytest.raises(ValueError, match="1 records of 2 regions"):
        costs([[1, 1]])
