"""Which places to leave alone for a while after a machine was taken away or refused there, and how long. Pure.

An outage of a place is taken to end at a constant rate. The prior is the median outage of GPU spot zones on public
record (`planner.hazards`), worth `_PRIOR_OUTAGES` outages; own outages count in full where they happened and by half in
the same cloud (a Gamma prior and its posterior mean). A place is avoided for one half-life after it last said no: from
then on it is as likely to have a machine as not. Left out: outages depend on the hour of the day, and a long outage is
likelier to go on than a short one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Literal, NamedTuple

from planner.hazards import prior
from providers.offers import Market, Offer

_PRIOR_OUTAGES = 2.0
_SAME_CLOUD = 0.5
_SHORTEST_H, _LONGEST_H = 5 / 60, 6.0
#: Nobody looked for so long: when the outage ended is not known.
_BLIND_H = 6.0


class Place(NamedTuple):
    """Where a kind of machine is sold; a zone of None is the whole region."""

    cloud: str
    region: str
    zone: str | None
    gpu: str
    market: Market

    def text(self) -> str:
        """As in aws/us-west-2/us-west-2a."""
        return "/".join(part for part in (self.cloud, self.region, self.zone) if part)


class Sighting(NamedTuple):
    """What a place was seen to do.

    Attributes:
        at: UTC.
        what: A machine was had there, none could be had, or one was taken away.
    """

    place: Place
    at: datetime
    what: Literal["had", "stock_out", "preempted"]


class Avoided(NamedTuple):
    """A place to leave alone.

    Attributes:
        until: UTC.
        reason: Why, for a person, as in "preempted 12 min ago".
        basis: What the length rests on.
    """

    place: Place
    until: datetime
    reason: str
    basis: str

    def text(self) -> str:
        """As in "avoided until 14:10 UTC: preempted 12 min ago"."""
        return f"avoided until {self.until:%H:%M} UTC: {self.reason}"


class _Outages(NamedTuple):
    ends: float
    hours: float


def place_of(offer: Offer) -> Place:
    """Where an offer is."""
    return Place(offer.cloud, offer.region, offer.zone, offer.gpu, offer.market)


def avoided_places(sightings: Iterable[Sighting], now: datetime) -> dict[Place, Avoided]:
    """The places to leave alone now.

    Args:
        sightings: In any order; those of the future are left out.
        now: UTC.
    """
    by_place: dict[Place, list[Sighting]] = {}
    for sighting in sorted(sightings, key=lambda row: row.at):
        if sighting.at <= now:
            by_place.setdefault(sighting.place, []).append(sighting)
    found = {}
    for place, rows in by_place.items():
        last = rows[-1]
        if last.what == "had":
            continue
        half_life_h, basis = _half_life(place, by_place)
        until = last.at + timedelta(hours=half_life_h)
        if until > now:
            said = "no machine" if last.what == "stock_out" else "preempted"
            found[place] = Avoided(place, until, f"{said} {_ago(now - last.at)} ago", basis)
    return found


def preferred(
    offers: Sequence[Offer], avoided: dict[Place, Avoided]
) -> tuple[tuple[Offer, ...], tuple[Avoided, ...]]:
    """The offers with avoided places last, else in their order, and why those were moved.

    Nothing is left out: a place that is avoided is still better than none.
    """
    late = [offer for offer in offers if place_of(offer) in avoided]
    if not late or len(late) == len(offers):
        return tuple(offers), ()
    early = [offer for offer in offers if place_of(offer) not in avoided]
    reasons = dict.fromkeys(avoided[place_of(offer)] for offer in late)
    return (*early, *late), tuple(reasons)


@cache
def prior_half_life_h() -> float:
    """Median length of an outage over the kinds of zones on record, hours."""
    models = prior().models

    def out(hours: float) -> float:
        return sum(model.weight * model.down.survival(hours) for model in models)

    low, high = 0.0, 48.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if out(middle) > 0.5 else (low, middle)
    return high


def _half_life(place: Place, by_place: dict[Place, list[Sighting]]) -> tuple[float, str]:
    """Hours, and what they rest on."""
    mean_h = prior_half_life_h() / math.log(2)
    ends, hours, own = _PRIOR_OUTAGES, _PRIOR_OUTAGES * mean_h, 0.0
    for other, rows in by_place.items():
        weight = 1.0 if other == place else _SAME_CLOUD if other.cloud == place.cloud else 0.0
        seen = _outages(rows)
        ends, hours = ends + weight * seen.ends, hours + weight * seen.hours
        own += seen.ends if weight else 0.0
    half_life_h = min(max(math.log(2) * hours / ends, _SHORTEST_H), _LONGEST_H)
    basis = (
        f"half of such outages are over after {half_life_h * 60:.0f} min: public records of 31 GPU spot zones"
    )
    return half_life_h, basis + (f" and {own:.0f} outages of your own" if own else "")


def _outages(rows: list[Sighting]) -> _Outages:
    """Endings seen in one place, and the hours in which they could have come.

    An ending lies halfway between two looks.
    """
    ends, hours = 0.0, 0.0
    began: datetime | None = None
    last = rows[0].at
    for row in rows:
        gap_h = (row.at - last).total_seconds() / 3600
        if began is not None and gap_h <= _BLIND_H:
            hours += gap_h / 2 if row.what == "had" else gap_h
            ends += row.what == "had"
        began = None if row.what == "had" else row.at
        last = row.at
    return _Outages(ends, hours)


def _ago(span: timedelta) -> str:
    minutes = span.total_seconds() / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} h"
