"""What is a stray, what it costs, and that ending is looked after. Pure but for a fake backend of lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from planner.reap import UNKNOWN, HourPrice, Judge, end_all, price_in, sweep
from planner.runs import Run
from planner.store import Change, Store
from planner.try_book import Try, TryState
from providers.errors import LaunchError
from providers.offers import Offer
from providers.strays import Thing
from providers.tags import tag_value
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

NOW = "2026-11-22T14:00:00.000Z"
JOB = Thing("job", "plan-run-1-1", "run-1", 1, START, "slurm/a", ref=("7",))


class Things:
    """A backend that is a list."""

    def __init__(self, name: str, *things: Thing, stubborn: bool = False, broken: bool = False) -> None:
        self.name, self.things, self.stubborn, self.broken = name, list(things), stubborn, broken

    def find(self) -> Iterator[Thing]:
        if self.broken:
            raise LaunchError("nobody answers")
        yield from self.things

    def end(self, thing: Thing) -> None:
        if not self.stubborn:
            self.things.remove(thing)


def judge(*runs: Run, settle_s: float = 0.0, owner: str | None = None) -> Judge:
    return Judge(
        runs, lambda _: HourPrice(2_000_000, "a book"), lambda _: owner, lambda _: None, NOW, settle_s
    )


def why(thing: Thing, *runs: Run, **options: object) -> str | None:
    found = sweep([Things("skypilot", thing)], judge(*runs, **options)).strays  # type: ignore[arg-type]
    return found[0].why if found else None


OVER = run_of("cancelled")
OFFER = Offer("aws", "r", "z1", "g6", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.5, "feed", "2026-11-20")
TRY = Try("plan-try-1", "p", OFFER, 1, 500_000, 300.0, "asked", "", START)
TWICE = run_of(
    "running", attempt_of(started_at=START, ended_at=START), attempt_of(2, backend_id="8", started_at=START)
)
RESTING = run_of("preempted", attempt_of(backend_id="7", started_at=START, ended_at=START))


def test_what_a_run_needs_is_no_stray() -> None:
    assert why(JOB, run_of("running")) is None
    assert why(replace(JOB, attempt=2), TWICE) is None
    assert why(replace(JOB, kind="role", attempt=None), RESTING) is None  # the next attempt uses it again


def test_what_no_run_needs_is_one() -> None:
    assert why(JOB, OVER) == "run run-1 is over (cancelled)"
    assert why(JOB, TWICE) == "launch 1 of run-1 was followed by launch 2"
    assert why(JOB, RESTING) == "run run-1 rests: its machines should be gone"
    assert why(JOB) == "this ledger knows no such run"
    assert why(JOB, owner="ann") == "run of ann"


def test_a_run_that_another_ledger_adopted_is_left_to_it() -> None:
    for mine in (OVER, TWICE, RESTING):
        asked = replace(judge(mine), adopter_of=lambda _: "a ledger on elsewhere")
        (stray,) = sweep([Things("skypilot", JOB)], asked).strays
        assert (stray.is_ours, stray.owner) == (False, "a ledger on elsewhere")
        assert stray.why == "run run-1 was adopted by a ledger on elsewhere"


def test_a_machine_is_not_ended_unless_it_is_known_to_be_ours() -> None:
    def unread(_: Run) -> str | None:
        raise LaunchError("the bucket does not answer")

    (stray,) = sweep([Things("skypilot", JOB)], replace(judge(OVER), adopter_of=unread)).strays
    assert not stray.is_ours and stray.owner is None
    assert stray.why.endswith("cannot be told: the bucket does not answer")


MACHINE = replace(JOB, kind="instance", run="goat-7")


def test_a_tag_spells_the_run_in_its_own_way() -> None:
    run = replace(run_of("running"), run_id="Goat.7")
    assert why(MACHINE, run) is None
    assert why(MACHINE, replace(OVER, run_id="Goat.7")) == "run Goat.7 is over (cancelled)"


@pytest.mark.parametrize("names", [("Goat.7", "goat-7"), ("goat-7", "Goat.7")])
def test_a_machine_is_left_alone_while_any_run_that_its_tag_may_mean_needs_it(names: tuple[str, str]) -> None:
    over, running = replace(OVER, run_id=names[0]), replace(run_of("running"), run_id=names[1])
    assert why(MACHINE, over, running) is None
    assert why(MACHINE, running, over) is None
    assert why(MACHINE, over, replace(OVER, run_id=names[1])) is not None


def test_a_long_id_is_cut_in_its_tag() -> None:
    long = "a-schedule-of-a-very-long-name" + "x" * 40
    over, running = (
        replace(OVER, run_id=f"{long}-20261101"),
        replace(run_of("running"), run_id=f"{long}-20261201"),
    )
    assert why(replace(MACHINE, run=tag_value(long)), running, over) is None


def test_a_job_bears_the_very_id_of_its_run() -> None:
    assert why(replace(JOB, run="goat-7"), replace(OVER, run_id="Goat.7")) == "this ledger knows no such run"


@pytest.mark.parametrize("state", ["asked", "had"])
def test_a_try_that_may_be_under_way_is_shown_and_never_ended(state: TryState) -> None:
    thing = replace(JOB, kind="instance", run="plan-try-1", attempt=None)
    asked = replace(judge(), tries=[replace(TRY, state=state)])
    (stray,) = sweep([Things("aws instances", thing)], asked).strays
    assert (stray.is_ours, stray.owner) == (False, "a try of this ledger")


def test_what_a_try_that_is_over_has_left_is_ours_to_end(tmp_path: Path) -> None:
    thing = replace(JOB, kind="instance", run="plan-try-1", attempt=None)
    things = Things("aws instances", thing)
    over = replace(TRY, state="released", ended_at="2026-11-22T13:59:00.000Z")
    assert sweep([things], replace(judge(settle_s=90.0), tries=[over])).strays == ()
    (stray,) = sweep([things], replace(judge(), tries=[over])).strays
    assert (stray.is_ours, stray.why) == (True, "try plan-try-1 is over (released)")
    with Store(tmp_path / "plan.db") as store:
        (row,) = end_all([things], [stray], store, lambda: NOW)
    assert (row.error, things.things) == (None, [])


def test_a_machine_may_take_a_while_to_go() -> None:
    late = replace(OVER, state_since_at="2026-11-22T13:59:30.000Z")
    assert why(JOB, late, settle_s=60) is None
    assert why(JOB, late, settle_s=10) is not None
    assert why(replace(JOB, since_at="2026-11-22T13:59:30.000Z"), settle_s=60) is None


def test_the_price_is_the_ledgers_and_of_an_unknown_run_the_books() -> None:
    (known,) = sweep([Things("skypilot", JOB)], judge(OVER)).strays
    (unknown,) = sweep([Things("skypilot", JOB)], judge()).strays
    assert (known.price, known.cost_micro_usd(NOW)) == (
        HourPrice(1_000_000, "the ledger, at launch"),
        2_000_000,
    )
    assert unknown.price == HourPrice(2_000_000, "a book")
    (upload,) = sweep([Things("s3 uploads", replace(JOB, kind="upload"))], judge(OVER)).strays
    assert (upload.price, upload.cost_micro_usd(NOW)) == (UNKNOWN, None)


def test_a_machine_costs_what_its_zone_costs_and_never_nothing_if_unknown() -> None:
    def offer(zone: str, price: float | None) -> Offer:
        return Offer("aws", "r", zone, "g6", "L4", 1, 24.0, 4.0, 16.0, "spot", price, "feed", "2026-11-20")

    thing = replace(
        JOB, kind="instance", cloud="aws", region="r", instance_type="g6", market="spot", place="aws/z1"
    )
    book = [offer("z1", 0.5), offer("z2", 0.7), offer("z3", None)]
    assert price_in(book, thing) == HourPrice(500_000, "feed, 2026-11-20")
    assert price_in(book, replace(thing, place="aws/z9")) == HourPrice(700_000, "feed, 2026-11-20")
    assert price_in(book[2:], thing) == UNKNOWN
    assert price_in(book, replace(thing, instance_type=None)) == UNKNOWN


def test_a_backend_that_does_not_answer_is_named_and_stops_no_other() -> None:
    found = sweep([Things("aws roles", broken=True), Things("skypilot", JOB)], judge(OVER))
    assert found.not_examined == {"aws roles": "nobody answers"}
    assert [stray.thing for stray in found.strays] == [JOB]


@pytest.mark.parametrize("stubborn", [False, True])
def test_what_was_ended_is_looked_for_again_and_the_ledger_says_so(tmp_path: Path, stubborn: bool) -> None:
    backend = Things("skypilot", JOB, stubborn=stubborn)
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", terms_of(), attempt_of())
        run = store.find("run-1")
        found = sweep([backend], judge(replace(run, state="failed")))
        (ended,) = end_all([backend], found.strays, store, lambda: NOW)
        last = store.events("run-1")[-1]
    assert ended.error == ("it is still there" if stubborn else None)
    assert last.kind == "reap"
    assert ("could not be ended" in last.reason) == stubborn


def test_what_a_run_that_was_resumed_meanwhile_may_need_stays(tmp_path: Path) -> None:
    backend = Things("skypilot", JOB)
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", terms_of(), attempt_of())
        store.apply(store.find("run-1"), Change("failed", "", attempt_of(outcome="failed"), START))
        found = sweep([backend], judge(store.find("run-1")))
        store.add_attempt(store.find("run-1"), attempt_of(2), cap_micro_usd=None, max_duration_s=None)
        (ended,) = end_all([backend], found.strays, store, lambda: NOW)
    assert (ended.error, backend.things) == ("run run-1 was resumed meanwhile", [JOB])
