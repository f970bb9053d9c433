"""Which things that exist somewhere no run needs any more, what they cost, and ending them.

A thing is a stray if its run is over, if its launch was followed by another one, or if nobody knows the run. Pure but
for `sweep` and `end_all`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from planner.ledger import cost_micro_usd
from planner.money import micro_usd
from planner.offer_document import offer_from_document
from planner.runs import Run, seconds_between
from planner.store import Store
from planner.try_book import Try
from providers.errors import TuneplanError, UsageError
from providers.offers import Offer
from providers.strays import MACHINES, Sweeper, Thing
from providers.tags import tag_value


class HourPrice(NamedTuple):
    """Price of a thing in whole micro-dollars an hour, None if it is not known, and who says so."""

    micro_usd_per_hour: int | None
    source: str


FREE = HourPrice(0, "nothing is paid for it")
UNKNOWN = HourPrice(None, "no price is known")
PriceOf = Callable[[Thing], HourPrice]
#: Who has taken a run id in the register, if it is somebody else.
OwnerOf = Callable[[str], str | None]
#: Which other ledger has adopted a run of this one; raises a TuneplanError if that cannot be told.
AdopterOf = Callable[[Run], str | None]


@dataclass(frozen=True, slots=True)
class Stray:
    """A thing that no run needs.

    Attributes:
        thing: What it is and where.
        run: The run of this ledger that it belongs to, None if there is none, or it is, or may be, another ledger's.
        why: Why it is a stray, for a person.
        owner: Somebody else whose run it is, or a try that may be under way: such a thing is shown and never ended.
        price: What it costs.
        is_try: It is what a try of this ledger that is over has left.
    """

    thing: Thing
    run: Run | None
    why: str
    owner: str | None
    price: HourPrice
    is_try: bool = False

    @property
    def is_ours(self) -> bool:
        """This ledger launched it, so that it is safe to end."""
        return self.run is not None or self.is_try

    def cost_micro_usd(self, now: str) -> int | None:
        """What it has cost since it was made, None if price or age is unknown."""
        if self.thing.since_at is None:
            return None
        return cost_micro_usd(self.price.micro_usd_per_hour, seconds_between(self.thing.since_at, now))


@dataclass(frozen=True, slots=True)
class Swept:
    """What was found.

    Attributes:
        strays: In the order found.
        not_examined: Why a backend could not be asked, by its name.
    """

    strays: tuple[Stray, ...]
    not_examined: dict[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a stray: `error` says why it is still there, None if it is gone."""

    stray: Stray
    error: str | None


@dataclass(frozen=True, slots=True)
class Judge:
    """What it takes to tell a stray.

    Attributes:
        runs: Every run of this ledger.
        price_of: Of machines whose run is not known.
        owner_of: Of runs that are not known.
        adopter_of: Of runs that are.
        now: RFC 3339 UTC.
        settle_s: A thing of a run that was over only so long ago may still be on its way out.
        tries: Every try of this ledger (`plan find --try`).
    """

    runs: Sequence[Run]
    price_of: PriceOf
    owner_of: OwnerOf
    adopter_of: AdopterOf
    now: str
    settle_s: float
    tries: Sequence[Try] = ()

    def stray(self, thing: Thing, by_tag: Mapping[str, Sequence[Run]]) -> Stray | None:
        """The thing as a stray, None if a run that it may be of needs it, or may just be giving it back."""
        tried = next((one for one in self.tries if one.try_id == thing.run), None)
        if tried is not None:
            return self._of_try(thing, tried)
        runs = _runs_of(thing, by_tag)
        if not runs:
            owner = self.owner_of(thing.run)
            why = "this ledger knows no such run" if owner is None else f"run of {owner}"
            young = thing.since_at is not None and seconds_between(thing.since_at, self.now) < self.settle_s
            return None if young else Stray(thing, None, why, owner, self._price(thing, None))
        reasons = [_needless(thing, run) for run in runs]
        if any(not why or seconds_between(since, self.now) < self.settle_s for why, since in reasons):
            return None
        return self._of_run(thing, runs[0], reasons[0][0])

    def _of_try(self, thing: Thing, one: Try) -> Stray | None:
        price = self._price(thing, None)
        if one.is_open:
            why = "a try that is under way, or was cut off: `plan find --end-tries` ends what was"
            return Stray(thing, None, why, "a try of this ledger", price)
        if seconds_between(one.ended_at or one.asked_at, self.now) < self.settle_s:
            return None
        return Stray(thing, None, f"try {one.try_id} is over ({one.state})", None, price, is_try=True)

    def _of_run(self, thing: Thing, run: Run, why: str) -> Stray:
        """A stray by this ledger, unless the run is another one's by now: then this one knows nothing of its state."""
        price = self._price(thing, run)
        try:
            owner = self.adopter_of(run)
        except TuneplanError as error:
            doubt = f"{why}; whether another ledger has adopted it cannot be told: {error.message}"
            return Stray(thing, None, doubt, None, price)
        if owner is not None:
            return Stray(thing, None, f"run {run.run_id} was adopted by {owner}", owner, price)
        return Stray(thing, run, why, None, price)

    def _price(self, thing: Thing, run: Run | None) -> HourPrice:
        if thing.kind not in MACHINES:
            return UNKNOWN if thing.kind == "upload" else FREE
        if run is None:
            return self.price_of(thing)
        if thing.kind != "instance":
            return HourPrice(run.current.micro_usd_per_hour, "the ledger, at launch")
        offer = offer_from_document(json.loads(run.current.offer_json))
        if (offer.region, offer.instance_type, offer.market) != (
            thing.region,
            thing.instance_type,
            thing.market,
        ):
            return self.price_of(thing)
        price = offer.price_usd_per_hour
        return HourPrice(None if price is None else micro_usd(price), "the ledger, at launch")


def price_in(offers: Iterable[Offer], thing: Thing) -> HourPrice:
    """The dearest price of machines like this one in a price book; of a zone that the book knows, that zone's."""
    if thing.cloud is None or thing.instance_type is None:
        return UNKNOWN
    wanted = (thing.cloud, thing.region, thing.instance_type, thing.market)
    same = [
        offer
        for offer in offers
        if (offer.cloud, offer.region, offer.instance_type, offer.market) == wanted
        and offer.price_usd_per_hour is not None
    ]
    in_zone = [offer for offer in same if offer.zone is not None and thing.place.endswith(offer.zone)]
    dearest = max(in_zone or same, key=lambda offer: offer.price_usd_per_hour or 0.0, default=None)
    if dearest is None or dearest.price_usd_per_hour is None:
        return UNKNOWN
    return HourPrice(
        micro_usd(dearest.price_usd_per_hour), f"{dearest.source}, {dearest.as_of_at or 'undated'}"
    )


def sweep(sweepers: Iterable[Sweeper], judge: Judge) -> Swept:
    """Ask every backend; one that cannot be asked is named and does not stand in the way of the others."""
    by_tag: dict[str, list[Run]] = {}
    for run in judge.runs:
        by_tag.setdefault(tag_value(run.run_id), []).append(run)
    strays: list[Stray] = []
    failed: dict[str, str] = {}
    for sweeper in sweepers:
        try:
            found = [judge.stray(thing, by_tag) for thing in sweeper.find()]
        except TuneplanError as error:
            failed[sweeper.name] = error.message
            continue
        strays += [stray for stray in found if stray is not None]
    return Swept(tuple(strays), failed)


def end_all(
    sweepers: Iterable[Sweeper], strays: Sequence[Stray], store: Store, now: Callable[[], str]
) -> list[Ended]:
    """End strays and look whether they are gone; the ledger of their runs says so.

    Args:
        sweepers: Of the backends that found them.
        strays: Those to end.
        store: The ledger.
        now: The clock.
    """
    errors: dict[Thing, str] = {}
    gone: set[Thing] = set()
    for sweeper in sweepers:
        mine = [stray for stray in strays if _belongs(stray.thing, sweeper)]
        for stray in mine:
            try:
                _refuse_resumed(stray, store)
                sweeper.end(stray.thing)
            except TuneplanError as error:
                errors[stray.thing] = error.message
        gone |= _gone(sweeper, [stray.thing for stray in mine], errors) if mine else set()
    ended = [
        Ended(one, None if one.thing in gone else errors.get(one.thing, "it is still there"))
        for one in strays
    ]
    for row in ended:
        if row.stray.run is not None:
            store.note(row.stray.run, "reap", _told(row), now())
    return ended


def _refuse_resumed(stray: Stray, store: Store) -> None:
    """A run may have been resumed while a person was asked: then it may need the thing after all."""
    if stray.run is None:
        return
    newest = store.get(stray.run.run_id)
    if newest is not None and newest.launches != stray.run.launches:
        raise UsageError(f"run {newest.run_id} was resumed meanwhile")


def _told(row: Ended) -> str:
    thing = row.stray.thing
    what = f"{thing.kind} {thing.name} in {thing.place}"
    return (
        f"ended the stray {what}"
        if row.error is None
        else f"the stray {what} could not be ended: {row.error}"
    )


_KINDS: dict[str, str] = {
    "worker": "local",
    "secret": "secrets",
    "job": "skypilot",
    "cluster": "skypilot",
    "instance": "aws instances",
    "role": "aws roles",
    "upload": "s3 uploads",
}


def _belongs(thing: Thing, sweeper: Sweeper) -> bool:
    return _KINDS[thing.kind] == sweeper.name


def _gone(sweeper: Sweeper, things: Sequence[Thing], errors: dict[Thing, str]) -> set[Thing]:
    """Those of them that the backend does not show any more."""
    try:
        left = {(thing.kind, thing.ref or (thing.run,)) for thing in sweeper.find()}
    except TuneplanError as error:
        errors.update({thing: f"nobody can tell whether it is gone: {error.message}" for thing in things})
        return set()
    return {thing for thing in things if (thing.kind, thing.ref or (thing.run,)) not in left}


def _runs_of(thing: Thing, by_tag: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs that a thing may be of: what bears a tag alone may be of each whose id is spelt so in it."""
    spelt = by_tag.get(tag_value(thing.run), ())
    return [run for run in spelt if thing.kind == "instance" or run.run_id == thing.run]


def _needless(thing: Thing, run: Run) -> tuple[str, str]:
    """Why the run does not need it, and since when; empty if it does."""
    if run.final:
        return f"run {run.run_id} is over ({run.state})", run.state_since_at
    if run.resting and thing.kind in MACHINES:
        return f"run {run.run_id} rests: its machines should be gone", run.state_since_at
    if thing.attempt is not None and thing.attempt < run.launches:
        return (
            f"launch {thing.attempt} of {run.run_id} was followed by launch {run.launches}",
            run.current.intent_at,
        )
    return "", run.state_since_at
