"""From the ledger to what places were seen to do: machines had, refused and taken away."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Literal

from planner.avoidance import Place, Sighting, place_of
from planner.offer_document import offer_from_document
from planner.runs import Attempt, Run
from planner.try_book import Try
from providers.offers import Offer

#: Offers of each launch in the order asked for, by run and launch.
Askings = Mapping[tuple[str, int], tuple[Offer, ...]]


def sightings_of(
    runs: Iterable[Run], tries: Iterable[Try] = (), askings: Askings | None = None
) -> list[Sighting]:
    """What runs and tries saw, oldest first.

    A machine that stood before the one that was had, in the same cloud, was refused: the backend tries them in order.
    """
    seen = [sighting for run in runs for sighting in _of_run(run, askings or {})]
    seen += [sighting for one in tries for sighting in _of_try(one)]
    return sorted(seen, key=lambda row: row.at)


def _of_run(run: Run, askings: Askings) -> Iterator[Sighting]:
    if run.terms.infra == "local":
        return
    launch = 0
    for attempt in run.attempts:
        launch += attempt.recovery == 0
        with contextlib.suppress(ValueError, KeyError, TypeError):  # another version wrote it
            place = place_of(offer_from_document(json.loads(attempt.offer_json)))
            if attempt.started_at is not None:
                started = datetime.fromisoformat(attempt.started_at)
                for passed in _passed_over(place, askings.get((run.run_id, launch), ())):
                    yield Sighting(passed, started, "stock_out")
                yield Sighting(place, started, "had")
            if attempt.ended_at is not None and (what := _end(attempt)) is not None:
                yield Sighting(place, datetime.fromisoformat(attempt.ended_at), what)


def _end(attempt: Attempt) -> Literal["stock_out", "preempted"] | None:
    """What the end of an attempt says of its place, None if nothing."""
    if attempt.started_at is None:
        return "stock_out" if attempt.outcome == "stock_out" else None
    return "preempted" if attempt.outcome == "preempted" else None


def _passed_over(got: Place, asked: tuple[Offer, ...]) -> Iterator[Place]:
    places = [place_of(offer) for offer in asked]
    if got in places:
        yield from (place for place in places[: places.index(got)] if place.cloud == got.cloud)


def _of_try(one: Try) -> Iterator[Sighting]:
    if one.answered_at is None or one.state in ("asked", "failed"):
        return
    at = datetime.fromisoformat(one.answered_at)
    yield Sighting(place_of(one.offer), at, "stock_out" if one.state == "stock_out" else "had")
