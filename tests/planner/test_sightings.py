"""What runs and tries of the ledger say of places."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from planner.avoidance import place_of
from planner.offer_document import offer_document
from planner.queue_times import queue_time
from planner.sightings import sightings_of
from planner.store import Store
from planner.try_book import Try, TryBook
from providers.offers import Offer
from tests.planner.run_factories import START, attempt_of, run_of, terms_of

A = Offer("aws", "us-west-2", "us-west-2a", "g6.xlarge", "L4", 1, 24.0, 4.0, 16.0, "spot", 0.28, "test", None)
B, C = A._replace(zone="us-west-2b"), A._replace(cloud="gcp", zone="us-central1-a")
END = "2026-11-22T13:00:00.000Z"


def attempt_on(offer: Offer, number: int = 1, **changes: object) -> object:
    made = attempt_of(number, **{"started_at": START, **changes})
    return replace(made, offer_json=json.dumps(offer_document(offer)))


def seen(*attempts: object, **askings: tuple[Offer, ...]) -> list[tuple[str | None, str]]:
    run = run_of("running", *attempts, terms=terms_of(infra="skypilot"))  # type: ignore[arg-type]
    keyed = {("run-1", int(key.removeprefix("launch_"))): offers for key, offers in askings.items()}
    return [(row.place.zone, row.what) for row in sightings_of([run], (), keyed)]


def test_attempts_tell_what_was_had_and_taken_away() -> None:
    lost = attempt_on(A, ended_at=END, outcome="preempted")
    assert seen(lost) == [("us-west-2a", "had"), ("us-west-2a", "preempted")]
    assert seen(attempt_on(A, ended_at=END, outcome="done")) == [("us-west-2a", "had")]


def test_a_place_that_refused_an_attempt_is_remembered() -> None:
    refused = attempt_on(A, started_at=None, ended_at=END, outcome="stock_out")
    assert seen(refused) == [("us-west-2a", "stock_out")]
    assert seen(attempt_on(A, started_at=None, ended_at=END, outcome="preempted")) == []


def test_what_stood_before_the_machine_that_was_had_was_refused_in_its_cloud_alone() -> None:
    assert seen(attempt_on(B), launch_1=(C, A, B)) == [("us-west-2a", "stock_out"), ("us-west-2b", "had")]
    assert seen(attempt_on(B), launch_2=(A, B)) == [("us-west-2b", "had")]


def test_local_runs_say_nothing() -> None:
    assert sightings_of([run_of("running", attempt_on(A))]) == []  # type: ignore[arg-type]


def try_of(number: int, state: str, **changes: object) -> Try:
    made = Try(
        f"try-{number}", "herd", A, 1, 280_000, 600.0, "asked", "", f"2026-11-22T12:{number:02}:00.000Z"
    )
    return replace(made, state=state, **changes)  # type: ignore[arg-type]


@pytest.fixture
def book(tmp_path: Path) -> TryBook:
    return TryBook(tmp_path / "plan.db")


def test_tries_are_kept_until_they_are_known_to_be_gone(book: TryBook) -> None:
    with book:
        book.record(try_of(1, "asked"))
        assert [one.try_id for one in book.open_tries()] == ["try-1"]
        had = try_of(1, "had", answered_at="2026-11-22T12:01:40.000Z")
        assert book.update(had)
        assert list(book.open_tries()) == [had]
        gone = replace(had, state="released", ended_at=END, cost_micro_usd=5)
        assert book.update(gone)
        assert not book.update(replace(gone, state="had"))  # over is over
        assert book.all_tries() == [gone]
        assert list(book.open_tries()) == []


def test_queue_times_are_those_of_own_tries_alone() -> None:
    waits = [40, 100, 70]
    had = [
        try_of(n, "released", answered_at=f"2026-11-22T12:{n + s // 60:02}:{s % 60:02}.000Z")
        for n, s in enumerate(waits)
    ]
    refused = try_of(9, "stock_out", answered_at="2026-11-22T12:09:30.000Z")
    assert queue_time(A, [*had, refused]) == (4, 3, 70.0, 100.0)
    assert queue_time(A, [refused]) == (1, 0, None, None)
    assert queue_time(A, [try_of(1, "asked"), try_of(2, "failed", answered_at=END)]) is None
    assert queue_time(B, had) is None
    assert queue_time(A._replace(zone="usw2-az2"), had) == (3, 3, 70.0, 100.0)  # an id: of its whole region
    assert {(row.place, row.what) for row in sightings_of([], [*had, refused])} == {
        (place_of(A), "had"),
        (place_of(A), "stock_out"),
    }
    assert sightings_of([], [refused])[0].at == datetime.fromisoformat("2026-11-22T12:09:30+00:00")


def test_the_order_asked_for_is_kept_with_each_launch(tmp_path: Path) -> None:
    with Store(tmp_path / "plan.db") as store:
        store.create("run-1", terms_of(), attempt_of())
        run = store.get("run-1")
        assert run is not None
        assert store.record_asking(run, [A, B], START) == (A, B)
        assert store.record_asking(run, [B, A], START) == (A, B)  # a launch that is repeated asks as before
        assert store.askings() == {("run-1", 1): (A, B)}
