from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from planner.deadline import DeadlinePolicy, Placement
from planner.deadline.controller import ControllerState, Mission, Observation, step
from planner.deadline.replay import DeadlineJob, Market, replay
from tests.planner.spot_markets import invented, market

_H = 3600
_TWO = Mission(4.0, 6.0, 0.2, 1 / 6, ("aws us-east-1a", "gcp us-central1-c"), (1.0, 1.2))


class _ByStep:
    """`step` as a replay's policy; the state goes through JSON at every tick, as after a crash."""

    def __init__(self, state: ControllerState) -> None:
        self.text = json.dumps(state.to_document())

    def decide(
        self,
        elapsed_h: float,
        remaining_work_h: float,
        available: list[bool | None],
        spot_usd_per_h: list[float],
        current: Placement | None,
        overhead_left_h: float,
    ) -> Placement | None:
        state = ControllerState.from_document(json.loads(self.text))
        now = Observation(
            elapsed_h, remaining_work_h, tuple(available), tuple(spot_usd_per_h), current, overhead_left_h
        )
        state, advice = step(state, now)
        self.text = json.dumps(state.to_document())
        return advice.placement


def _mission(job: DeadlineJob, record: Market) -> Mission:
    regions = record.up.shape[1]
    return Mission(
        job.work_s / _H,
        job.deadline_s / _H,
        job.overhead_s / _H,
        record.tick_s / _H,
        tuple(f"zone {region}" for region in range(regions)),
        tuple(record.on_demand_usd_per_h.tolist()),
    )


@pytest.mark.parametrize(("regions", "seed"), [(1, 1), (1, 2), (2, 3), (3, 4)])
def test_steps_through_json_are_the_policy(regions: int, seed: int) -> None:
    job = DeadlineJob(4 * _H, 12 * 60, 6 * _H)
    record = invented(48 + 36, 600, regions, seed)
    past, now = record.up[:48], replace(record, up=record.up[48:], spot_usd_per_h=record.spot_usd_per_h[48:])
    mission = _mission(job, now)
    state = ControllerState.begin(mission, past.T.tolist())
    policy = DeadlinePolicy(
        mission.work_h,
        mission.deadline_h,
        mission.restart_overhead_h,
        mission.tick_h,
        now.on_demand_usd_per_h.tolist(),
        history=list(past.T.astype(int)),
        time_share=0.1,
    )
    assert replay(job, now, _ByStep(state)) == replay(job, now, policy)


def test_a_repeated_step_gives_the_same_advice_and_state() -> None:
    now = Observation(0.5, 3.5, (True, None), (0.3, 0.4), Placement(0, "spot"), 0.0)
    once, advice = step(ControllerState.begin(_TWO), now)
    again, same = step(once, replace(now, elapsed_h=0.45))
    assert (again, same) == (once, advice)
    assert advice.next_at_h == pytest.approx(0.5 + 1 / 6)


def test_ticks_that_nobody_looked_at_are_not_probed() -> None:
    now = Observation(0.0, 4.0, (True, False), (0.3, 0.4))
    state, _ = step(ControllerState.begin(_TWO), now)
    state, _ = step(state, replace(now, elapsed_h=1.0, available=(False, False)))
    assert state.seen == (((True, 1), (None, 5), (False, 1)), ((False, 1), (None, 5), (False, 1)))


def test_a_late_look_counts_as_the_next_tick() -> None:
    """Half a tick late, only the whole ticks that are left may be counted on."""
    tight = replace(_TWO, deadline_h=4.5)
    now = Observation(0.0, 4.0, (False, False), (0.3, 0.4))
    _, in_time = step(ControllerState.begin(tight), now)
    _, late = step(ControllerState.begin(tight), replace(now, elapsed_h=0.1))
    assert in_time.decision.time_left_h == pytest.approx(4.5)
    assert late.decision.time_left_h == pytest.approx(4.5 - 1 / 6)


def test_the_margin_is_kept_free() -> None:
    now = Observation(0.0, 4.0, (False, False), (0.3, 0.4))
    _, relaxed = step(ControllerState.begin(replace(_TWO, deadline_h=5.0)), now)
    _, pressed = step(ControllerState.begin(replace(_TWO, deadline_h=5.0, margin_h=0.8)), now)
    assert relaxed.decision.slack_h == pytest.approx(pressed.decision.slack_h + 5 / 6)
    assert pressed.placement == Placement(0, "on_demand")


@pytest.mark.parametrize("work_left_h", [0.003, 0.0057])
def test_a_machine_that_is_being_got_ready_is_not_left_again_and_again(work_left_h: float) -> None:
    """A short job over two spot places of which one was taken away three times: as seen on a Slurm cluster."""
    mission = Mission(
        *(0.01366, 1 / 3, 0.0867, 1 / 360),
        zones=("bed-a", "bed-b", "bed-a on demand", "bed-b on demand"),
        on_demand_usd_per_h=(None, None, 1.1, 1.6),
        margin_h=0.0222,
    )
    lost = ((True, 15), (None, 4), (True, 1), (False, 1), (None, 1), (True, 1), (None, 2), (True, 7))
    lost = (*lost, (False, 1), (None, 3), (True, 5), (False, 1), (None, 2), (True, 10))
    seen = (lost, ((None, 9), (True, 45)), ((None, 54),), ((None, 54),))
    state = ControllerState(mission, seen, 53, (0.4676, 0.0))
    for tick in range(54, 68):
        now = Observation(
            tick * mission.tick_h,
            work_left_h,
            (True, True, None, None),
            (0.5, 0.6, None, None),
            Placement(0, "spot"),
            0.0867 - (tick - 53) * mission.tick_h,
        )
        state, advice = step(state, now)
        assert advice.placement == Placement(0, "spot"), (tick, advice.explanation)


def test_a_machine_that_is_being_got_ready_is_left_for_what_saves_a_start() -> None:
    now = Observation(0.0, 4.0, (True, True), (0.9, 0.05), Placement(0, "spot"), 0.1)
    _, advice = step(ControllerState.begin(_TWO), now)
    assert advice.placement == Placement(1, "spot")
    assert not advice.decision.is_kept


def test_words_name_zones() -> None:
    now = Observation(0.0, 4.0, (False, True), (0.3, 0.4))
    _, advice = step(ControllerState.begin(_TWO), now)
    assert advice.where == "spot in gcp us-central1-c"
    assert "Spot in gcp us-central1-c" in advice.explanation
    assert "on-demand in aws us-east-1a $" in advice.explanation


def test_unknown_prices() -> None:
    """An unknown spot price counts as on-demand's; a zone with neither is not used."""
    mission = replace(_TWO, on_demand_usd_per_h=(1.0, None))
    _, advice = step(ControllerState.begin(mission), Observation(0.0, 4.0, (False, True), (None, None)))
    assert advice.placement != Placement(1, "spot")
    assert {option.placement for option in advice.decision.options} == {Placement(0, "on_demand"), None}


@pytest.mark.parametrize(
    "change",
    [
        {"zones": ()},
        {"on_demand_usd_per_h": (None, None)},
        {"on_demand_usd_per_h": (1.0,)},
        {"tick_h": 0.0},
        {"margin_h": -1.0},
    ],
)
def test_a_mission_that_cannot_be_decided_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"zone|positive"):
        replace(_TWO, **change)


@pytest.mark.parametrize(
    "damage",
    [{"version": 9}, {"mission": {}}, {"seen": [[["sideways", 3]]]}, {"tick": "soon"}, {"prices": None}],
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    document = ControllerState.begin(_TWO).to_document() | damage
    with pytest.raises(ValueError, match="controller state"):
        ControllerState.from_document(document)


def test_another_number_of_zones_is_refused() -> None:
    with pytest.raises(ValueError, match="2 zones"):
        step(ControllerState.begin(_TWO), Observation(0.0, 4.0, (True,), (0.3,)))


def test_replay_by_steps_is_never_late_on_a_hostile_market() -> None:
    """Spot comes and goes with every tick."""
    job = DeadlineJob(3 * _H, 30 * 60, 4 * _H)
    record = market(np.array([[k % 2 == 0] for k in range(24)]), 600)
    assert not replay(job, record, _ByStep(ControllerState.begin(_mission(job, record)))).late


def test_nobody_waits_where_waiting_saves_nothing() -> None:
    """Spot as dear as on-demand and nowhere to be had: on-demand now, not at the last moment."""
    mission = Mission(4.0, 12.0, 0.2, 1 / 6, ("one",), (1.0,))
    _, advice = step(ControllerState.begin(mission), Observation(0.0, 4.0, (False,), (1.0,)))
    assert advice.placement == Placement(0, "on_demand")
    _, cheap = step(ControllerState.begin(mission), Observation(0.0, 4.0, (False,), (0.3,)))
    assert cheap.placement is None


def test_a_short_job_takes_spot_that_is_there() -> None:
    mission = Mission(0.01, 0.4, 0.087, 1 / 360, ("one", "two"), (1.1, 1.6), margin_h=0.02)
    now = Observation(0.0, 0.01, (True, True), (0.5, 0.6))
    state, advice = step(ControllerState.begin(mission), now)
    assert advice.placement == Placement(0, "spot")
    for tick in range(1, 20):
        later = replace(now, elapsed_h=tick / 360, current=Placement(0, "spot"), overhead_left_h=0.087)
        state, advice = step(state, later)
        assert advice.placement == Placement(0, "spot"), tick


def test_work_that_no_checkpoint_has_is_done_again_wherever_it_goes() -> None:
    """With 3.5 h of work and 5 h left there is time for spot, unless 1.5 h more would be lost with it."""
    here = Placement(0, "spot")
    now = Observation(1.0, 3.5, (True, True), (0.3, 0.4), here)
    _, kept = step(ControllerState.begin(_TWO), now)
    assert kept.placement == here
    _, pressed = step(ControllerState.begin(_TWO), replace(now, uncommitted_h=1.5))
    assert pressed.placement == Placement(0, "on_demand")
    assert pressed.decision.slack_h == pytest.approx(kept.decision.slack_h - 1.5, abs=_TWO.tick_h)
    costs = {
        option.placement: option.cost_usd
        for option in step(ControllerState.begin(_TWO), replace(now, uncommitted_h=0.5))[1].decision.options
    }
    before = {option.placement: option.cost_usd for option in kept.decision.options}
    assert costs[here] == before[here]
    assert all(costs[place] > before[place] for place in costs if place != here)


def test_a_job_that_ends_within_the_tick_stays() -> None:
    now = Observation(5.5, 0.1, (True, True), (0.3, 0.4), Placement(0, "spot"), 0.0, 0.5)
    assert step(ControllerState.begin(_TWO), now)[1].placement == Placement(0, "spot")


def _ended_h(seed: int) -> float:
    """When a job ends that loses with each machine what it did since its last checkpoint, one every half hour."""
    dice, tick_h = random.Random(seed), 1 / 12
    mission = replace(_TWO, tick_h=tick_h, margin_h=2 * tick_h)
    state = ControllerState.begin(mission)
    up, done_h, committed_h, current, left_h = [True, True], 0.0, 0.0, None, 0.0
    for tick in range(int(8 / tick_h)):
        up = [dice.random() > 0.02 if here else dice.random() < 0.05 for here in up]
        if current is not None and current.market == "spot" and not up[current.region]:
            current, done_h = None, committed_h
        now = Observation(
            *(tick * tick_h, 4.0 - done_h, tuple(up), (0.3, 0.35), current, left_h, done_h - committed_h)
        )
        state, advice = step(state, now)
        if advice.placement != current:
            current, left_h, done_h = advice.placement, mission.restart_overhead_h, committed_h
        if current is not None:
            done_h, left_h = done_h + max(0.0, tick_h - left_h), max(0.0, left_h - tick_h)
        committed_h = done_h if done_h - committed_h >= 0.5 else committed_h
        if done_h >= 4.0 - 1e-9:
            return (tick + 1) * tick_h
    return 8.0


def test_what_is_lost_with_each_machine_makes_nothing_late() -> None:
    assert max(_ended_h(seed) for seed in range(28, 44)) <= _TWO.deadline_h
