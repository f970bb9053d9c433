"""Messages: what is news, each told once to each recipient, again after a while if it was not taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from planner.database import Database
from planner.outbox import Delivery, Outbox, delay_s, news
from planner.schema_sql import MIGRATIONS
from planner.store import Change, Store
from providers.errors import LaunchError
from tests.planner.run_factories import START, attempt_of, terms_of


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A run that started, was taken away, came back, and is over."""
    path = tmp_path / "plan.db"
    with Store(path) as store:
        store.create("run-1", terms_of(notify=("ANN", "BOB")), attempt_of())
        for state in ("running", "syncing", "running", "preempted", "recovering", "running", "succeeded"):
            run = store.find("run-1")
            attempt = replace(run.current, backend_id="7", started_at=START)
            opened = (attempt_of(2, recovery=1),) if run.state == "recovering" else ()
            store.apply(run, Change(state, "", attempt, START, opened=opened))  # type: ignore[arg-type]
    return path


@pytest.fixture
def outbox(ledger: Path) -> Iterator[Outbox]:
    with Outbox(ledger) as one:
        one.collect(())
        yield one


class Post:
    """Takes messages, or does not."""

    def __init__(self, *, closed: bool = False) -> None:
        self.taken: list[tuple[str, str]] = []
        self.closed = closed

    def __call__(self, recipient: str, title: str, text: str, bad: bool) -> None:
        if self.closed:
            raise LaunchError("nobody takes it")
        self.taken.append((recipient, title))


def kinds(rows: list[Delivery]) -> list[str]:
    return [row.kind for row in rows if row.recipient == "ANN"]


def test_each_thing_that_matters_is_told_once_to_each(outbox: Outbox, ledger: Path) -> None:
    post = Post()
    assert kinds(outbox.deliver(post, lambda: START)) == ["started", "preempted", "recovered", "finished"]
    assert len(post.taken) == len(set(post.taken)) == 8
    with Outbox(ledger) as again:  # as a monitor that was started again
        assert again.collect(()) == 0
        assert again.deliver(post, lambda: "2030-01-01T00:00:00.000Z") == []


def test_what_is_not_taken_is_tried_again_later_and_shown(outbox: Outbox) -> None:
    post = Post(closed=True)
    first = outbox.deliver(post, lambda: START)
    assert {row.error for row in first} == {"nobody takes it"}
    assert len(outbox.undelivered("run-1")) == 8 and outbox.undelivered("run-2") == []
    assert outbox.deliver(post, lambda: START) == []
    post.closed = False
    (due,) = {row.next_try_at for row in first}
    assert due is not None
    assert len(outbox.deliver(post, lambda: due)) == 8
    assert outbox.undelivered() == []


def test_one_that_is_never_taken_is_given_up(outbox: Outbox) -> None:
    moments = iter(f"20{year}-01-01T00:00:00.000Z" for year in range(30, 99))
    for moment in moments:
        if not outbox.deliver(Post(closed=True), lambda moment=moment: moment):  # type: ignore[misc]
            break
    assert all(row.is_given_up and row.tries == 30 for row in outbox.undelivered())


def test_a_sender_that_is_killed_before_it_knows_leaves_the_message_for_later(outbox: Outbox) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with pytest.raises(Killed):
        outbox.deliver(die, lambda: START)
    rows = [row for row in outbox.recent(9) if row.tries]
    assert [(row.sent_at, row.error) for row in rows] == [(None, None)]
    assert rows[0].next_try_at is not None and rows[0].next_try_at > START


def test_two_senders_at_once_do_not_send_twice(outbox: Outbox, ledger: Path) -> None:
    post = Post()

    def both(*message: object) -> None:
        post(*message)  # type: ignore[arg-type]
        with Outbox(ledger) as other:
            other.deliver(post, lambda: START)

    outbox.deliver(both, lambda: START)
    assert len(post.taken) == len(set(post.taken)) == 8


def test_a_late_refusal_does_not_undo_what_another_sender_delivered(outbox: Outbox, ledger: Path) -> None:
    def slow(*_: object) -> None:
        with Outbox(ledger) as other:
            other.deliver(Post(), lambda: "2030-01-01T00:00:00.000Z")
        raise LaunchError("no answer in time")

    outbox.deliver(slow, lambda: START)
    assert [(row.sent_at, row.error) for row in outbox.recent(9)] == [("2030-01-01T00:00:00.000Z", None)] * 8


def test_runs_that_name_nobody_and_what_is_about_no_run_go_to_everybody(tmp_path: Path) -> None:
    path = tmp_path / "plan.db"
    with Store(path) as store:
        store.create("quiet", terms_of(), attempt_of())
        store.note(store.find("quiet"), "cap_warning", "80 % of the cap of $5 is spent", START)
    with Database(path) as db, db.writing():
        db.insert("notices", {"at": START, "subject": "schedule nightly", "text": "missed"})
    with Outbox(path) as outbox:
        assert outbox.collect(("OPS",)) == 2
        assert [(row.kind, row.run_id) for row in outbox.recent(9)] == [("notice", None), ("cap_80", "quiet")]


def test_the_past_of_an_older_ledger_is_no_news(ledger: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    before = next(n for n, steps in enumerate(MIGRATIONS) if any("deliveries" in step for step in steps))
    with sqlite3.connect(old) as db:
        for statements in MIGRATIONS[:before]:
            for statement in statements:
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {before}")
        db.execute("INSERT INTO notices (at, subject, text) VALUES ('2020', 'a', 'b')")
    db.close()
    with Outbox(old) as outbox:
        assert outbox.collect(("OPS",)) == 0


@pytest.mark.parametrize(
    ("kind", "state", "attempt", "before", "told"),
    [
        ("launch", "queued", 1, [], None),
        ("observed", "provisioning", 1, [("queued", 1)], None),
        ("observed", "running", 1, [("queued", 1)], "started"),
        ("observed", "running", 1, [("running", 1)], None),
        ("observed", "running", 2, [("running", 1), ("recovering", 1)], "recovered"),
        ("observed", "recovering", 1, [("preempted", 1)], None),
        ("observed", "capped", 1, [("running", 1)], "cap_reached"),
        ("stop", "cancelling", 1, [("running", 1)], None),
        ("refused", "preempted", 2, [("running", 1), ("preempted", 1), ("queued", 2)], None),
        ("cap_warning", "running", 1, [("running", 1)], "cap_80"),
        ("deadline_at_risk", "running", 1, [("running", 1)], "deadline"),
        ("reap", "succeeded", 1, [("succeeded", 1)], "stray"),
        ("record", "succeeded", 1, [("succeeded", 1)], None),
    ],
)
def test_what_is_news(
    kind: str, state: str, attempt: int, before: list[tuple[str, int]], told: str | None
) -> None:
    assert news(kind, state, attempt, before) == told


def test_delays_grow() -> None:
    assert [delay_s(n) for n in (1, 2, 9)] == [30.0, 60.0, 900.0]
