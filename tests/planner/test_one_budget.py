"""Two or three runs that move at once under one budget, whoever does what in between and is killed where."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests.planner.budget_world import RELEASE_S, World, interrupted, only_the_job

NAMES = ("a", "b", "c")
CAPS_USD = (0.15, 0.4, 0.9, 1.3)
DEADLINES_H = (1.2, 1.5, 3.0)
LIMIT_USD = 2.0
#: What a machine may cost from the end of its work to its release, and the step of this world's clock; at the dearest.
LATE_USD = 1.2 * (RELEASE_S + 10) / 3600

Words = tuple[Any, ...]


def _simple(draw: random.Random) -> Words:
    """One command of a person, or a round of a monitor."""
    name, cap = draw.choice(NAMES), draw.choice(CAPS_USD)
    kinds: list[Words] = [
        ("launch", name, cap, draw.choice(DEADLINES_H)),
        ("resume", name, draw.choice((None, cap))),
        ("cancel", name),
        ("settle",),
        ("round",),
    ]
    return draw.choices(kinds, (3, 4, 1, 3, 6))[0]


def _words(draw: random.Random) -> Words:
    """One thing that happens."""
    point = draw.randrange(40)
    kinds: list[Words] = [
        ("serve", draw.randint(1, 15)),
        ("alone", draw.randint(1, 10)),
        ("preempt", draw.choice(NAMES)),
        ("silent", draw.random() < 0.3),
        ("full", draw.choice(("bed-a", "bed-b")), draw.choice(("spot", "on_demand"))),
        ("free",),
        ("act", _simple(draw), None, None),
        ("act", _simple(draw), point, None),
        ("act", _simple(draw), point, _simple(draw)),
    ]
    return draw.choices(kinds, (6, 1, 3, 1, 1, 1, 2, 4, 5))[0]


def script_of(seed: int) -> list[Words]:
    """Runs that are launched at once, and what happens then."""
    draw = random.Random(seed)
    launches = [
        ("act", ("launch", name, draw.choice(CAPS_USD), draw.choice(DEADLINES_H)), None, None)
        for name in NAMES[: draw.choice((2, 3))]
    ]
    return [*launches, *(_words(draw) for _ in range(draw.randint(10, 30)))]


def _act(world: World, words: Words) -> Callable[[], Any]:
    what, *rest = words
    return {
        "launch": lambda: world.launch_run(*rest),
        "resume": lambda: world.resume_run(*rest),
        "cancel": lambda: world.cancel_run(*rest),
        "settle": world.settle,
        "round": world.round,
    }[what]


def _outside(world: World, words: Words) -> None:
    what, *rest = words
    if what == "serve":
        for _ in range(rest[0]):
            world.pass_time(60)
            interrupted(world, world.round, None, None)
            _check(world)
    elif what == "alone":
        world.pass_time(60 * rest[0])
    elif what == "preempt":
        world.preempt(rest[0])
    elif what == "silent":
        world.silent = rest[0]
    elif what == "full":
        world.refused.add(tuple(rest))  # type: ignore[arg-type]
    else:
        world.refused.clear()


def _check(world: World) -> None:
    """What holds at every moment."""
    late_usd = sum(LATE_USD for one in world.machines)
    for name in NAMES:
        assert len(world.open_machines(name)) <= 1, f"{name} was bought twice"
    spent_usd = sum(one.cost_usd(world.now_s) for one in world.machines)
    assert spent_usd <= LIMIT_USD + late_usd, world.machines


def _check_books(world: World) -> None:
    """What holds whenever nobody is at it: the register holds what each run may still cost."""
    book = world.settle()
    taken = book.taken_micro_usd(world.now()[:7])
    assert taken is not None and taken <= LIMIT_USD * 1e6 + LATE_USD * 1e6 * len(world.machines), book
    for run in world.runs():
        share, cap = book.runs[run.run_id], run.terms.cap_micro_usd or 0
        if not run.final:
            assert not share.over and (share.micro_usd or 0) >= cap, (run, book)
        machines = [one for one in world.machines if one.run_id == run.run_id]
        really_usd = sum(one.cost_usd(world.now_s) for one in machines)
        highest = max([one.limits.cap_usd or 0.0 for one in machines] + [cap / 1e6])
        assert really_usd <= highest + LATE_USD * len(machines), (run, machines)
        if run.final:
            booked = sum(s.micro_usd or 0 for n, s in book.runs.items() if n.partition("@")[0] == run.run_id)
            assert booked >= really_usd * 1e6 - 10 * len(machines), (run, machines, book)


def _play(world: World, script: list[Words]) -> None:
    world.begin(LIMIT_USD)
    for words in script:
        if words[0] == "act":
            _, act, at, then = words
            interrupted(world, _act(world, act), at, None if then is None else _act(world, then))
        else:
            _outside(world, words)
        _check(world)
        _check_books(world)
    world.silent = False
    world.refused.clear()
    for _ in range(300):
        world.pass_time(60)
        interrupted(world, world.round, None, None)
        _check(world)
        if all(run.final for run in world.runs()):
            break
    _check_books(world)
    assert all(run.final for run in world.runs()), [(run.state, run.state_reason) for run in world.runs()]
    assert not any(world.open_machines(name) for name in NAMES)


@pytest.fixture(autouse=True)
def _light() -> Any:
    with patch("planner.launch.build_bundle", only_the_job):
        yield


#: Of the first hundred, one found that the end of a run that was just being resumed took its hold away.
@pytest.mark.parametrize("seed", [*range(7), 48])
def test_no_order_of_events_spends_more_than_the_budget_or_buys_twice(seed: int, tmp_path: Path) -> None:
    _play(World(tmp_path), script_of(seed))
