"""What is known of a moving run at one moment, from the ledger and the prices alone. Pure.

A zone has spot (True) where our machine runs, or where a price that is not too old says that it is sold and our own
last try was not in vain just now; it has none (False) for a while after a machine was lost or refused there; and is
unknown (None) where there is no such price. A place that refused or lost a machine of another run is left alone for as
long as `avoidance` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from jobs.progress import Progress
from planner.avoidance import Avoided, Place, place_of
from planner.deadline.controller import Observation
from planner.deadline.placement import Placement
from planner.moving.terms import MovingTerms
from planner.offer_document import offer_from_document
from planner.price_age import PriceLimit
from planner.runs import Attempt, Run, seconds_between
from providers.offers import Offer
from providers.skypilot_jobs import NO_CAPACITY

_LIVE = frozenset({"queued", "provisioning", "running", "syncing"})
#: A place that took or refused a machine is tried again after two ticks, a minute at least; doubled with each time.
_PAUSE_TICKS, _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 2, 60.0, 3600.0
#: A machine that was kept this long says that the place was not short of them.
_LONG_STINT_S = 3600.0
#: A machine that was asked for and has not come after this time is taken for refused, whatever the backend says.
_PATIENCE_TICKS, _SHORTEST_PATIENCE_S = 4, 600.0
#: Own measurements count from this many steps on; they are taken this much longer than measured.
_LEAST_STEPS, _DOUBT = 10, 1.05

Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class SiteView:
    """One place now.

    Attributes:
        spot: Whether it has spot; None is unknown.
        why: The evidence, in words.
        spot_usd_per_h: Of all machines; None is unknown or not sold.
        spot_as_of_at: Date of that price.
        on_demand_usd_per_h: None is unknown, not sold, or refused just now.
    """

    name: str
    spot: bool | None
    why: str
    spot_usd_per_h: float | None
    spot_as_of_at: str | None
    on_demand_usd_per_h: float | None


@dataclass(frozen=True, slots=True)
class View:
    """One moment.

    Attributes:
        now: RFC 3339 UTC.
        elapsed_h: Since the start.
        work_left_h: From where the run is now or, if it does not run, from its last committed checkpoint.
        step: Steps done, of those that count.
        max_steps: None until the worker has counted.
        committed_step: Of the last committed checkpoint, 0 without one.
        current: Where it runs, or where a machine is on its way; None is nowhere.
        overhead_left_h: Of the start there.
        uncommitted_h: Work done there that is not in a committed checkpoint yet.
        sites: In the order of the terms.
    """

    now: str
    elapsed_h: float
    work_left_h: float
    step: int
    max_steps: int | None
    committed_step: int
    current: Placement | None
    overhead_left_h: float
    uncommitted_h: float
    sites: tuple[SiteView, ...]

    @property
    def situation(self) -> str:
        """What makes a new decision due before the next tick, if it changes."""
        return json.dumps([self.current, [site.spot for site in self.sites]])

    def observation(self) -> Observation:
        """The same for the policy."""
        return Observation(
            self.elapsed_h,
            self.work_left_h,
            tuple(site.spot for site in self.sites),
            tuple(site.spot_usd_per_h for site in self.sites),
            self.current,
            self.overhead_left_h,
            self.uncommitted_h,
        )


def identity(offer: Offer) -> Identity:
    """What makes an offer of one price list the same as of another."""
    return (
        offer.cloud,
        offer.region,
        offer.zone,
        offer.instance_type,
        offer.gpu,
        offer.gpus_per_node,
        offer.market,
    )


def look(
    run: Run,
    terms: MovingTerms,
    prices: Mapping[Identity, Offer],
    limit: PriceLimit,
    now: str,
    avoided: Mapping[Place, Avoided] | None = None,
) -> View:
    """What is known now.

    Args:
        run: As just observed.
        terms: Its terms.
        prices: Offers of today by `identity`; one that is missing has the price of the launch.
        limit: From what age on a price says nothing.
        now: RFC 3339 UTC.
        avoided: Places to leave alone, by what the ledger's other runs and tries saw.
    """
    current = _current(run, terms, now)
    progress = None if run.progress_json is None else Progress.from_json(run.progress_json)
    committed = 0 if progress is None or progress.last_checkpoint is None else progress.last_checkpoint.step
    works = current is not None and run.current.first_step is not None
    step = progress.step if progress is not None and works else committed
    work_left_h = _work_left_h(terms, progress, step)
    return View(
        now=now,
        elapsed_h=terms.elapsed_h(now),
        work_left_h=work_left_h,
        step=step,
        max_steps=None if progress is None else progress.max_steps,
        committed_step=committed,
        current=current,
        overhead_left_h=0.0 if works else _start_left_h(run, terms, now),
        uncommitted_h=max(_work_left_h(terms, progress, committed) - work_left_h, 0.0),
        sites=tuple(
            _site(run, terms, region, current, prices, limit, now, avoided or {})
            for region in range(len(terms.sites))
        ),
    )


def _current(run: Run, terms: MovingTerms, now: str) -> Placement | None:
    """Where the newest attempt has machines, or soon will; one that waits too long has none."""
    attempt = run.current
    if run.state not in _LIVE or attempt.ended_at is not None or is_refused(run, terms, now):
        return None
    return terms.placement_of(offer_from_document(json.loads(attempt.offer_json)))


def is_refused(run: Run, terms: MovingTerms, now: str) -> bool:
    """Whether the machine that was asked for last cannot be had, or has not come in all patience."""
    attempt = run.current
    if attempt.started_at is not None or attempt.backend_id is None:
        return False
    if run.state_reason == NO_CAPACITY:
        return True
    patience_s = max(_PATIENCE_TICKS * terms.tick_s, _SHORTEST_PATIENCE_S)
    return seconds_between(attempt.intent_at, now) > patience_s


def _start_left_h(run: Run, terms: MovingTerms, now: str) -> float:
    start_h, began_at = terms.mission.restart_overhead_h, run.current.started_at
    if began_at is None:
        return start_h
    return max(start_h - seconds_between(began_at, now) / 3600, 0.0)


def _work_left_h(terms: MovingTerms, progress: Progress | None, step: int) -> float:
    """By the measured step time once there is one."""
    if progress is None or not progress.max_steps:
        return terms.mission.work_h
    left = max(progress.max_steps - step, 0)
    measured = progress.step_time_s
    if measured is not None and progress.step - (progress.resumed_from_step or 0) >= _LEAST_STEPS:
        return left * measured.p50 * _DOUBT / 3600 + terms.once_h
    return terms.steps_h * left / progress.max_steps + terms.once_h


def _site(
    run: Run,
    terms: MovingTerms,
    region: int,
    current: Placement | None,
    prices: Mapping[Identity, Offer],
    limit: PriceLimit,
    now: str,
    avoided: Mapping[Place, Avoided],
) -> SiteView:
    site, here = terms.sites[region], Placement(region, "spot")
    spot = _today(site.spot, prices)
    on_demand = _today(site.on_demand, prices)
    there = Placement(region, "on_demand")
    shut, full = (_shut(run, terms, place, now) or _others(terms, place, avoided) for place in (here, there))
    refused = current != there and full is not None
    state, why = _spot(spot, limit, now, shut, mine=current == here)
    return SiteView(
        name=site.name,
        spot=state,
        why=why,
        spot_usd_per_h=_usd_per_h(spot, terms.nodes),
        spot_as_of_at=None if spot is None else spot.as_of_at,
        on_demand_usd_per_h=None if refused else _usd_per_h(on_demand, terms.nodes),
    )


def _spot(
    offer: Offer | None, limit: PriceLimit, now: str, shut: str | None, *, mine: bool
) -> tuple[bool | None, str]:
    """Whether a place has spot, and what says so."""
    if offer is None or offer.price_usd_per_hour is None:
        return None, "no spot price"
    if mine:
        return True, "our machine is there"
    if shut is not None:
        return False, shut
    doubt = limit.doubt(offer, datetime.fromisoformat(now))
    return (None, f"not probed: its price is {doubt}") if doubt else (True, "sold, by its price")


def _shut(run: Run, terms: MovingTerms, place: Placement, now: str) -> str | None:
    """Why a place is not tried just now, None if it may be."""
    tries = [attempt for attempt in reversed(run.attempts) if _where(attempt, terms) == place]
    vain = list(takewhile(_was_vain, tries)) or [attempt for attempt in tries[:1] if _was_lost(attempt)]
    if vain and is_refused(run, terms, now) and run.current is vain[0]:
        return "asked for in vain since " + vain[0].intent_at
    newest = next((attempt for attempt in vain if attempt.ended_at is not None), None)
    if newest is None or newest.ended_at is None:
        return None
    first_s = max(_PAUSE_TICKS * terms.tick_s, _SHORTEST_PAUSE_S)
    pause_s = min(first_s * 2 ** (len(vain) - 1), max(_LONGEST_PAUSE_S, first_s))
    if seconds_between(newest.ended_at, now) >= pause_s:
        return None
    return f"{'lost' if newest.started_at else 'refused'} at {newest.ended_at}, not tried again for {pause_s:.0f} s"


def _others(terms: MovingTerms, place: Placement, avoided: Mapping[Place, Avoided]) -> str | None:
    """Why a place is left alone after what other runs saw there."""
    offer = terms.request_offer(place, None)
    found = None if offer is None else avoided.get(place_of(offer))
    return None if found is None else found.text()


def _where(attempt: Attempt, terms: MovingTerms) -> Placement | None:
    return terms.placement_of(offer_from_document(json.loads(attempt.offer_json)))


def _was_lost(attempt: Attempt) -> bool:
    return attempt.outcome == "preempted" and attempt.started_at is not None


def _was_vain(attempt: Attempt) -> bool:
    """Refused, or lost before it was of much use."""
    if attempt.started_at is None:
        return attempt.ended_at is not None or attempt.outcome == "running"
    end = attempt.ended_at
    return _was_lost(attempt) and end is not None and seconds_between(attempt.started_at, end) < _LONG_STINT_S


def _today(offer: Offer | None, prices: Mapping[Identity, Offer]) -> Offer | None:
    return None if offer is None else prices.get(identity(offer), offer)


def _usd_per_h(offer: Offer | None, nodes: int) -> float | None:
    price = None if offer is None else offer.price_usd_per_hour
    return None if price is None else price * nodes


def today(offers: Iterable[Offer]) -> dict[Identity, Offer]:
    """A price list by `identity`."""
    return {identity(offer): offer for offer in offers}


Prices = Callable[[], Mapping[Identity, Offer]]
