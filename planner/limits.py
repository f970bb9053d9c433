"""What a run's cap and maximum duration ask of the controller: warn in time, end it before they are passed. Pure.

The worker stops by itself first and the machine holds a worker that hangs; the controller knows what neither can:
the price of the machine that was really got, and the cost of all earlier ones.
"""

from __future__ import annotations

import json

from planner.money import usd_text_of_micro
from planner.runs import WAITING, Run, seconds_between

#: Where terms that moved and candidates keep the deadline.
DEADLINE = "deadline_at"
_WARN_SHARE, _SPENT_SHARE = 0.8, 0.9
_GRACE_S, _GRACE_SHARE = 60.0, 0.03
#: SkyPilot 0.14 looks every 15 s whether a job has ended (sky/jobs/utils.py, JOB_STATUS_CHECK_GAP_SECONDS), and takes
#: about as long again to give its machine back.
_EXIT_S, _EXIT_SHARE = 30.0, 0.04


def time_limit_s(run: Run, micro_usd_per_hour: int | None = None) -> float | None:
    """Seconds after which the machine ends the newest launch by itself: its maximum duration, or the cap's rest.

    The worker stops before that and checkpoints; this holds for one that hangs.

    Args:
        run: As the ledger has it.
        micro_usd_per_hour: Price of all machines, None for those that were chosen.
    """
    price, cap = micro_usd_per_hour or run.current.micro_usd_per_hour, run.terms.cap_micro_usd
    limits = [] if run.terms.max_duration_s is None else [run.terms.max_duration_s]
    if cap is not None and price:
        limits.append(max(cap - (run.cost_micro_usd or 0), 0) * 3600 / price)
    return min(limits, default=None)


def stop_grace_s(limit_s: float | None) -> float:
    """How long before its limit a worker is asked to end: a minute, of a short limit 3 %.

    >>> stop_grace_s(None), stop_grace_s(7200.0), stop_grace_s(300.0)
    (60.0, 60.0, 9.0)
    """
    return _GRACE_S if limit_s is None else min(_GRACE_S, limit_s * _GRACE_SHARE)


def exit_reserve_s(limit_s: float) -> float:
    """How long a worker that has said its last word may take until its machine is released.

    >>> exit_reserve_s(7200.0), exit_reserve_s(50.0)
    (30.0, 2.0)
    """
    return min(_EXIT_S, limit_s * _EXIT_SHARE)


def cap_warning(run: Run) -> str | None:
    """What to say once four fifths of the cap are spent; None before, and where nothing is known or capped."""
    cap, spent = run.terms.cap_micro_usd, run.cost_micro_usd
    if cap is None or spent is None or spent < _WARN_SHARE * cap:
        return None
    return f"80 % of the cap of ${usd_text_of_micro(cap)} is spent"


def is_spent(run: Run, cap_micro_usd: int) -> bool:
    """Whether what is left of a cap would go for starting the worker and ending it again."""
    return (run.cost_micro_usd or 0) >= _SPENT_SHARE * cap_micro_usd


def limit_reached(run: Run, now: str) -> str | None:
    """Why the controller must ask a running worker to end now; None while it may go on."""
    if run.current.started_at is None or run.current.ended_at is not None:
        return None
    return _cap_reached(run, now) or _duration_reached(run, now)


def limit_grace_s(run: Run) -> float:
    """How much of the time that `limit_reached` leaves a worker has to commit: half, the rest is for its machine."""
    cap, price, spent = run.terms.cap_micro_usd, run.current.micro_usd_per_hour, run.cost_micro_usd
    limits = [] if run.terms.max_duration_s is None else [run.terms.max_duration_s]
    if cap is not None and price and spent is not None:
        limits.append(_cap_s(run, cap, price, spent))
    return stop_grace_s(min(limits, default=None)) / 2


def _cap_s(run: Run, cap: int, price: int, spent: int) -> float:
    """Seconds on the newest machines after which the cap is reached."""
    before = spent - (run.current.cost_micro_usd or 0)
    return (cap - before) * 3600 / price


def _cap_reached(run: Run, now: str) -> str | None:
    cap, price, spent = run.terms.cap_micro_usd, run.current.micro_usd_per_hour, run.cost_micro_usd
    if cap is None or not price or spent is None:
        return None
    counted, began = run.current.cost_micro_usd or 0, run.current.started_at or now
    # a backend that does not answer leaves the ledger's count where it was
    so_far = max(counted, price * seconds_between(began, now) / 3600)
    grace_s = stop_grace_s(_cap_s(run, cap, price, spent))
    if spent - counted + so_far + price * grace_s / 3600 < cap:
        return None
    return f"cap of ${usd_text_of_micro(cap)} reached"


def _duration_reached(run: Run, now: str) -> str | None:
    limit_s = run.terms.max_duration_s
    if limit_s is None:
        return None
    first = max(number for number, attempt in enumerate(run.attempts) if attempt.recovery == 0)
    used_s = sum(
        seconds_between(attempt.started_at, attempt.ended_at or now)
        for attempt in run.attempts[first:]
        if attempt.started_at is not None
    )
    return f"time limit of {limit_s:g} s reached" if used_s + stop_grace_s(limit_s) >= limit_s else None


def deadline_of(run: Run) -> str | None:
    """When its result must be there, None if it was launched without a deadline."""
    said = json.loads(run.terms.candidate_json if run.terms.moving_json is None else run.terms.moving_json)
    at = said.get(DEADLINE)
    return None if at is None else str(at)


def deadline_passed(run: Run, now: str) -> str | None:
    """That its deadline has passed and it is not done, None if that is not so."""
    at = deadline_of(run)
    return None if at is None or now < at or run.final else f"the deadline {at} has passed"


def hopeless(run: Run, now: str) -> str | None:
    """Why a run that waits for its first machine should get none any more: whatever is bought is too late.

    One that had machines has something to show for its money, and goes on, late.
    """
    passed = deadline_passed(run, now)
    waits = run.state in WAITING or run.resting
    if passed is None or not waits or any(attempt.started_at is not None for attempt in run.attempts):
        return None
    return f"{passed} before a machine came, and nothing was bought"


def late_start(run: Run, now: str) -> str | None:
    """That a run without a machine would be late even at its fastest (p10), None if that is not so or not known."""
    at, hours = deadline_of(run), json.loads(run.terms.candidate_json)["wall_clock_h"]
    waits = all(attempt.started_at is None for attempt in run.attempts)
    if at is None or not waits or run.final or now >= at:
        return None
    if seconds_between(now, at) >= 3600 * hours["p10"]:
        return None
    return f"no machine has come yet: even at its fastest it will be done after {at}; `plan cancel` ends it"
