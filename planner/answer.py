"""One call from a spec file to the estimate and its plan: what `plan estimate` and `plan launch` share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from planner.calibration import NOT_CALIBRATED, Calibration
from planner.candidates import Candidate
from planner.errors import NothingFitsError, OverBudgetError, PolicyError, SpecError
from planner.estimate import Estimate, build_estimate
from planner.estimate_document import estimate_document
from planner.intake import Overrides, gather
from planner.model_facts import ModelSource, local_facts
from planner.place_names import misnamed
from planner.plan import Plan, make_plan
from planner.positions import within_positions
from planner.price_age import USUAL_LIMIT, PriceLimit
from planner.question import Question
from planner.ranking import EVEN_CHANCE
from planner.relax import NearestFit, explain_nothing, lacks_fresh_prices, nearest_fits, offered_counts
from planner.spec import FineTuneSpec
from planner.spot_signals import NO_SIGNALS, SpotSignals
from planner.units import hours_text, parse_duration_s, parse_usd
from providers.errors import UsageError
from providers.offers import PriceSnapshot


class Answer(NamedTuple):
    """An estimate with the plan made of it.

    Attributes:
        spec: The spec that was asked about.
        base_dir: Directory that its paths are relative to.
        estimate: The estimate.
        nearest: What would make it fit; empty unless nothing fits.
        offered: Numbers in a machine of each GPU that is wanted, if nothing fits since none has as many as is wanted.
    """

    spec: FineTuneSpec
    base_dir: Path
    estimate: Estimate
    nearest: tuple[NearestFit, ...]
    offered: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    def plan(self) -> Plan:
        """Its plan, made anew: hashing all candidates is work that only a file or JSON needs."""
        made_at = self.estimate.question.goal.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return make_plan(self.spec, self.base_dir, self.estimate, made_at)

    def document(self) -> dict[str, Any]:
        """The `tuneplan/estimate` document below its common first keys."""
        plan = self.plan()
        return estimate_document(
            self.estimate,
            model_id=self.spec.model.id,
            spec_hash=plan.spec_hash,
            plan_hash=plan.plan_hash,
            nearest=self.nearest,
        )


class Limits(NamedTuple):
    """Bounds that turn an answer into a failed check; None is no bound."""

    cost_usd: float | None = None
    wall_clock_h: float | None = None

    @classmethod
    def parse(cls, fail_over: str | None, fail_after: str | None) -> Limits:
        """From the command line's texts.

        Raises:
            UsageError: One of them is not an amount or a duration.
        """
        try:
            return cls(
                None if fail_over is None else parse_usd(fail_over),
                None if fail_after is None else parse_duration_s(fail_after) / 3600,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None


def estimate_spec(
    spec: FineTuneSpec,
    base_dir: Path,
    snapshot: PriceSnapshot,
    now: datetime,
    *,
    overrides: Overrides | None = None,
    limit: int | None = 100,
    calibration: Calibration = NOT_CALIBRATED,
    spot_signals: SpotSignals = NO_SIGNALS,
    price_limit: PriceLimit = USUAL_LIMIT,
    models: ModelSource = local_facts,
) -> Answer:
    """Estimate a spec on a set of offers.

    Args:
        spec: The spec.
        base_dir: Directory that its paths are relative to.
        snapshot: The offers.
        now: UTC; written into the plan.
        overrides: What the command line fixes.
        limit: Candidates to keep, None for all.
        calibration: What finished runs taught.
        spot_signals: What clouds said of their spot machines.
        price_limit: From what age on a price is doubted, or no offer.
        models: Who knows the model; one that was asked for on the Hub is pinned to its commit in the plan.

    Raises:
        UsageError, SpecError: As `planner.intake.gather`; or there are no such clouds or regions.
    """
    if wrong := list(misnamed(spec.where, snapshot)):
        raise SpecError(wrong)
    gathered = gather(spec, base_dir, now, overrides, models)
    question = gathered._replace(calibration=calibration, price_limit=price_limit, spot_signals=spot_signals)
    estimate = build_estimate(question, snapshot, limit=limit)
    if estimate.candidates:
        return Answer(_pinned(spec, question), base_dir, estimate, ())
    nearest, offered = nearest_fits(question, snapshot), offered_counts(question, snapshot)
    return Answer(_pinned(spec, question), base_dir, estimate, nearest, offered)


def _pinned(spec: FineTuneSpec, question: Question) -> FineTuneSpec:
    """The spec at the commit and the sequence length that the estimate is of."""
    spec = within_positions(spec, question.arch)
    if question.publication is None:
        return spec
    model = spec.model.model_copy(update={"revision": question.publication.commit})
    return spec.model_copy(update={"model": model})


def check(answer: Answer, limits: Limits) -> None:
    """Refuse an answer that does not meet what was asked.

    Raises:
        NothingFitsError: No candidate at all.
        OverBudgetError: The best one costs more than the budget or the limit, and may be too late besides.
        PolicyError: It is not likely to finish by the deadline, or takes longer than the limit.
    """
    best = answer.estimate.recommended
    if best is None:
        raise NothingFitsError(explain_nothing(answer.estimate), hint=_nothing_hint(answer))
    goal = answer.estimate.question.goal
    budget = next(
        (usd for usd in (goal.budget_usd, limits.cost_usd) if usd is not None and best.cost_usd.p50 > usd),
        None,
    )
    late = list(_late(answer.estimate, best, limits))
    if budget is not None:
        over = f"the best candidate costs about ${best.cost_usd.p50:,.2f}, over ${budget:,.2f}"
        raise OverBudgetError("; ".join((over, *late)), hint=_within(answer.estimate, budget))
    if late:
        hint = f"the best one needs about {hours_text(best.wall_clock_h.p50)}"
        if goal.deadline is not None:
            later = "give a later goal.deadline, or goal.within" if goal.deadline <= goal.now else None
            hint += f"; {later or '`plan deadline` says what would be in time'}"
        raise PolicyError("; ".join(late), hint=hint)


def _late(estimate: Estimate, best: Candidate, limits: Limits) -> Iterator[str]:
    """What is too late or takes too long."""
    deadline, chance = estimate.question.goal.deadline, best.p_finish_by_deadline or 0.0
    if deadline is not None and deadline <= estimate.question.goal.now:
        yield f"the deadline {deadline:%Y-%m-%d %H:%M} UTC has passed"
    elif deadline is not None and chance < EVEN_CHANCE:
        others = any((row.p_finish_by_deadline or 0.0) >= EVEN_CHANCE for row in estimate.candidates)
        who = "the best candidate is not" if others else "no candidate is"
        yield f"{who} likely to finish by {deadline:%Y-%m-%d %H:%M} UTC ({chance:.0%})"
    if limits.wall_clock_h is not None and best.wall_clock_h.p50 > limits.wall_clock_h:
        needed, most = hours_text(best.wall_clock_h.p50), hours_text(limits.wall_clock_h)
        yield f"the best candidate takes about {needed}, over {most}"


def _within(estimate: Estimate, budget_usd: float) -> str:
    """What the budget pays for."""
    paid = [row for row in estimate.candidates if row.cost_usd.p50 <= budget_usd]
    if not paid:
        return f"nothing costs less than about ${min(row.cost_usd.p50 for row in estimate.candidates):,.2f}"
    earliest = min(paid, key=lambda row: row.wall_clock_h.p50)
    found = f"about ${earliest.cost_usd.p50:,.2f} in {hours_text(earliest.wall_clock_h.p50)}"
    return f"`goal.objective: fastest_within_budget` with that budget gives one for {found}"


def _nothing_hint(answer: Answer) -> str | None:
    if lacks_fresh_prices(answer.estimate):
        return "`plan prices update` fetches fresh prices; without --strict old ones are used, and their age is told"
    told = [_offered(name, counts) for name, counts in answer.offered.items()]
    if answer.nearest:
        told.append("this would fit: " + "; or ".join(fit.text() for fit in answer.nearest))
    return "; ".join(told) or None


def _offered(name: str, counts: tuple[int, ...]) -> str:
    """How many of a GPU machines have.

    >>> _offered("H100", (1, 2, 8)), _offered("", (4,))
    ('H100 is offered with 1, 2 or 8 in a machine', 'machines are offered with 4 GPUs')
    """
    *most, last = map(str, counts)
    numbers = f"{', '.join(most)} or {last}" if most else last
    return (
        f"{name} is offered with {numbers} in a machine"
        if name
        else f"machines are offered with {numbers} GPUs"
    )
