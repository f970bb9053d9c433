"""One decision: the policy is asked, and what was known, chosen and weighed is written down with a sentence why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from planner.deadline.controller import Advice, ControllerState, step
from planner.deadline.decision import Decision, Option, name
from planner.deadline.placement import Placement
from planner.money import usd_text, usd_text_of_micro
from planner.moving.terms import MovingTerms
from planner.moving.view import View
from planner.runs import PolicyDecision, Run


def decide(run: Run, terms: MovingTerms, view: View, last: PolicyDecision | None) -> PolicyDecision:
    """What to do until the next tick; the same view after the same decision gives the same answer."""
    began = ControllerState.begin(terms.mission) if last is None else _state(last)
    usable = tuple(site.on_demand_usd_per_h for site in view.sites)
    if all(price is None for price in usable):  # refused everywhere: asked again where it is cheapest
        usable = terms.mission.on_demand_usd_per_h
    state = replace(began, mission=replace(terms.mission, on_demand_usd_per_h=usable))
    state, advice = step(state, view.observation())
    return PolicyDecision(
        at=view.now,
        tick=state.tick,
        attempt=run.current.attempt,
        document_json=json.dumps(_document(run, terms, view, advice)),
        state_json=json.dumps(state.to_document()),
    )


def is_due(terms: MovingTerms, view: View, last: PolicyDecision | None) -> bool:
    """Whether the last decision no longer holds: its tick is over, or the world is another."""
    if last is None:
        return True
    return view.elapsed_h > last.tick * terms.mission.tick_h or situation(last) != view.situation


def target(decision: PolicyDecision) -> Placement | None:
    """Where the run shall be; None is to hold no machine."""
    chosen = json.loads(decision.document_json)["choice"]
    return None if chosen["market"] is None else Placement(chosen["region"], chosen["market"])


def target_price(decision: PolicyDecision) -> float | None:
    """Price of all machines there, as it was known."""
    document = json.loads(decision.document_json)
    price = document["choice"]["usd_per_h"]
    return None if price is None else float(price)


def situation(decision: PolicyDecision) -> str:
    """The world that it was made for."""
    return str(json.loads(decision.document_json)["situation"])


def reason(decision: PolicyDecision) -> str:
    """Why, in a sentence."""
    return str(json.loads(decision.document_json)["reason"])


def _state(last: PolicyDecision) -> ControllerState:
    return ControllerState.from_document(json.loads(last.state_json))


def _document(run: Run, terms: MovingTerms, view: View, advice: Advice) -> dict[str, Any]:
    weighed, placement = advice.decision, advice.placement
    return {
        "situation": view.situation,
        "elapsed_h": view.elapsed_h,
        "time_left_h": weighed.time_left_h,
        "slack_h": weighed.slack_h,
        "deadline_at": terms.deadline_at,
        "known": {
            "state": run.state,
            "step": view.step,
            "max_steps": view.max_steps,
            "committed_step": view.committed_step,
            "work_left_h": view.work_left_h,
            "spent_usd": None if run.cost_micro_usd is None else usd_text_of_micro(run.cost_micro_usd),
            "current": _placed(view.current, terms, view),
            "sites": [
                asdict(site)
                | {
                    "spot_usd_per_h": usd_text(site.spot_usd_per_h),
                    "on_demand_usd_per_h": usd_text(site.on_demand_usd_per_h),
                    "losses_factor": factor,
                    "losses_why": place.losses_why,
                }
                for site, place, factor in zip(view.sites, terms.sites, terms.loss_factors, strict=True)
            ],
        },
        "choice": _placed(placement, terms, view),
        "action": _action(view.current, placement),
        "reason": sentence(view.current, weighed, terms),
        "alternatives": [
            {
                **_placed(option.placement, terms, view),
                "expected_cost_usd": usd_text(option.cost_usd),
                "chosen": option == weighed.chosen,
            }
            for option in _ranked(weighed)
        ],
        "over_cap_usd": _over_cap(run, weighed.chosen),
    }


def _placed(place: Placement | None, terms: MovingTerms, view: View) -> dict[str, Any]:
    """A placement by number and in words, with its price."""
    price = None
    if place is not None:
        site = view.sites[place.region]
        price = site.spot_usd_per_h if place.market == "spot" else site.on_demand_usd_per_h
        price = terms.mission.on_demand_usd_per_h[place.region] if price is None else price
    return {
        "region": None if place is None else place.region,
        "market": None if place is None else place.market,
        "where": name(place, terms.mission.zones) if place is not None else "no machine",
        "usd_per_h": usd_text(price),
    }


def _action(current: Placement | None, chosen: Placement | None) -> str:
    if current == chosen:
        return "wait" if chosen is None else "stay"
    if chosen is None:
        return "stop"
    return "start" if current is None else "move"


def sentence(current: Placement | None, weighed: Decision, terms: MovingTerms) -> str:
    """What is done and why, as one sentence."""
    chosen = weighed.chosen
    where = name(chosen.placement, terms.mission.zones)
    what = {
        "wait": "Waits for spot",
        "stay": f"Stays {_on(where)}",
        "stop": "Gives its machine back and waits for spot",
        "start": f"Starts {_on(where)}",
        "move": f"Moves to {where}",
    }[_action(current, chosen.placement)]
    return f"{what}: {_because(weighed, terms)}."


def _on(where: str) -> str:
    return f"on {where}"


def _because(weighed: Decision, terms: MovingTerms) -> str:
    ranked = _ranked(weighed)
    if weighed.slack_h < -1e-6:
        return f"even this is {-weighed.slack_h:.2f} h short of the deadline, and nothing is faster"
    if len(ranked) == 1:
        return f"{weighed.slack_h:.2f} h to spare, and nothing else would surely be in time"
    other = next(option for option in ranked if option != weighed.chosen)
    best, next_best = weighed.chosen.cost_usd, other.cost_usd
    waits = "waiting" if other.placement is None else name(other.placement, terms.mission.zones)
    in_vain = ", too little to pay for another start" if next_best < best and weighed.is_kept else ""
    return (
        f"from here it is expected to cost ${best:.2f}, {waits} ${next_best:.2f}{in_vain}; "
        f"{weighed.slack_h:.2f} h to spare before on-demand is the only way"
    )


def _ranked(weighed: Decision) -> list[Option]:
    return sorted(weighed.options, key=lambda option: option.cost_usd)


def _over_cap(run: Run, chosen: Option) -> str | None:
    """By how much the run is expected to pass its cap, None if it is not or nobody can tell."""
    cap, spent = run.terms.cap_micro_usd, run.cost_micro_usd
    if cap is None or spent is None:
        return None
    over = spent / 1e6 + chosen.cost_usd - cap / 1e6
    return usd_text(over) if over > 0 else None


def document(decision: PolicyDecision) -> Mapping[str, Any]:
    """One decision as `plan why` shows it."""
    body = json.loads(decision.document_json)
    body.pop("situation")
    return {"at": decision.at, "tick": decision.tick, "attempt": decision.attempt, **body}
