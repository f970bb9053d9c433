"""An adoption that is cut off anywhere leaves the run with one owner who watches it, and its hold as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from planner.adopt import adopt
from planner.adoption_book import AdoptionBook
from planner.ledger_identity import identity_of
from planner.places import Places
from planner.record import claim as _claim
from planner.record import is_own, read_record
from planner.register import take as _take
from planner.runs import Run
from planner.store import Store
from tests.planner.budget_world import World, interrupted, only_the_job

CAP_USD = 1.3


@pytest.fixture(autouse=True)
def _light() -> Iterator[None]:
    with patch("planner.launch.build_bundle", only_the_job):
        yield


def _run_of(world: World, home: str) -> Run | None:
    with Store(Places(world.root / home).ledger) as store:
        return store.get("a")


def _adopt(world: World) -> Run:
    """As `plan runs adopt`, with a point around each write outside the ledger too."""
    with (
        world.desk() as desk,
        patch("planner.adopt.take", _pointed(world, _take)),
        patch("planner.adopt.claim", _pointed(world, _claim)),
    ):
        return adopt(desk, world.prefix("a"))


def _pointed(world: World, act: Callable[..., Any]) -> Callable[..., Any]:
    def pointed(*args: Any, **named: Any) -> Any:
        world.point()
        done = act(*args, **named)
        world.point()
        return done

    return pointed


def _begun(root: Path) -> World:
    world = World(root, home="first")
    world.begin(2.0)
    world.launch_run("a", CAP_USD, 3.0)
    world.pass_time(300)
    world.round()
    assert [run.state for run in world.runs()] == ["running"]
    return world


def _points(root: Path) -> int:
    """How many points an adoption passes."""
    world, passed = _begun(root), 0
    world.home = "second"

    def count() -> None:
        nonlocal passed
        passed += 1

    world.point = count
    assert _adopt(world).state == "running"
    return passed


def test_wherever_it_is_cut_off_one_ledger_has_the_run_and_its_hold_stays(tmp_path: Path) -> None:
    number = _points(tmp_path / "count")
    assert number > 8
    for point in range(number):
        world = _begun(tmp_path / f"{point}")
        world.home = "second"
        interrupted(world, lambda world=world: _adopt(world), point, None)  # type: ignore[misc]
        others = {"first": "second", "second": "first"}
        looks_first = ("first", "second")[point % 2]
        for home in (looks_first, others[looks_first], looks_first, others[looks_first]):
            world.home = home
            world.pass_time(130)
            world.round()
            world.settle()
        record = read_record(world.prefix("a"))
        assert record is not None
        watching = [home for home in others if is_own(record, identity_of(Places(world.root / home).ledger))]
        (run,) = [_run_of(world, home) for home in watching]
        assert run is not None and not run.final, (point, watching)
        share = world.settle().runs["a"]
        assert (share.micro_usd, share.over) == (round(CAP_USD * 1e6), False), (point, share)
        with AdoptionBook(Places(world.root / "second").ledger) as book:
            assert book.begun() == {}
        if point % 5:
            continue
        world.home = watching[0]
        for _ in range(120):
            world.pass_time(60)
            world.round()
        (machines,) = [[one for one in world.machines if one.run_id == "a"]]
        assert all(one.end_s is not None for one in machines), point
        share = world.settle().runs["a"]
        run = _run_of(world, watching[0])
        assert run is not None and run.state == "succeeded" and share.over, (point, share)
        assert share.micro_usd == run.cost_micro_usd


def test_a_run_that_comes_back_to_a_ledger_is_on_record_in_one_step(tmp_path: Path) -> None:
    world = _begun(tmp_path)
    world.home = "second"
    _adopt(world)
    world.home = "first"
    world.preempt("a")
    world.round()
    assert [run.state for run in world.runs()] == ["cancelled"]  # it was let go
    world.home = "second"
    for _ in range(120):
        world.pass_time(60)
        world.round()
    world.home = "first"
    found = _adopt(world)
    assert (found.state, len(found.attempts)) == ("succeeded", 2)
    with Store(Places(world.root / "first").ledger) as store:
        kinds = [(event.kind, event.state) for event in store.events("a")]
    assert kinds[-1] == ("adopt", "succeeded") and ("adopt", "queued") not in kinds
