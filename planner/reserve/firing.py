"""One tick of the schedules: what is due becomes a firing, and a firing becomes a run, a skip or a miss; never silence.

Due times are recorded and the schedule moves on in one transaction, so a time fires once whoever ticks. The run of a
firing has a fixed id and launching is idempotent by it, so a tick that was killed anywhere is simply repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from planner.reserve.schedule_book import Due, ScheduleBook
from planner.reserve.schedules import REMOVED, Firing, Schedule, firing_run_id
from planner.runs import utc_text
from providers.errors import UsageError

#: Missed times that are recorded one by one; more come of a clock that jumped by months.
_MOST_MISSED = 20
#: Between two tries of a launch that failed: doubled with each.
_FIRST_RETRY_S, _LONGEST_RETRY_S = 15.0, 900.0


@dataclass(frozen=True, slots=True)
class Started:
    """What came of a launch.

    Attributes:
        exit_code: As of `plan launch`; 0 is started.
        message: Why not.
    """

    exit_code: int
    message: str = ""


class Starter(Protocol):
    """Launches runs, each by its id at most once, and knows what they cost."""

    def start(self, schedule: Schedule, run_id: str, cap_usd: float | None) -> Started:
        """Launch the spec of a schedule, or go on with a launch that was interrupted."""
        ...

    def is_on_record(self, run_id: str) -> bool:
        """Whether the ledger has such a run, which may have been started then."""
        ...

    def still_meets(self, schedule: Schedule, run_id: str) -> bool | None:
        """Whether the model of an earlier run meets the goal on the data of now; None if nobody can tell."""
        ...

    def cost_micro_usd(self, run_id: str) -> int | None:
        """What a run has cost, or may still cost while it runs; 0 if it never started, None if nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class Firer:
    """What it takes to tick."""

    book: ScheduleBook
    starter: Starter
    now: Callable[[], datetime]

    @property
    def at(self) -> str:
        """The clock as the ledger writes it."""
        return utc_text(self.now())


def tick(firer: Firer) -> list[Firing]:
    """Deal with everything that is due; returns the firings that changed."""
    dues = [due_times(firer, schedule) for schedule in firer.book.due(firer.at)]
    if dues:
        firer.book.fire(dues, firer.at)
    return [done for firing in firer.book.open_firings() if (done := _deal(firer, firing)) is not None]


def extra(firer: Firer, schedule: Schedule) -> Firing:
    """Start one run now that no time asked for; it counts into the period that goes on.

    Raises:
        UsageError: One was started in this very second.
    """
    now = firer.now().replace(microsecond=0)
    known = firer.book.firings(schedule.schedule_id)
    period = next((row.period_at for row in known if row.period_at is not None), schedule.created_at)
    run_id = f"{schedule.schedule_id}-{now:%Y%m%d-%H%M%S}"
    firing = Firing(
        schedule.schedule_id, utc_text(now), "due", "asked for by the user", firer.at, run_id, 0, period
    )
    if not firer.book.insert(firing):
        raise UsageError("a run was asked for in this very second", hint="`plan schedule history` shows it")
    starting = firer.book.move(firing, "starting", "launch is being asked for", firer.at)
    done = None if starting is None else _start(firer, schedule, starting)
    return done or firing


def due_times(firer: Firer, schedule: Schedule) -> Due:
    """Turn the times that have come into firings: the last may still start, earlier ones were missed."""
    now = firer.now()
    times = _times(schedule, now)
    following = schedule.timing.after(max(now, times[-1]))
    last = times.pop()
    why = "no scheduler was running"
    firings = [_firing(schedule, one, "missed", why, now) for one in times]
    late = now - last > timedelta(seconds=schedule.late_s)
    firings.append(_firing(schedule, last, "missed" if late else "due", why if late else "due", now))
    ended = None if following is not None else "its last time has come"
    return Due(schedule, firings, None if following is None else utc_text(following), ended)


def _times(schedule: Schedule, now: datetime) -> list[datetime]:
    """Times since the one that was next, oldest first; of very many the newest."""
    first = datetime.fromisoformat(schedule.next_at or utc_text(now))
    back = timedelta(hours=1)
    while True:
        start = first if now - back <= first else schedule.timing.after(now - back)
        times = [] if start is None else _since(schedule, start, now)
        if start == first or len(times) > _MOST_MISSED:
            return times[-_MOST_MISSED - 1 :]
        back *= 8


def _since(schedule: Schedule, start: datetime, now: datetime) -> list[datetime]:
    times = [start] if start <= now else []
    while times and (following := schedule.timing.after(times[-1])) is not None and following <= now:
        times.append(following)
    return times


def _firing(schedule: Schedule, due: datetime, state: str, reason: str, now: datetime) -> Firing:
    due_at = utc_text(due)
    run_id = firing_run_id(schedule.schedule_id, due)
    return Firing(schedule.schedule_id, due_at, state, reason, utc_text(now), run_id, 0, due_at)  # type: ignore[arg-type]


def _deal(firer: Firer, firing: Firing) -> Firing | None:
    """Start, skip or miss one firing; None if there is nothing to do yet."""
    schedule, now = firer.book.get(firing.schedule_id), firer.now()
    due = datetime.fromisoformat(firing.due_at)
    opens = schedule.timing.opens(due)
    if now < opens:
        return None
    if firing.state == "due" or not firer.starter.is_on_record(_run_id(firing)):
        if now - opens > timedelta(seconds=schedule.late_s):
            return firer.book.move(firing, "missed", f"not started in time; last: {firing.reason}", firer.at)
        if firing.state == "due" and now < _next_try(firing):
            return None
        skip = _skip(firer, schedule, firing)
        if skip is not None:
            return firer.book.move(firing, "skipped", skip, firer.at)
    starting = firer.book.move(firing, "starting", "launch is being asked for", firer.at)
    return None if starting is None else _start(firer, schedule, starting)


def _next_try(firing: Firing) -> datetime:
    """Not with each tick: every try is an attempt of the run on record."""
    pause_s = (
        min(_FIRST_RETRY_S * 2.0 ** min(firing.tries - 1, 30), _LONGEST_RETRY_S) if firing.tries else 0.0
    )
    return datetime.fromisoformat(firing.at) + timedelta(seconds=pause_s)


def _skip(firer: Firer, schedule: Schedule, firing: Firing) -> str | None:
    """Why a firing is not started on purpose."""
    if schedule.state == "paused":
        return "the schedule is paused"
    if schedule.state_reason == REMOVED:
        return f"the schedule was {REMOVED}"
    unpaid = _unpaid(firer, schedule, firing)
    if unpaid is not None or not schedule.skip_if_met:
        return unpaid
    return _met(firer, schedule, firing)


def _unpaid(firer: Firer, schedule: Schedule, firing: Firing) -> str | None:
    """Why there is no money for a firing, None if there is."""
    if schedule.budget_micro_usd is None:
        return None
    ahead = _launched_ahead(firer, firing)
    if ahead is not None:
        return f"{ahead} is being launched, with the budget of this period"
    left = _left_micro_usd(firer, schedule, firing)
    return None if left is None or left > 0 else "the budget of this period is spent"


def _launched_ahead(firer: Firer, firing: Firing) -> str | None:
    """The run of an earlier firing of the period whose launch is under way: what it may cost is not on record yet."""
    return next(
        (
            _run_id(other)
            for other in firer.book.firings(firing.schedule_id)
            if other.period_at == firing.period_at
            and other.due_at < firing.due_at
            and other.state == "starting"
            and not firer.starter.is_on_record(_run_id(other))
        ),
        None,
    )


def _met(firer: Firer, schedule: Schedule, firing: Firing) -> str | None:
    """Why no new model is needed: the newest one still meets the goal."""
    started = [
        row for row in firer.book.firings(schedule.schedule_id) if row.state == "started" and row.run_id
    ]
    newest = max(
        (row for row in started if row.due_at < firing.due_at), key=lambda row: row.due_at, default=None
    )
    if newest is None or newest.run_id is None or not firer.starter.still_meets(schedule, newest.run_id):
        return None
    return f"the model of {newest.run_id} still meets the goal"


def _left_micro_usd(firer: Firer, schedule: Schedule, firing: Firing) -> int | None:
    """What the period's budget leaves for a firing, None without a budget. A run of unknown cost takes all of it."""
    if schedule.budget_micro_usd is None:
        return None
    left = schedule.budget_micro_usd
    for other in firer.book.firings(schedule.schedule_id):
        if other.period_at != firing.period_at or other.due_at == firing.due_at or other.run_id is None:
            continue
        # whatever its firing says: one that was given up may have left a run that starts after all
        cost = firer.starter.cost_micro_usd(other.run_id)
        left -= schedule.budget_micro_usd if cost is None else cost
    return left


def _start(firer: Firer, schedule: Schedule, firing: Firing) -> Firing | None:
    unpaid = _unpaid(firer, schedule, firing)
    if unpaid is not None:
        return firer.book.move(firing, "skipped", unpaid, firer.at)
    left = _left_micro_usd(firer, schedule, firing)
    done = firer.starter.start(schedule, _run_id(firing), None if left is None else left / 1e6)
    if done.exit_code == 0:
        return _started(firer, firing, done.message or "launched")
    reason = f"exit {done.exit_code}: {done.message}"
    if done.exit_code in (1, 6, 7):  # it may go better later; the time limit ends that
        return firer.book.move(firing, "due", reason, firer.at)
    return firer.book.move(firing, "failed", reason, firer.at)


def _started(firer: Firer, firing: Firing, message: str) -> Firing | None:
    """There is a run, whatever another tick has made of the firing while it was launched."""
    moved = firer.book.move(firing, "started", message, firer.at)
    known = () if moved is not None else firer.book.firings(firing.schedule_id)
    now = next((row for row in known if row.due_at == firing.due_at and row.state != "started"), None)
    return moved if now is None else firer.book.move(now, "started", message, firer.at)


def _run_id(firing: Firing) -> str:
    return firing.run_id or firing_run_id(firing.schedule_id, datetime.fromisoformat(firing.due_at))
