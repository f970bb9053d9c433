"""Moves a run as the policy decides: checkpoint, cancel, launch elsewhere, verify.

Every line may be the last one: what is to be done is in the ledger before it is done, and whoever comes next reads
it there. `decided -> stop asked for -> ended with a checkpoint -> next attempt on record -> asked for -> verified`.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from jobs.progress import Progress
from planner.asking import avoided_now
from planner.deadline.placement import Placement
from planner.launch import Desk, give_up, resume_within_cap
from planner.money import usd_text_of_micro
from planner.monitor import observe
from planner.moving.decision import decide, document, is_due, reason, target, target_price
from planner.moving.terms import MovingTerms
from planner.moving.view import Prices, View, look
from planner.offer_document import offer_from_document
from planner.price_age import PriceLimit
from planner.runs import PolicyDecision, Run, utc_text
from planner.stop_grace import grace_ends_at
from planner.store import Change

#: How long a machine that was left may take to be given back before somebody is told.
_RELEASE_S = 600.0
#: The policy's own hours may be rounded by so much.
_LATE_H = 1e-6


def guide(desk: Desk, run: Run, prices: Prices, limit: PriceLimit) -> Run:
    """Do what is due for a run that moves.

    Args:
        desk: Ledger and launcher.
        run: As just observed.
        prices: Today's price list, read only when a decision is due.
        limit: From what age on a price says nothing.

    Raises:
        TuneplanError: Backend or ledger refused; the next round goes on from the ledger.
    """
    if run.final or run.state in ("unknown", "cancelling") or _is_unconfirmed(run):
        return run
    if run.terms.moving_json is None:
        raise ValueError(f"run {run.run_id} does not move")
    terms = MovingTerms.from_json(run.terms.moving_json)
    _verify(desk, run, terms)
    last = next(iter(desk.store.decisions(run.run_id, newest=1)), None)
    avoided = avoided_now(desk.store, desk.now(), besides=run.run_id)
    view = look(run, terms, prices(), limit, desk.now(), avoided)
    if _is_between(run, terms, view, last) or not is_due(terms, view, last):
        return run if last is None else _act(desk, run, terms, view, last)
    decision = decide(run, terms, view, last)
    if not desk.store.record_decision(run.run_id, decision):
        return run
    _warn(desk, run, terms, decision)
    return _act(desk, run, terms, view, decision)


def _warn(desk: Desk, run: Run, terms: MovingTerms, decision: PolicyDecision) -> None:
    """Note, once each, that neither cap nor deadline may be kept."""
    said = document(decision)
    if said["over_cap_usd"] is not None:
        text = "the cap is expected to be reached before the end: raise it with `plan resume --cap`"
        desk.store.note(run, "cap_warning", text, desk.now())
    if said["slack_h"] < -_LATE_H:
        text = (
            f"it may miss its deadline {terms.deadline_at}: on a cautious count nothing is in time any more"
        )
        desk.store.note(run, "deadline", text, desk.now())


def _is_unconfirmed(run: Run) -> bool:
    """On record, and the backend has not said that it has it."""
    return run.state == "queued" and run.current.backend_id is None


def _is_between(run: Run, terms: MovingTerms, view: View, last: PolicyDecision | None) -> bool:
    """It was stopped to go on elsewhere, and the tick of that decision is not over: the decision holds."""
    stopped = (
        run.resting and run.stopping == "move" and last is not None and last.attempt == run.current.attempt
    )
    return stopped and last is not None and view.elapsed_h <= last.tick * terms.mission.tick_h


def _act(desk: Desk, run: Run, terms: MovingTerms, view: View, decision: PolicyDecision) -> Run:
    place = target(decision)
    if run.resting and place is not None and decision.attempt < run.current.attempt:
        return run  # that was done and came to nothing; whether to ask again is thought over at the next tick
    if run.resting:
        return (
            _rest(desk, run, terms, decision) if place is None else _start(desk, run, terms, decision, place)
        )
    if place is not None and place == _asked_for(run, terms):
        return run  # it is there, or the backend is getting it a machine in the very place
    if place is None and view.current is None and run.current.ended_at is not None:
        return run  # the backend goes on asking where the machine was lost; nothing is paid meanwhile
    too_dear = None if place is None else _too_dear(run, terms, decision)
    if too_dear is not None:
        desk.store.note(run, "move_refused", f"stays where it is: {too_dear}", desk.now())
        return run
    until = grace_ends_at(run, desk.now())
    if not desk.store.ask_stop(run, "move", reason(decision).rstrip("."), desk.now(), next_try_at=until):
        return run
    return observe(desk.store, desk.launcher, desk.store.get(run.run_id) or run, desk.now())


def _asked_for(run: Run, terms: MovingTerms) -> Placement | None:
    return terms.placement_of(offer_from_document(json.loads(run.current.offer_json)))


def _start(desk: Desk, run: Run, terms: MovingTerms, decision: PolicyDecision, place: Placement) -> Run:
    """The next attempt, at the price that the decision was made with; over if the cap does not pay for its start."""
    too_dear = _too_dear(run, terms, decision)
    if too_dear is not None:
        return give_up(desk, run, too_dear)
    price = target_price(decision)
    offer = terms.request_offer(place, None if price is None else price / terms.nodes)
    return run if offer is None else resume_within_cap(desk, run, offer=offer)


def _too_dear(run: Run, terms: MovingTerms, decision: PolicyDecision) -> str | None:
    """Why a place is not asked for: what is left of the cap would all go for getting it ready, None if it would not."""
    price_usd, cap, spent = target_price(decision), run.terms.cap_micro_usd, run.cost_micro_usd
    if price_usd is None or cap is None or spent is None:
        return None
    start_usd = price_usd * (terms.mission.restart_overhead_h + terms.mission.tick_h)
    if (cap - spent) / 1e6 >= start_usd:
        return None
    where = document(decision)["choice"]["where"]
    return (
        f"what is left of the cap of ${usd_text_of_micro(cap)} does not pay for a start on {where}"
        f" at ${price_usd:g} an hour"
    )


def _rest(desk: Desk, run: Run, terms: MovingTerms, decision: PolicyDecision) -> Run:
    """Say why nothing runs, and when that is thought over."""
    again = datetime.fromisoformat(terms.start_at) + timedelta(seconds=(decision.tick) * terms.tick_s)
    due_at = utc_text(again)
    why = reason(decision)
    if (run.next_try_at, run.state_reason) != (due_at, why):
        change = Change(run.state, why, run.current, desk.now(), next_try_at=due_at, kind="wait")
        desk.store.apply(run, change)
    return desk.store.get(run.run_id) or run


def _is_finished(run: Run) -> bool:
    """Whether the finished model is committed: an attempt that finds it begins at no step, and loses none."""
    if run.progress_json is None:
        return False
    return Progress.from_json(run.progress_json).output_manifest_sha256 is not None


def _verify(desk: Desk, run: Run, terms: MovingTerms) -> None:
    """Note that a move is complete: the new attempt goes on from the last commit, the old machine is gone."""
    if len(run.attempts) < 2 or run.current.recovery or run.current.first_step is None or _is_finished(run):
        return
    before = run.attempts[-2]
    decisions = [row for row in desk.store.decisions(run.run_id, newest=50) if row.attempt == before.attempt]
    committed = max((document(row)["known"]["committed_step"] for row in decisions), default=0)
    first, lost = run.current.first_step, max((before.last_step or 0) - run.current.first_step, 0)
    where = document(decisions[-1])["choice"]["where"] if decisions else "another machine"
    if first < committed:
        text = f"attempt {run.current.attempt} goes on from step {first}, although {committed} was committed"
        desk.store.note(run, "moved_badly", text, desk.now())
        return
    kept = (
        f"attempt {run.current.attempt} goes on from step {first} on {where}, {lost} steps are computed again"
    )
    noted = {(event.kind, event.attempt) for event in desk.store.events(run.run_id)}
    if ("moved", run.current.attempt) in noted:
        return
    if desk.launcher.released(run.run_id, before_attempt=run.launches):
        desk.store.note(run, "moved", f"{kept}; the machine before is given back", desk.now())
    elif _is_overdue(run, desk.now()):
        text = f"the machine of attempt {before.attempt} is not given back yet, it may still cost money"
        desk.store.note(run, "not_released", text, desk.now())


def _is_overdue(run: Run, now: str) -> bool:
    began = run.current.started_at or run.current.intent_at
    return datetime.fromisoformat(now) - datetime.fromisoformat(began) > timedelta(seconds=_RELEASE_S)
