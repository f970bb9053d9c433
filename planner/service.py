"""One monitor for all runs: looks at each, holds it to its limits, and starts it again after it was taken away.

A round may be killed at any line: what it decides is in the ledger before the backend is asked, and the next round
goes on from there. Runs that nobody gave to a monitor are looked at and held to their limits, but never restarted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

from planner import lease
from planner.adopt import finish
from planner.asking import reason_to_move
from planner.key_renewal import renew_keys
from planner.launch import Desk, resume, resume_within_cap
from planner.launch_lock import is_launching
from planner.monitor import tend
from planner.price_age import USUAL_LIMIT, PriceLimit
from planner.repricing import is_reserved, machines_asked_for, machines_of, todays_prices, updated_record
from planner.runs import Attempt, Run, utc_text
from planner.store import Change
from providers.errors import TuneplanError
from providers.offers import Offer

_LONGEST_DELAY_S = 900.0
_MOST_VAIN = 8
Tell = Callable[[str], None]
Look = Run | TuneplanError


def _no_offers() -> tuple[Offer, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Habits:
    """How a monitor goes about it.

    Attributes:
        retry_delay_s: Before the first restart; doubled for each attempt in a row that got no further.
        settle_s: A launch that was recorded this long ago and never confirmed is asked for again.
        offers: What is sold today; asked for only where a run moves or is started again.
        price_limit: From what age on a price says nothing.
    """

    retry_delay_s: float = 15.0
    settle_s: float = 60.0
    offers: Callable[[], Iterable[Offer]] = _no_offers
    price_limit: PriceLimit = USUAL_LIMIT


def look_at_all(
    desk_of: Callable[[str], Desk],
    desk: Desk,
    habits: Habits,
    tell: Tell,
    side_by_side: Callable[[Callable[[Run], Look], list[Run]], Iterable[Look]] = map,
) -> list[Run]:
    """One round over all runs that are not over; trouble with one of them is told and does not stop the round.

    Args:
        desk_of: Ledger and launcher for an infra.
        desk: Any desk of the same ledger.
        habits: How to go about it.
        tell: Gets a line for each change and each trouble.
        side_by_side: Looks at several runs at once, as `map` of an executor does; then `desk_of` is called in its
            threads, each of which needs a desk of its own. One slow store or backend holds up no other run.
    """
    runs = []
    finish(desk_of, desk, tell)

    def look(run: Run) -> Run | TuneplanError:
        try:
            return look_at(desk_of(run.terms.infra), run, habits)
        except TuneplanError as error:
            return error
        except Exception as error:  # what is wrong with one run leaves no other one unwatched
            return TuneplanError(f"cannot be looked at: {type(error).__name__}: {error}")

    before = desk.store.active_runs()
    for run, now in zip(before, side_by_side(look, before), strict=True):
        if isinstance(now, TuneplanError):
            tell(f"{run.run_id}: {now.message}")
            continue
        runs.append(now)
        if (now.state, now.state_reason, now.next_try_at) != (run.state, run.state_reason, run.next_try_at):
            next_try = f", next try {now.next_try_at}" if now.next_try_at else ""
            tell(f"{now.run_id}: {now.state}{f': {now.state_reason}' if now.state_reason else ''}{next_try}")
    return runs


def look_at(desk: Desk, run: Run, habits: Habits) -> Run:
    """Bring one run up to date and do what is due.

    Raises:
        TuneplanError: The backend or the ledger refused; the next round tries again.
    """
    now = desk.now()
    looked_at = run
    run = tend(desk.store, desk.launcher, run, now)
    if lease.is_due(looked_at, now):
        _keep_keys(desk, run, now)
    if run.terms.monitor != "service" and run.terms.moving_json is None:
        return run
    if _is_unconfirmed(run) and (run.terms.moving_json is None or _ask_again_at(run, habits) <= now):
        return _asked_again(desk, run, habits, now)
    if run.terms.moving_json is not None:
        return _guided(desk, run, habits)
    run = _moved(desk, run, now)
    return _restart(desk, run, habits, now) if run.resting else run


def _keep_keys(desk: Desk, run: Run, now: str) -> None:
    """Renew the keys of the run's machines; that it cannot be done keeps nothing else from being done."""
    try:
        renew_keys(desk, run, now)
    except TuneplanError as error:
        desk.store.note(run, "keys", f"session keys not renewed: {error.message}", now)


def _guided(desk: Desk, run: Run, habits: Habits) -> Run:
    """Where the policy wants it; numpy is loaded only for this."""
    from planner.moving.guide import guide
    from planner.moving.view import today

    return guide(desk, run, lambda: today(habits.offers()), habits.price_limit)


def vain_attempts(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """Newest attempts in a row that got no machine, or lost it before they had done a step; newest first.

    Those that could not be asked for are among them: a login that is missing is not back the sooner for it.
    """

    def is_vain(attempt: Attempt) -> bool:
        got_nowhere = (attempt.last_step or 0) <= (attempt.first_step or 0)
        is_unasked = (
            attempt.outcome == "failed" and attempt.started_at is None and attempt.ended_at is not None
        )
        return (attempt.outcome in ("preempted", "stock_out") and got_nowhere) or is_unasked

    return list(takewhile(is_vain, reversed(attempts)))


def retry_delay_s(vain: int, first_s: float) -> float:
    """Seconds until the next try after so many vain ones: doubled each time, a quarter of an hour at most.

    >>> [retry_delay_s(vain, 15.0) for vain in (0, 1, 2, 3, 20)]
    [15.0, 15.0, 30.0, 60.0, 900.0]
    """
    return float(min(first_s * 2 ** max(vain - 1, 0), max(_LONGEST_DELAY_S, first_s)))


def _moved(desk: Desk, run: Run, now: str) -> Run:
    """Take a run out of its backend's hands that would try first the place where it was just lost."""
    reason = reason_to_move(desk.store, run, now)
    if reason is None or not desk.store.ask_stop(run, "move", reason, now):
        return run
    desk.launcher.cancel(run.run_id)
    return tend(desk.store, desk.launcher, desk.store.get(run.run_id) or run, now)


def _restart(desk: Desk, run: Run, habits: Habits, now: str) -> Run:
    """Say when the next try comes, or make it if it is due."""
    vain = vain_attempts(run.attempts)
    lost = sum(attempt.outcome == "preempted" for attempt in vain)  # waiting for a machine costs nothing
    if lost >= _MOST_VAIN:
        reason = f"taken away {lost} times in a row before it had done a step: {run.state_reason}"
        return _written(desk, run, Change("failed", reason, run.current, now, kind="give_up"))
    if run.next_try_at is None:
        # what was taken out of its backend's hands to go on elsewhere has a place to go to
        delay = timedelta(
            seconds=0 if run.stopping == "move" else retry_delay_s(len(vain), habits.retry_delay_s)
        )
        due_at = utc_text(datetime.fromisoformat(run.current.ended_at or now) + delay)
        change = Change(run.state, run.state_reason, run.current, now, next_try_at=due_at, kind="retry")
        run = _written(desk, run, change)
    due = run.resting and run.next_try_at is not None and run.next_try_at <= now
    return _started_again(desk, run, habits) if due else run


def _started_again(desk: Desk, run: Run, habits: Habits) -> Run:
    """The next attempt at the prices of today, by which its cap is held."""
    machines = machines_asked_for(run)
    if run.terms.infra == "local" or is_reserved(run):
        return resume_within_cap(desk, run)
    now = updated_record(json.loads(run.terms.candidate_json), todays_prices(habits.offers(), machines))
    return resume_within_cap(desk, run, offer=machines_of(now)[0], candidate_json=json.dumps(now))


def _is_unconfirmed(run: Run) -> bool:
    """On record, and whoever recorded it never came back to say that the backend has it."""
    return run.state == "queued" and run.current.backend_id is None


def _ask_again_at(run: Run, habits: Habits) -> str:
    return utc_text(datetime.fromisoformat(run.current.intent_at) + timedelta(seconds=habits.settle_s))


def _asked_again(desk: Desk, run: Run, habits: Habits, now: str) -> Run:
    """Ask the backend for a launch that nobody has confirmed for a while; until then say when that will be."""
    due_at = _ask_again_at(run, habits)
    if due_at <= now:
        return run if is_launching(desk.places, run.run_id) else resume(desk, run)
    if run.next_try_at == due_at:
        return run
    return _written(
        desk, run, Change(run.state, run.state_reason, run.current, now, next_try_at=due_at, kind="retry")
    )


def _written(desk: Desk, run: Run, change: Change) -> Run:
    desk.store.apply(run, change)
    return desk.store.get(run.run_id) or run
