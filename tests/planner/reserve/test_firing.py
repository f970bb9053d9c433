"""Each time that is due becomes one run, one skip or one miss; never two, never silence."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from planner.reserve.book import ReservationBook
from planner.reserve.children import as_recorded
from planner.reserve.firing import Firer, Started, due_times, extra, tick
from planner.reserve.schedule_book import ScheduleBook
from planner.reserve.schedules import Schedule
from planner.reserve.timing import Timing
from planner.runs import Run, utc_text
from tests.planner.run_factories import START as BEFORE
from tests.planner.run_factories import attempt_of, run_of

START = datetime(2026, 12, 1, 1, 0, tzinfo=UTC)


class Runs:
    """Launches by run id, as `plan launch` does: the same id is one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exit_code = 0
        self.cost = 1_000_000
        self.caps: list[float | None] = []
        self.dies = False
        self.good: bool | None = None
        self.measured: list[str] = []

    def start(self, schedule: Schedule, run_id: str, cap_usd: float | None) -> Started:
        if self.exit_code:
            return Started(self.exit_code, "no machine")
        (self.folder / run_id).touch()
        self.caps.append(cap_usd)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return Started(0)

    def is_on_record(self, run_id: str) -> bool:
        return (self.folder / run_id).exists()

    def still_meets(self, schedule: Schedule, run_id: str) -> bool | None:
        self.measured.append(run_id)
        return self.good

    def cost_micro_usd(self, run_id: str) -> int | None:
        return self.cost if (self.folder / run_id).exists() else 0

    @property
    def started(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


class Clock:
    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def book(tmp_path: Path) -> Iterator[ScheduleBook]:
    with ScheduleBook(tmp_path / "plan.db") as opened:
        yield opened


@pytest.fixture
def firer(book: ScheduleBook, tmp_path: Path) -> Firer:
    (tmp_path / "runs").mkdir()
    return Firer(book, Runs(tmp_path / "runs"), Clock(START))


def schedule_of(cron: str | None = "0 2 * * *", **changes: object) -> Schedule:
    timing = Timing(cron, None if cron else START + timedelta(hours=1), "UTC")
    first = timing.after(START)
    assert first is not None
    at = utc_text(START)
    row = Schedule(
        *("daily", at, "spec.yaml", "local", timing, 5_000_000),
        *("active", "waits", at, utc_text(first), 1, 6 * 3600.0),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def at(firer: Firer, moment: datetime) -> list[tuple[str, str]]:
    assert isinstance(firer.now, Clock)
    firer.now.at = moment
    tick(firer)
    rows = firer.book.firings("daily")
    return [(row.due_at[:16], row.state) for row in reversed(rows)]


def runs_of(firer: Firer) -> Runs:
    assert isinstance(firer.starter, Runs)
    return firer.starter


def test_a_time_starts_one_run_however_often_it_is_ticked(firer: Firer) -> None:
    firer.book.add(schedule_of())
    assert at(firer, START) == []
    for minutes in (60, 61, 62):
        assert at(firer, START + timedelta(minutes=minutes)) == [("2026-12-01T02:00", "started")]
    assert runs_of(firer).started == ["daily-20261201-0200"]
    assert at(firer, START + timedelta(hours=26))[-1] == ("2026-12-02T02:00", "started")


def test_a_run_asked_for_in_the_second_that_is_due_holds_up_nothing(firer: Firer) -> None:
    firer.book.add(schedule_of())
    assert isinstance(firer.now, Clock)
    firer.now.at = START + timedelta(hours=1)
    extra(firer, firer.book.get("daily"))
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "started")]
    assert at(firer, START + timedelta(hours=26))[-1] == ("2026-12-02T02:00", "started")
    assert len(runs_of(firer).started) == 2


def test_a_model_that_still_meets_its_goal_is_not_trained_again(firer: Firer) -> None:
    firer.book.add(schedule_of(skip_if_met=True))
    runs = runs_of(firer)
    days = [START + timedelta(hours=1 + 24 * day) for day in range(5)]
    assert at(firer, days[0])[-1][1] == "started" and runs.measured == []
    for day, good, state in (
        (1, True, "skipped"),
        (2, True, "skipped"),
        (3, False, "started"),
        (4, None, "started"),
    ):
        runs.good = good
        assert at(firer, days[day])[-1][1] == state
    first, later = "daily-20261201-0200", "daily-20261204-0200"
    assert runs.measured == [first, first, first, later]
    (skipped,) = [row for row in firer.book.firings("daily") if row.due_at.startswith("2026-12-02")]
    assert skipped.reason == f"the model of {first} still meets the goal"


def test_times_without_a_scheduler_are_missed_and_told(firer: Firer, tmp_path: Path) -> None:
    firer.book.add(schedule_of())
    found = at(firer, START + timedelta(days=3, hours=2))
    assert [state for _, state in found] == ["missed", "missed", "missed", "started"]
    with ReservationBook(tmp_path / "plan.db") as notices:
        assert sum("missed" in notice.text for notice in notices.untold()) == 3


def test_what_is_too_late_is_missed(firer: Firer) -> None:
    firer.book.add(schedule_of())
    assert at(firer, START + timedelta(hours=8)) == [("2026-12-01T02:00", "missed")]


def test_a_clock_that_jumps_by_years_leaves_a_bounded_history(firer: Firer) -> None:
    firer.book.add(schedule_of("*/30 * * * *"))
    found = at(firer, START + timedelta(days=200))
    assert 10 < len(found) < 30
    assert found[-1][1] == "started"


def test_a_clock_that_jumps_back_starts_nothing_again(firer: Firer) -> None:
    firer.book.add(schedule_of())
    at(firer, START + timedelta(hours=1))
    assert len(at(firer, START - timedelta(days=2))) == 1
    assert len(at(firer, START + timedelta(hours=2))) == 1


def test_a_launch_that_fails_is_tried_again_until_it_is_too_late(firer: Firer) -> None:
    firer.book.add(schedule_of())
    runs_of(firer).exit_code = 6
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "due")]
    assert at(firer, START + timedelta(hours=2)) == [("2026-12-01T02:00", "due")]
    runs_of(firer).exit_code = 0
    assert at(firer, START + timedelta(hours=3)) == [("2026-12-01T02:00", "started")]
    runs_of(firer).exit_code = 6
    assert at(firer, START + timedelta(hours=26))[-1][1] == "due"
    assert at(firer, START + timedelta(hours=40))[-1][1] == "missed"


def test_a_launch_that_fails_is_tried_more_and_more_rarely(firer: Firer) -> None:
    firer.book.add(schedule_of())
    runs_of(firer).exit_code = 6
    for seconds in range(0, 5 * 3600, 15):
        at(firer, START + timedelta(hours=1, seconds=seconds))
    (firing,) = firer.book.firings("daily")
    assert firing.state == "due" and 20 < firing.tries < 30


@pytest.mark.parametrize(
    ("run", "said", "code"),
    [
        (None, 6, 6),
        (run_of("failed", attempt_of(outcome="failed")), 0, 6),
        (run_of("failed", attempt_of(outcome="failed")), 1, 1),
        (run_of("failed", attempt_of(backend_id="c", outcome="failed", ended_at=BEFORE)), 0, 6),
        (run_of("failed", attempt_of(backend_id="c", started_at=BEFORE, ended_at=BEFORE)), 10, 0),
        (run_of("capped", attempt_of(backend_id="c", started_at=BEFORE, ended_at=BEFORE)), 8, 0),
        (run_of("running"), 1, 0),
        (run_of("queued", attempt_of()), 7, 7),
        (run_of("queued", attempt_of()), 0, 0),
        (run_of("cancelled", attempt_of(outcome="cancelled", ended_at=BEFORE)), 11, 11),
    ],
)
def test_a_run_was_started_if_the_ledger_says_so(run: Run | None, said: int, code: int) -> None:
    assert as_recorded(Started(said, "words"), run).exit_code == code


def test_a_spec_that_is_wrong_fails_at_once(firer: Firer) -> None:
    firer.book.add(schedule_of())
    runs_of(firer).exit_code = 2
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "failed")]


def test_the_budget_is_of_the_period(firer: Firer) -> None:
    schedule = schedule_of()
    firer.book.add(schedule)
    runs_of(firer).cost = 2_000_000
    at(firer, START + timedelta(hours=1))
    for hours in (2, 3, 4):
        assert isinstance(firer.now, Clock)
        firer.now.at = START + timedelta(hours=hours)
        extra(firer, schedule)
    assert runs_of(firer).caps == [5.0, 3.0, 1.0]
    assert [row.state for row in firer.book.firings("daily")] == ["skipped", "started", "started", "started"]
    at(firer, START + timedelta(hours=26))
    assert runs_of(firer).caps[-1] == 5.0


def test_a_launch_that_is_not_on_record_yet_holds_the_budget_of_its_period(firer: Firer) -> None:
    schedule = schedule_of()
    firer.book.add(schedule)
    runs_of(firer).exit_code = 1
    at(firer, START + timedelta(hours=1))
    runs_of(firer).exit_code = 0
    (due,) = firer.book.firings("daily")
    starting = firer.book.move(due, "starting", "launch is being asked for", firer.at)  # by a tick at work
    assert starting is not None and isinstance(firer.now, Clock)
    firer.now.at += timedelta(seconds=20)
    assert extra(firer, schedule).state == "skipped"
    assert runs_of(firer).caps == []
    skipped = firer.book.firings("daily")[0]
    assert skipped.reason == "daily-20261201-0200 is being launched, with the budget of this period"
    found = at(firer, START + timedelta(hours=1, minutes=1))
    assert found == [("2026-12-01T02:00", "started"), ("2026-12-01T02:00", "skipped")]
    assert runs_of(firer).caps == [5.0]


def test_a_run_on_record_counts_whatever_became_of_its_firing(firer: Firer) -> None:
    schedule = schedule_of()
    firer.book.add(schedule)
    runs_of(firer).exit_code, runs_of(firer).cost = 1, 2_000_000
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "due")]
    (runs_of(firer).folder / "daily-20261201-0200").touch()  # its backend did not answer in time
    runs_of(firer).exit_code = 0
    firer.now.at += timedelta(seconds=1)  # type: ignore[attr-defined]
    assert extra(firer, schedule).state == "started"
    assert runs_of(firer).caps == [3.0]


def test_a_paused_schedule_passes_times_over(firer: Firer) -> None:
    schedule = schedule_of()
    firer.book.add(schedule)
    assert firer.book.change(schedule, "paused", "by a test", utc_text(START), None)
    assert at(firer, START + timedelta(days=2)) == []
    assert not firer.book.change(schedule, "active", "read long ago", utc_text(START), None)


def _killed_before_its_run_was_on_record(firer: Firer) -> None:
    at(firer, START)
    firer.book.fire(
        [due_times(replace(firer, now=Clock(START + timedelta(hours=1))), firer.book.get("daily"))], ""
    )
    (firing,) = firer.book.open_firings()
    assert firer.book.move(firing, "starting", "launch is being asked for", utc_text(START)) is not None


def test_a_schedule_that_was_removed_starts_nothing_more(firer: Firer) -> None:
    firer.book.add(schedule_of())
    runs_of(firer).exit_code = 6
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "due")]
    firer.book.remove("daily", utc_text(START + timedelta(hours=1)))
    assert firer.book.open_firings() == []
    runs_of(firer).exit_code = 0
    assert at(firer, START + timedelta(hours=2)) == [("2026-12-01T02:00", "skipped")]
    assert firer.book.firings("daily")[0].reason == "the schedule was removed by the user"
    assert runs_of(firer).started == []


def test_a_schedule_is_removed_whoever_changes_it_meanwhile(
    firer: Firer, monkeypatch: pytest.MonkeyPatch
) -> None:
    firer.book.add(schedule_of())
    get = firer.book.get
    read = iter([get("daily")])
    monkeypatch.setattr(firer.book, "get", lambda name: next(read, None) or get(name))
    firer.book.change(get("daily"), "paused", "paused by the user", utc_text(START), None)
    firer.book.remove("daily", utc_text(START))
    assert (get("daily").state, get("daily").state_reason) == ("ended", "removed by the user")


@pytest.mark.parametrize(
    ("stop", "hours", "state"),
    [("paused", 2, "skipped"), ("removed", 2, "skipped"), ("", 24 * 30, "missed"), ("", 2, "started")],
)
def test_a_launch_that_never_came_to_a_run_is_held_to_the_rules_again(
    firer: Firer, stop: str, hours: int, state: str
) -> None:
    firer.book.add(schedule_of(None))
    _killed_before_its_run_was_on_record(firer)
    if stop == "removed":
        firer.book.remove("daily", utc_text(START))
    elif stop:
        firer.book.change(firer.book.get("daily"), "paused", "paused by the user", utc_text(START), None)
    assert at(firer, START + timedelta(hours=hours)) == [("2026-12-01T02:00", state)]
    assert bool(runs_of(firer).started) == (state == "started")


def test_a_launch_that_came_to_a_run_is_gone_on_with(firer: Firer) -> None:
    firer.book.add(schedule_of(None))
    _killed_before_its_run_was_on_record(firer)
    (runs_of(firer).folder / "daily-20261201-0200").touch()
    firer.book.remove("daily", utc_text(START))
    assert at(firer, START + timedelta(days=30)) == [("2026-12-01T02:00", "started")]


def test_a_run_that_was_launched_is_started_whatever_another_tick_makes_of_it(
    firer: Firer, monkeypatch: pytest.MonkeyPatch
) -> None:
    firer.book.add(schedule_of())
    start = runs_of(firer).start

    def slow(schedule: Schedule, run_id: str, cap_usd: float | None) -> Started:
        firer.book.remove("daily", utc_text(START))
        other = Runs(runs_of(firer).folder)
        tick(replace(firer, starter=other))
        assert [row.state for row in firer.book.firings("daily")] == ["skipped"]
        return start(schedule, run_id, cap_usd)

    monkeypatch.setattr(runs_of(firer), "start", slow)
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "started")]


def test_a_start_waits_for_its_window(firer: Firer) -> None:
    timing = replace(schedule_of().timing, window="22:00-06:00")
    firer.book.add(schedule_of(timing=replace(timing, cron="0 12 * * *"), next_at="2026-12-01T12:00:00.000Z"))
    assert at(firer, datetime(2026, 12, 1, 12, 5, tzinfo=UTC)) == [("2026-12-01T12:00", "due")]
    assert at(firer, datetime(2026, 12, 1, 22, 0, tzinfo=UTC)) == [("2026-12-01T12:00", "started")]


def test_what_is_due_once_ends(firer: Firer) -> None:
    firer.book.add(schedule_of(None))
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "started")]
    assert firer.book.get("daily").state == "ended"


@pytest.mark.parametrize("lives", [1, 3])
def test_a_tick_that_is_killed_is_repeated(firer: Firer, tmp_path: Path, lives: int) -> None:
    firer.book.add(schedule_of())
    for _ in range(lives):
        pid = os.fork()
        if pid == 0:
            try:
                with ScheduleBook(tmp_path / "plan.db") as book:
                    runs = Runs(tmp_path / "runs")
                    runs.dies = True
                    tick(Firer(book, runs, Clock(START + timedelta(hours=1))))
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "started")]
    assert runs_of(firer).started == ["daily-20261201-0200"]
    assert firer.book.firings("daily")[0].tries == lives + 1


def test_two_ticks_at_once_start_one_run(firer: Firer, tmp_path: Path) -> None:
    firer.book.add(schedule_of())
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                with ScheduleBook(tmp_path / "plan.db") as book:
                    tick(Firer(book, Runs(tmp_path / "runs"), Clock(START + timedelta(hours=1))))
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    assert at(firer, START + timedelta(hours=1)) == [("2026-12-01T02:00", "started")]
    assert runs_of(firer).started == ["daily-20261201-0200"]
