"""Which machines a run has had, as attempts of the ledger: each with its own offer, price, time and cost. Pure.

A backend restarts a lost worker by itself, maybe elsewhere and at another price: each such recovery becomes an
attempt of its own, so that what was paid can be told machine by machine.
"""

from __future__ import annotations

import json
from dataclasses import replace

from jobs.progress import Progress
from planner import rented
from planner.ledger import cost_micro_usd
from planner.money import micro_usd
from planner.offer_document import offer_document
from planner.runs import Attempt, Outcome, Run, seconds_between
from providers.launcher import BackendStatus, MachineUse
from providers.offers import Offer


def attempts_now(
    run: Run, status: BackendStatus, progress: Progress | None, outcome: Outcome, now: str
) -> list[Attempt]:
    """The newest attempt on record as it is now, then those that the backend began by itself since.

    Args:
        run: As the ledger has it.
        status: What the backend says now.
        progress: What the worker on the newest machines said, None if nothing yet.
        outcome: Of the whole launch so far.
        now: RFC 3339 UTC.
    """
    if status.attempt < run.launches:
        is_open = outcome == "running"
        return [run.current if is_open else replace(run.current, outcome=outcome, ended_at=now)]
    if status.refused and status.started_at is None:
        # a look while it was asked for may have taken it for had
        return [replace(_never_started(run, status, outcome), started_at=None, cost_micro_usd=None)]
    uses = _uses(run, status, now)
    if not uses:
        return [_never_started(run, status, outcome)]
    if _is_ending(status) and not (len(uses) == 1 and _was_lost(run, 0)):
        # told to end, its machines go before their backend is done with them: that is no loss
        uses[-1] = replace(uses[-1], ended_at=None)
    attempts = [_begun(run, number, use, status) for number, use in enumerate(uses)]
    over = status.ended_at is not None
    for number, use in enumerate(uses):
        is_last = number == len(uses) - 1
        lost = not is_last or (use.ended_at is not None and not over) or _was_lost(run, number)
        attempts[number] = _so_far(
            attempts[number],
            use,
            "preempted" if lost else outcome,
            status.exit_code if is_last and over else None,
            now,
        )
    attempts[-1] = _with_steps(attempts[-1], progress)
    return attempts


def _never_started(run: Run, status: BackendStatus, outcome: Outcome) -> Attempt:
    """The attempt that has no machines, or never had any."""
    return replace(
        run.current,
        backend_id=status.backend_id,
        ended_at=status.ended_at,
        outcome=outcome,
        exit_code=status.exit_code,
    )


def _is_ending(status: BackendStatus) -> bool:
    """The worker has ended or was told to, and the backend has not said yet that it is over."""
    return status.ended_at is None and (status.state == "releasing" or status.stopped_by is not None)


def _was_lost(run: Run, number: int) -> bool:
    """The attempt on record had lost its machines already, whatever became of the launch later."""
    return number == 0 and run.current.ended_at is not None and run.current.outcome == "preempted"


def newest_start(run: Run, status: BackendStatus) -> str | None:
    """When the newest machines began, at the earliest; None if there are none yet."""
    if status.machines:
        return status.machines[-1].started_at
    current = run.current
    if status.attempt == run.launches and status.recoveries > current.recovery:
        return current.ended_at or run.observed_at
    if current.recovery:
        return current.started_at
    return status.started_at


def _uses(run: Run, status: BackendStatus, now: str) -> list[MachineUse]:
    """The machines of the newest attempt on record and of those after it; empty before the first."""
    if status.machines:
        return [_fitting(use) for use in _from_current(run, status.machines)]
    started_at = run.current.started_at or status.started_at
    if started_at is None:
        return []
    if run.current.ended_at is not None and status.recoveries <= run.current.recovery:
        return [MachineUse(started_at, run.current.ended_at)]  # lost, and not replaced yet
    if status.recoveries > run.current.recovery:  # seen too late to know when: what lay between is counted
        lost_at = run.current.ended_at or min(status.ended_at or now, now)
        back_at = max(lost_at, min(status.ended_at or now, now))
        return [
            _fitting(MachineUse(started_at, lost_at)),
            _fitting(MachineUse(back_at, status.ended_at, status.offer)),
        ]
    if status.state == "recovering":
        return [_fitting(MachineUse(started_at, now, status.offer))]
    return [_fitting(MachineUse(started_at, status.ended_at, status.offer))]


def _from_current(run: Run, machines: tuple[MachineUse, ...]) -> tuple[MachineUse, ...]:
    """The machines of the attempt on record, which are those that began next to it, and the ones after them."""
    began = run.current.started_at
    if began is None:
        return machines

    def distance_s(number: int) -> float:
        started_at = machines[number].started_at
        return max(seconds_between(began, started_at), seconds_between(started_at, began))

    return machines[min(range(len(machines)), key=distance_s) :]


def _fitting(use: MachineUse) -> MachineUse:
    """No end before its start: clocks are corrected now and then."""
    return use if use.ended_at is None else replace(use, ended_at=max(use.started_at, use.ended_at))


def _begun(run: Run, number: int, use: MachineUse, status: BackendStatus) -> Attempt:
    """The attempt on these machines before anything is counted; a price is fixed once it has started."""
    current = run.current
    if number == 0 and current.started_at is not None:
        return replace(current, backend_id=status.backend_id)
    offer_json, micro = _priced(run, use.offer)
    if number == 0:
        return replace(current, backend_id=status.backend_id, offer_json=offer_json, micro_usd_per_hour=micro)
    recovery = (
        current.recovery + number if status.machines else max(status.recoveries, current.recovery + number)
    )
    return Attempt(
        current.attempt + number,
        offer_json,
        micro,
        intent_at=use.started_at,
        backend_id=status.backend_id,
        recovery=recovery,
    )


def _priced(run: Run, got: Offer | None) -> tuple[str, int | None]:
    """The machine that the backend got, of those that were asked for, and its price at launch."""
    candidate = json.loads(run.terms.candidate_json)
    # the moving policy asks for one machine an attempt, which is the one that was got
    offer = rented.machine_got(candidate, got) if run.terms.moving_json is None else None
    if offer is None:
        return run.current.offer_json, run.current.micro_usd_per_hour
    price = offer.price_usd_per_hour
    micro = None if price is None else micro_usd(price) * candidate["nodes"]
    return json.dumps(offer_document(offer)), micro


def _so_far(attempt: Attempt, use: MachineUse, outcome: Outcome, exit_code: int | None, now: str) -> Attempt:
    """With its times and its cost, which runs up to its end, or up to now."""
    # the backend may tell only later that the machine was there before the worker
    started_at = min(attempt.started_at or use.started_at, use.started_at)
    seconds = seconds_between(started_at, use.ended_at or now)
    return replace(
        attempt,
        started_at=started_at,
        ended_at=use.ended_at,
        outcome=outcome,
        exit_code=exit_code,
        cost_micro_usd=cost_micro_usd(attempt.micro_usd_per_hour, seconds),
    )


def _with_steps(attempt: Attempt, progress: Progress | None) -> Attempt:
    """First and last step; a worker that has not restored its checkpoint yet says nothing of them."""
    if progress is None or progress.state in ("starting", "loading"):
        return attempt
    last = max(progress.step, attempt.last_step or 0)
    return replace(attempt, first_step=progress.resumed_from_step or 0, last_step=last)
