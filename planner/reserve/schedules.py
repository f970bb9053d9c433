"""Schedules and their firings as records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from planner.reserve.timing import Timing

ScheduleState = Literal["active", "paused", "ended"]
FiringState = Literal["due", "starting", "started", "skipped", "missed", "failed"]

#: Firings that still have to be dealt with.
OPEN: tuple[FiringState, ...] = ("due", "starting")
#: Why a schedule has ended that may have had times to come, and why those that had come start nothing.
REMOVED = "removed by the user"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A run that starts by itself, again and again or once.

    Attributes:
        spec: Path of the spec, read again at every start: a new data window needs no new schedule.
        infra: local or skypilot, as of `plan launch`.
        budget_micro_usd: Of each period, from one due time to the next; None for no cap on purpose.
        next_at: The next due time, None if there is none.
        revision: Grows with every change; who writes on an old one is refused.
        late_s: What could not be started by so many seconds after its time is missed.
        skip_if_met: The newest finished model is measured on today's data first; if it meets the goal, nothing starts.
    """

    schedule_id: str
    created_at: str
    spec: str
    infra: str
    timing: Timing
    budget_micro_usd: int | None
    state: ScheduleState
    state_reason: str
    state_since_at: str
    next_at: str | None
    revision: int
    late_s: float
    skip_if_met: bool = False


@dataclass(frozen=True, slots=True)
class Firing:
    """One due time of a schedule, and what became of it.

    Attributes:
        due_at: When it was due.
        run_id: Fixed from the start, so that it is launched once.
        tries: Launches that were begun.
        period_at: Begin of the budget period it belongs to.
    """

    schedule_id: str
    due_at: str
    state: FiringState
    reason: str
    at: str
    run_id: str | None
    tries: int
    period_at: str | None


def firing_run_id(schedule_id: str, due: datetime) -> str:
    """The run of a firing: the same for every try.

    >>> from datetime import UTC
    >>> firing_run_id("monthly", datetime(2026, 12, 1, 2, 0, tzinfo=UTC))
    'monthly-20261201-0200'
    """
    return f"{schedule_id}-{due:%Y%m%d-%H%M}"
