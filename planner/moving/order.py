"""The first decision of a run that moves: where it begins, made before it is launched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from planner.avoidance import Avoided, Place
from planner.candidates import Candidate
from planner.deadline.controller import Mission
from planner.deadline.placement import Placement
from planner.errors import Finding, PolicyError
from planner.money import usd_text_of_micro
from planner.moving.decision import decide, reason, target
from planner.moving.terms import MovingTerms, hours_of, moving_terms
from planner.moving.view import look
from planner.offer_document import offer_document
from planner.price_age import PriceLimit
from planner.proposal import Order, deadline_at
from planner.rented import twins
from planner.runs import Attempt, PolicyDecision, Run, RunTerms, utc_text


@dataclass(frozen=True, slots=True)
class MovingOrder:
    """An order whose run will move.

    Attributes:
        order: With the candidate that the first decision chose.
        terms: Where it may be, and by when.
        first: The first decision, to be recorded with the run.
    """

    order: Order
    terms: MovingTerms
    first: PolicyDecision

    def text(self) -> str:
        """For the person who is asked to agree."""
        mission = self.terms.mission
        dearest = max(price for price in mission.on_demand_usd_per_h if price is not None)
        least = min(price for price in mission.on_demand_usd_per_h if price is not None)
        span = f"${least:g}/h" if least == dearest else f"${least:g} to ${dearest:g}/h"
        return (
            f"moves   by itself between {len(self.terms.sites)} places, spot or on-demand ({span}), to be done by"
            f" {self.terms.deadline_at}; {reason(self.first)}{beyond_cap(mission, self.order.cap_micro_usd)}"
        )


def beyond_cap(mission: Mission, cap_micro_usd: int | None) -> str:
    """What keeping the deadline may cost and the cap does not allow; nothing if it does."""
    least = min(price for price in mission.on_demand_usd_per_h if price is not None)
    whole_usd = (mission.work_h + mission.restart_overhead_h) * least
    if cap_micro_usd is None or whole_usd * 1e6 <= cap_micro_usd:
        return ""
    return (
        f" All of it on-demand may cost ${whole_usd:,.2f}, above the cap of ${usd_text_of_micro(cap_micro_usd)}:"
        " at the cap it ends, deadline or not"
    )


def blockers(order: Order) -> Iterator[Finding]:
    """What the policy lacks."""
    spec = order.plan.spec
    if spec.goal.deadline is None and spec.goal.within is None:
        yield Finding(
            "--move needs a deadline", path="goal", code="no_deadline", hint="goal.within or goal.deadline"
        )
    markets = {row.offer.market for row in twins(order.plan, order.candidate)}
    for market in ("spot", "on_demand"):
        if market not in markets:
            words = market.replace("_", "-")
            message = f"--move needs spot and on-demand machines of one shape, and none is {words}"
            hint = "widen `where`, or launch without --move"
            yield Finding(message, path="where.market", code="one_market", hint=hint)


def moving_order(
    order: Order,
    now: datetime,
    limit: PriceLimit,
    zone_names: Mapping[str, str],
    avoided: Mapping[Place, Avoided],
) -> MovingOrder:
    """The order with its first place and all that later decisions need.

    Args:
        order: Has no `blockers`.
        now: UTC.
        limit: From what age on a price says nothing.
        zone_names: The account's name of a zone by the catalog's.
        avoided: Places to leave alone, by what other runs saw there.

    Raises:
        PolicyError: Even on-demand from now on would be late.
        ValueError: The spec has no deadline.
    """
    same = twins(order.plan, order.candidate)
    deadline = deadline_at(order.plan.spec, now)
    if deadline is None:
        raise ValueError("the spec has no deadline")
    chosen = min(same, key=lambda row: (row.offer.market != "on_demand", row.offer.price_usd_per_hour or 0.0))
    terms = moving_terms(
        chosen,
        same,
        start_at=utc_text(now),
        deadline_at=utc_text(deadline),
        zone_names=zone_names,
    )
    _refuse_impossible(chosen, terms, now)
    run = _before_launch(order, terms, utc_text(now))
    first = decide(run, terms, look(run, terms, {}, limit, utc_text(now), avoided), None)
    place = target(first)
    return MovingOrder(replace(order, candidate=_at(place, same, terms, order.candidate)), terms, first)


def _refuse_impossible(chosen: Candidate, terms: MovingTerms, now: datetime) -> None:
    training_h, once_h, start_h = hours_of(chosen)
    doubt = chosen.step_time_s.p90 / chosen.step_time_s.p50
    needed_h = training_h / doubt + once_h + start_h + terms.mission.margin_h
    if needed_h > terms.mission.deadline_h:
        at = utc_text(now + timedelta(hours=needed_h))
        raise PolicyError(
            f"even on-demand from now on would be done about {at}, after the deadline {terms.deadline_at}",
            hint="a later deadline, a faster GPU, or a launch without --move",
        )


def _at(
    place: Placement | None, same: list[Candidate], terms: MovingTerms, otherwise: Candidate
) -> Candidate:
    """The candidate at a placement."""
    offer = None if place is None else terms.sites[place.region].offer(place.market)
    return next((row for row in same if offer is not None and row.offer == offer), otherwise)


def _before_launch(order: Order, terms: MovingTerms, now: str) -> Run:
    """The run as it would be on record, nowhere yet."""
    offer_json = json.dumps(offer_document(order.candidate.offer))
    attempt = Attempt(
        1, offer_json, order.micro_usd_per_hour, now, ended_at=now, outcome="cancelled", started_at=now
    )
    spec = order.plan.spec
    kept = RunTerms(
        spec.name, spec.project, spec.owner, {}, order.infra, order.plan.plan_hash, order.candidate.candidate_id,
        "{}", "{}", "", order.cap_micro_usd, None, moving_json=terms.to_json(),
    )  # fmt: skip
    return Run(
        order.run_id,
        kept,
        now,
        "scheduled",
        "",
        now,
        None,
        now,
        0,
        None,
        (replace(attempt, cost_micro_usd=0),),
    )
