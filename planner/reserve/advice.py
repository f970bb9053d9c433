"""Whether to reserve, from the date backwards: buy now, wait, or not at all, and what it costs to be wrong. Pure.

What is known: the job's hours with their interval, what it costs on demand, what the cheapest suitable reservation
costs, and until when it may be decided. What nobody publishes: the chance that machines can be had on demand on a
day weeks ahead. The answer names what it assumes, and from which chance on a reservation pays.

Without: cost on demand, and late with the chance s that no machine is there: E = D + s L.
With: the price up front R, and late with the chance q that the job outlasts the capacity: E = R + q L.
A reservation pays from s* = (R - D) / L + q on; L is what it costs to be late, which only the person knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from planner.reserve.need import Alternatives, Sized
from planner.reserve.search import Found

Verdict = Literal["buy_now", "wait", "do_not_reserve"]

#: Chance of finding no machine that is assumed where nobody says; nobody publishes it, so the answer names it.
ASSUMED_SHORTAGE = 0.1
#: A reservation whose job may outlast it more often than this is too short.
_TOO_SHORT = 0.2
#: Blocks that start later than this cannot be bought yet.
HORIZON = timedelta(weeks=8)
#: Time between the end of the job and the date, for what goes wrong.
_SLACK = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Wrong:
    """One way to be wrong, and its price."""

    what: str
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do.

    Attributes:
        verdict: The advice.
        reason: Why, in a sentence.
        latest_start_at: When the job must start to be done in time by its p90 and margin.
        decide_by_at: When it has to be decided again, or for good; None if there is nothing to decide.
        best: The reservation that is meant, None if there is none.
        reserve_usd: What it costs.
        on_demand_usd: What the job costs without it, None if unknown.
        pays_from_shortage: Chance of finding no machine from which on it pays; None if L is not known, or it always
            or never pays.
        wrong: What it costs to be wrong.
    """

    verdict: Verdict
    reason: str
    latest_start_at: datetime
    decide_by_at: datetime | None
    best: Found | None
    reserve_usd: float | None
    on_demand_usd: float | None
    pays_from_shortage: float | None
    wrong: tuple[Wrong, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """What is to be advised on.

    Attributes:
        sized: The job on the machine to reserve.
        found: What is for sale now, cheapest first.
        others: What the job costs without a reservation.
        deadline: The date.
        late_cost_usd: What being late costs, None if nobody says.
        now: UTC.
        shortage: Chance that no machine can be had on demand when the job must start.
    """

    sized: Sized
    found: Sequence[Found]
    others: Alternatives
    deadline: datetime
    late_cost_usd: float | None
    now: datetime
    shortage: float = ASSUMED_SHORTAGE

    @property
    def latest_start_at(self) -> datetime:
        """From the date backwards: slack, margin and the p90."""
        return self.deadline - _SLACK - timedelta(hours=self.sized.needed_h)

    @property
    def on_demand_usd(self) -> float | None:
        """The cheapest way that is not interrupted."""
        return None if self.others.on_demand is None else self.others.on_demand.cost_usd.p50


def advise(case: Case) -> Advice:
    """The advice for a case."""
    latest, now = case.latest_start_at, case.now
    suitable = [row for row in case.found if row.cost_usd is not None and _lasts(row, case)]
    if not suitable:
        return _nothing_for_sale(case)
    best = min(suitable, key=lambda row: (row.cost_usd or 0.0, row.offer.start_at))
    cost, instead = best.cost_usd or 0.0, case.on_demand_usd
    threshold = _threshold(best, case)
    # what can be had at once is offered from the full hour before
    decide_by = max(min(max(row.offer.start_at for row in suitable), latest), now)
    wrong = _wrong(cost, instead, case)
    if instead is None:
        reason = "no price on demand is known for the job, so nothing is cheaper for certain"
        return _advice("buy_now", reason, case, best, decide_by, threshold, wrong)
    if cost <= instead:
        reason = f"the reservation costs ${cost:,.2f}, no more than ${instead:,.2f} on demand"
        return _advice("buy_now", reason, case, best, decide_by, threshold, wrong)
    if threshold is not None and threshold <= case.shortage:
        reason = (
            f"it pays from a shortage in {threshold:.0%} of cases on, {case.shortage:.0%} is assumed;"
            f" being late costs ${case.late_cost_usd:,.0f}"
        )
        return _advice("buy_now", reason, case, best, decide_by, threshold, wrong)
    if _more_to_come(case, suitable) and threshold is not None and threshold < 1:
        reason = (
            f"it pays only from a shortage of {threshold:.0%} on; later blocks that suit are not for sale yet"
        )
        return _advice("wait", reason, case, best, min(decide_by, now + HORIZON / 4), threshold, wrong)
    more = f"${cost - instead:,.2f} more than ${instead:,.2f} on demand"
    if threshold is None:
        reason = f"it costs {more}; say what being late costs (--late-cost) to weigh that against a shortage"
    elif threshold >= 1:
        reason = f"it costs {more}, more than being late"
    else:
        reason = f"it costs {more}; that pays only from a shortage in {threshold:.0%} of cases on"
    return _advice("do_not_reserve", reason, case, best, decide_by, threshold, wrong)


def _lasts(row: Found, case: Case) -> bool:
    chance = row.sized.chance(row.offer, case.deadline)
    return chance is not None and chance >= 1 - _TOO_SHORT


def _threshold(best: Found, case: Case) -> float | None:
    """s* of the module's text, within 0..1; None if it cannot be said."""
    if case.late_cost_usd is None or case.on_demand_usd is None:
        return None
    outlasts = 1 - (best.sized.chance(best.offer, case.deadline) or 0.0)
    share = ((best.cost_usd or 0.0) - case.on_demand_usd) / case.late_cost_usd + outlasts
    return min(max(share, 0.0), 1.0)


def _more_to_come(case: Case, suitable: Sequence[Found]) -> bool:
    """Blocks that would be in time and start beyond what is sold today."""
    return case.latest_start_at > max(case.now + HORIZON, max(row.offer.start_at for row in suitable))


def _nothing_for_sale(case: Case) -> Advice:
    latest = case.latest_start_at
    wrong = _wrong(None, case.on_demand_usd, case)
    if latest <= case.now:
        reason = "the job cannot be done in time any more by its p90 and margin, reserved or not"
        return _advice("do_not_reserve", reason, case, None, None, None, wrong)
    if latest > case.now + HORIZON:
        first = latest - HORIZON
        reason = f"capacity for then cannot be bought before {first:%Y-%m-%d}"
        return _advice("wait", reason, case, None, first, None, wrong)
    reason = (
        "nothing that suits is for sale now; `plan reserve schedule` buys it when it appears below a price"
    )
    return _advice("wait", reason, case, None, latest, None, wrong)


def _wrong(cost: float | None, instead: float | None, case: Case) -> tuple[Wrong, ...]:
    rows = []
    if cost is not None:
        rows.append(Wrong("bought, and the job is not run or needs other machines: all of it is lost", cost))
        if instead is not None and cost > instead:
            rows.append(Wrong("bought, and machines could be had on demand: the difference", cost - instead))
    rows.append(Wrong("not bought, and no machine can be had: the job is late", case.late_cost_usd))
    return tuple(rows)


def _advice(
    verdict: Verdict,
    reason: str,
    case: Case,
    best: Found | None,
    decide_by: datetime | None,
    threshold: float | None,
    wrong: tuple[Wrong, ...],
) -> Advice:
    return Advice(
        *(verdict, reason, case.latest_start_at, decide_by, best),
        *(None if best is None else best.cost_usd, case.on_demand_usd, threshold, wrong),
    )
