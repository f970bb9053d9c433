"""Orders priced offers by an objective and finds the ones no other beats in both cost and time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from planner.pricing import Priced
from planner.question import Goal
from planner.risk import probability_by
from providers.offers import UNTRUSTED_FLAGS

#: A deadline is kept by a candidate that makes it with at least this chance.
SURE_ENOUGH = 0.9
#: With less than an even chance it does not answer a deadline.
EVEN_CHANCE = 0.5
#: Chances, and times by their ratio, that differ by less are equal: the formulas know no better.
_CHANCE_STEP, _TIME_STEP = 0.05, 0.02

_Key = tuple[float, ...]


def ranked(priced: Sequence[Priced], goal: Goal) -> list[Priced]:
    """Best first: believable prices before doubtful ones, sure fits before those that are borderline or whose machine
    states too little memory of its own, then the objective.

    Costs are ranked by their mean, after your credits: what is lost with spot machines counts even where the p50 does
    not see it. Where credits pay all, the cheaper machine spares them.
    """
    score = _SCORES[goal.objective]

    def key(item: Priced) -> _Key:
        doubtful = not UNTRUSTED_FLAGS.isdisjoint(item.offer.flags)
        return (doubtful, item.may_not_fit, *score(item, goal), item.nodes)

    return sorted(priced, key=key)


def pareto(priced: Sequence[Priced]) -> set[int]:
    """Identities (`id`) of the believable items that surely fit and that no other such beats in expected cost and in
    expected finish: a run that may end for want of memory is no bargain.
    """
    frontier: set[int] = set()
    cheapest = float("inf")
    believable = (
        item for item in priced if UNTRUSTED_FLAGS.isdisjoint(item.offer.flags) and not item.may_not_fit
    )
    for item in sorted(believable, key=lambda item: (item.finish_h.p50, item.expected_usd)):
        if item.expected_usd < cheapest:
            cheapest = item.expected_usd
            frontier.add(id(item))
    return frontier


def _cheapest(item: Priced, goal: Goal) -> _Key:
    return (item.paid_usd, item.expected_usd, item.finish_h.p50)


def _fastest(item: Priced, goal: Goal) -> _Key:
    return (item.finish_h.p50, item.paid_usd, item.expected_usd)


def _fastest_within_budget(item: Priced, goal: Goal) -> _Key:
    over = goal.budget_usd is not None and item.cost_usd.p50 > goal.budget_usd
    return (over, *(_cheapest(item, goal) if over else _fastest(item, goal)))


def _best_value(item: Priced, goal: Goal) -> _Key:
    """Cost times time: a percent of either counts the same."""
    return (item.paid_usd * item.finish_h.p50, item.expected_usd)


def _cheapest_by_deadline(item: Priced, goal: Goal) -> _Key:
    if goal.deadline_h is None:
        return _cheapest(item, goal)
    return (*lateness(item, goal.deadline_h), *_cheapest(item, goal))


def lateness(item: Priced, deadline_h: float) -> _Key:
    """0 for all that are sure enough to be in time, then those with an even chance, the likeliest first, then the rest,
    the earliest first: to be in time once in a hundred rather than never is worth neither money nor days.
    """
    chance = probability_by(item.finish_h, deadline_h)
    if chance >= SURE_ENOUGH:
        return (0.0, 0.0)
    if chance >= EVEN_CHANCE:
        return (1.0, -round(chance / _CHANCE_STEP))
    return (2.0, round(math.log(max(item.finish_h.p50, 1e-6)) / _TIME_STEP))


_SCORES: dict[str, Callable[[Priced, Goal], _Key]] = {
    "cheapest": _cheapest,
    "fastest": _fastest,
    "fastest_within_budget": _fastest_within_budget,
    "best_value": _best_value,
    "cheapest_by_deadline": _cheapest_by_deadline,
}
