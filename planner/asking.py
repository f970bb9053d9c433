"""In which order a launch asks for machines: the plan's, but places that said no lately come last.

The order is on record before the backend is asked, so that a launch that is repeated asks in the same one, and so that
places that were passed over are known later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from planner import rented
from planner.avoidance import Avoided, Place, avoided_places, place_of, preferred
from planner.runs import WAITING, Run
from planner.sightings import sightings_of
from planner.store import Store
from planner.try_book import TryBook
from providers.offers import Offer


def avoided_now(store: Store, now: str, *, besides: str | None = None) -> dict[Place, Avoided]:
    """Every place to leave alone, by all runs and tries of the ledger.

    Args:
        store: The ledger.
        now: RFC 3339 UTC.
        besides: A run whose own sightings do not count; one that moves has its own pauses.
    """
    with TryBook(store.path) as book:
        tries = book.all_tries()
    sightings = sightings_of(
        (run for run in store.all_runs() if run.run_id != besides), tries, store.askings()
    )
    return avoided_places(sightings, datetime.fromisoformat(now))


def offers_to_ask(store: Store, run: Run, offers: Sequence[Offer], now: str) -> tuple[Offer, ...]:
    """The machines of the run's newest launch in the order to ask for them; why some come last is in its history.

    Raises:
        StorageError: The ledger cannot be written.
    """
    ordered, late = preferred(offers, avoided_now(store, now))
    asked = store.record_asking(run, ordered, now)
    if asked == ordered:
        for avoided in late:
            store.note(run, "avoid", f"{avoided.place.text()} {avoided.text()}; {avoided.basis}", now)
    return asked


def reason_to_move(store: Store, run: Run, now: str) -> str | None:
    """Why a run that its backend has no machines for should rather be asked for anew, None if it should not.

    After a loss the backend begins again with the first place of the same order, which is often the one that took the
    machine.
    """
    if run.state not in WAITING or run.terms.infra == "local" or run.stopping is not None:
        return None
    if rented.keys_ended(run, now):
        return "the session keys of its launch have ended; it is launched anew with new ones"
    if run.state != "recovering":
        return None
    asked = store.askings().get((run.run_id, run.launches), ())
    if len(asked) < 2:
        return None
    avoided = avoided_now(store, now)
    first = avoided.get(place_of(asked[0]))
    if first is None or all(place_of(offer) in avoided for offer in asked):
        return None
    return f"{first.place.text()} {first.text()}; it goes on elsewhere"


def late_places(store: Store, run: Run, now: str) -> list[Avoided]:
    """Those of the places that the run's newest launch asked for which are left alone now."""
    if run.terms.infra == "local" or run.final:
        return []
    asked = store.askings().get((run.run_id, run.launches), ())
    avoided = avoided_now(store, now) if asked else {}
    places = dict.fromkeys(place_of(offer) for offer in asked)
    return [avoided[place] for place in places if place in avoided]
