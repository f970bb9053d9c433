from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from planner.deadline.belief import ZoneBelief, ZoneBeliefs
from planner.deadline.models import DOWN, UP, SpotModels, shipped_models
from planner.deadline.own_loss import OWN_LOSS_PER_H, OWN_STAGE_H, kept, stage
from planner.deadline.problem import Problem, posed
from planner.deadline.tables import USUAL_BYTES, ValueTable

_MODELS = SpotModels(
    hazard_per_h=np.array([[[2.0, 0.5], [1.5, 0.3]], [[0.4, 0.1], [4.0, 2.0]]]),
    weight=np.array([0.5, 0.5]),
    age_edges_h=np.array([0.0, 0.5]),
)
_STEP_H = 0.25
_OWN = (OWN_LOSS_PER_H, OWN_STAGE_H)


def _problem(
    overhead_steps: float, own_loss: tuple[float, ...] = (0.0,), stage_h: tuple[float, ...] = ()
) -> Problem:
    return Problem(
        work_steps=6,
        slack_parts=5,
        step_h=_STEP_H,
        parts=1,
        overhead_steps=overhead_steps,
        spot_price=0.3,
        tick_steps=1.0,
        own_loss_per_h=own_loss,
        own_stage_h=stage_h,
    )


def _exhaustive(problem: Problem, model: int):
    """Every choice in every state by plain recursion; whole overheads, so no work is in parts."""
    d, own = int(problem.overhead_steps), problem.own_loss_per_h
    older = [min(1.0, _STEP_H / stage_h) for stage_h in problem.own_stage_h]
    rates = _MODELS.hazard_per_h[model]

    def next_states(state: int, age: int) -> list[tuple[float, int, int]]:
        end = 1 - np.exp(-rates[state, age] * _STEP_H)
        older = min(1.0, _STEP_H / 0.5) if age == 0 else 0.0
        stay = 1 - end
        return [(end, 1 - state, 0), (stay * older, state, 1), (stay * (1 - older), state, age)]

    @cache
    def value(n: int, work: int, state: int, age: int, market: str, start: int, stage: int = 0) -> float:
        if work <= 0:
            return 0.0
        if n == 0:
            return 1e9  # late
        options = []
        if work + d <= n - 1:
            options.append(follow(n, work, state, age, "none", 0))
        options.append(_STEP_H + follow(n, work - (d == 0), state, age, "on_demand", max(0, d - 1)))
        if market == "on_demand":
            options.append(
                _STEP_H + follow(n, work - (start == 0), state, age, "on_demand", max(0, start - 1))
            )
        machines = [(d, {0: 1.0})]
        if market == "spot":
            share = older[stage] if start == 0 and stage < len(older) else 0.0
            machines.append((start, {stage: 1 - share, stage + 1: share} if share else {stage: 1.0}))
        for begin, stages in machines:
            after = work - (begin == 0)
            if state == UP and (after <= 0 or after + d <= n - 1):
                paid = problem.spot_price * _STEP_H
                for then, share in stages.items():
                    paid += share * follow(n, after, state, age, "spot", max(0, begin - 1), then)
                options.append(paid)
        return min(options)

    def follow(n: int, work: int, state: int, age: int, market: str, start: int, stage: int = 0) -> float:
        total = 0.0
        lost = 1 - np.exp(-own[stage] * _STEP_H) if market == "spot" else 0.0
        for chance, then, then_age in next_states(state, age):
            if market == "spot" and then == DOWN:
                total += chance * value(n - 1, work, then, then_age, "none", 0)
            else:
                kept = value(n - 1, work, then, then_age, market, start, stage)
                gone = value(n - 1, work, then, then_age, "none", 0) if lost else 0.0
                total += chance * ((1 - lost) * kept + lost * gone)
        return total

    return value


@pytest.mark.parametrize("own", [((0.0,),), ((0.5,),), ((0.9, 0.4, 0.1), (0.5, 1.0))])
@pytest.mark.parametrize("overhead", [0, 1, 2])
def test_values_equal_exhaustive_search(overhead: int, own: tuple[tuple[float, ...], ...]) -> None:
    problem = _problem(overhead, *own)
    table = ValueTable(problem, _MODELS)
    checked = 0
    for model in (0, 1):
        value = _exhaustive(problem, model)
        for n in range(1, problem.steps + 1):
            layer = table.at(n)
            for work in range(1, min(problem.work_steps, n - overhead) + 1):
                slack = n - work
                if slack > problem.slack_parts:
                    continue
                column = slack - layer.first
                for state in (DOWN, UP):
                    for age in (0, 1):
                        row = 2 * state + age
                        assert layer.fixed[model, 0, row, column] == pytest.approx(
                            value(n, work, state, age, "none", 0), abs=1e-4
                        )
                        assert layer.fixed[model, 1, row, column] == pytest.approx(
                            value(n, work, state, age, "on_demand", 0), abs=1e-4
                        )
                        checked += 1
                for level in range(problem.machines):
                    start, stage = max(0, overhead - level - 1), max(0, level + 1 - problem.levels)
                    assert layer.spot[model, level, 0, column] == pytest.approx(
                        value(n, work, UP, 0, "spot", start, stage), abs=1e-4
                    )
    assert checked > 100


def test_layers_are_the_same_in_any_order() -> None:
    table = ValueTable(posed(8, 14, 0.2, 1 / 6, 0.3), shipped_models())
    order = list(range(table.problem.steps, -1, -1))
    down = {n: table.at(n).fixed.sum(dtype=float) for n in order}
    up = {n: table.at(n).fixed.sum(dtype=float) for n in reversed(order)}
    assert down == up


def test_threads_that_share_a_table_in_blocks_see_the_same_values() -> None:
    problem = posed(8, 14, 0.2, 1 / 6, 0.3)
    whole, blocks = (ValueTable(problem, shipped_models(), most) for most in (USUAL_BYTES, 1))
    steps = [n * 37 % problem.steps for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: float(blocks.at(n).fixed.sum()), steps))
    assert found == [float(whole.at(n).fixed.sum()) for n in steps]


@pytest.mark.long
def test_a_larger_problem_has_the_values_of_a_smaller_one() -> None:
    large, small = (posed(*hours, 0.2, 1 / 6, 0.3, *_OWN) for hours in ((10, 18), (8, 12)))
    assert large.covers(small) and small.covers(small) and not small.covers(large)
    assert not large.covers(posed(8, 12, 0.2, 1 / 6, 0.4, *_OWN))
    much, little = ValueTable(large, shipped_models()), ValueTable(small, shipped_models())
    for n in range(small.steps):
        more, less = much.at(n), little.at(n)
        first = max(
            less.first, (n - small.work_steps) * small.parts
        )  # below it lies only the room for a start
        end = less.first + less.fixed.shape[-1]
        for name in ("fixed", "spot"):
            values, own = getattr(more, name), getattr(less, name)
            here = values[..., first - more.first : end - more.first]
            assert here == pytest.approx(own[..., first - less.first :], rel=1e-5, abs=1e-5)


def test_slack_never_hurts_and_time_already_paid_never_hurts() -> None:
    problem = posed(8, 14, 0.2, 1 / 6, 0.3)
    table = ValueTable(problem, shipped_models())
    for n in range(10, problem.steps, 7):
        layer = table.at(n)
        waiting, running = layer.fixed[:, 0], layer.fixed[:, 1]
        assert (np.diff(waiting, axis=-1) <= 1e-4).all()
        assert (running <= waiting + 1e-4).all()


def test_memory_of_a_long_job_stays_small() -> None:
    table = ValueTable(posed(48, 92, 0.2, 1 / 6, 0.3), shipped_models())
    table.at(300)
    assert table.nbytes < 40e6


def test_shipped_models_are_proper() -> None:
    models = shipped_models()
    assert models.weight.sum() == pytest.approx(1, abs=1e-3)
    assert models.hazard_per_h.shape == (len(models.weight), 2, len(models.age_edges_h))
    assert (models.hazard_per_h > 0).all()
    assert models.age_edges_h[0] == 0


def test_belief_finds_the_model_a_zone_follows() -> None:
    rng = np.random.default_rng(4)
    tick_h = 1 / 6
    for model in (0, 1):
        belief = ZoneBelief(_MODELS, tick_h)
        state, age_h = UP, 0.0
        for _ in range(600):
            rate = _MODELS.hazard_per_h[model, state, _MODELS.bucket(age_h)]
            if rng.random() < 1 - np.exp(-rate * tick_h):
                state, age_h = 1 - state, 0.0
            else:
                age_h += tick_h
            belief.see(bool(state))
        assert belief.weights()[model] > 0.9


def test_what_was_not_probed_teaches_nothing_but_ages() -> None:
    belief = ZoneBelief(_MODELS, 0.1)
    belief.see(True)
    before = belief.weights().copy()
    for _ in range(10):
        belief.see(None)
    assert (belief.weights() == before).all()
    assert belief.age_h == pytest.approx(1.0)


def test_older_spells_last_longer() -> None:
    young, old = ZoneBelief(shipped_models(), 1 / 6), ZoneBelief(shipped_models(), 1 / 6)
    young.see(True)
    for _ in range(60):
        old.see(True)
    assert old.survival(2.0) > young.survival(2.0)
    assert young.survival(4.0) < young.survival(2.0)


def test_several_zones_that_share_nothing_are_believed_as_each_alone() -> None:
    rng, tick_h = np.random.default_rng(8), 1 / 12
    alone = [ZoneBelief(shipped_models(), tick_h) for _ in range(5)]
    together = ZoneBeliefs(shipped_models(), tick_h, 5, shared=0.0)
    for _ in range(300):
        states = [None if draw < 0.1 else bool(draw < 0.7) for draw in rng.random(5)]
        together.see(states)
        for belief, state in zip(alone, states, strict=True):
            belief.see(state)
        found = [belief.survival(4.0) for belief in alone]
        assert together.survival(4.0) == pytest.approx(found, rel=1e-12)


def test_what_another_zone_shows_counts_in_part() -> None:
    """A neighbour that blinks makes a zone last less long, one that never does longer."""
    tick_h = 1 / 6

    def lasts(neighbour: list[bool], shared: float) -> float:
        beliefs = ZoneBeliefs(shipped_models(), tick_h, 2, shared)
        for there in neighbour:
            beliefs.see([True, there])
        return beliefs.survival(4.0)[0]

    blinks, stays = [True, False] * 36, [True] * 72
    assert lasts(blinks, 0.5) < lasts(blinks, 0.0) < lasts(stays, 0.5)
    assert lasts(blinks, 0.0) == lasts(stays, 0.0)


def test_a_machine_in_an_old_spell_is_worth_more() -> None:
    table = ValueTable(posed(8, 12, 0.5, 1 / 6, 0.3, *_OWN), shipped_models())
    layer, first = table.at(60), table.problem.levels - 1
    fresh, middle, old = (layer.spot[:, first + at, 0, 20 - layer.first] for at in range(3))
    assert (old < middle).all() and (middle < fresh).all()
    assert kept(0, 4.0) < kept(1, 4.0) < kept(2, 4.0)
    assert [stage(hours) for hours in (0, 1, 3.9, 4)] == [0, 1, 1, 2]
