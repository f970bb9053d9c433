"""How long it took to get machines, from one's own tries alone; nothing is assumed where there are none. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from planner.avoidance import place_of
from planner.runs import seconds_between
from planner.try_book import Try
from providers.aws_zones import is_zone_id
from providers.offers import Offer


class QueueTime(NamedTuple):
    """From asking to having.

    Attributes:
        tries: All that were answered.
        had: Those that got a machine.
        p50_s: Median over those that did, None if none did.
        p90_s: Nearest-rank quantile over those that did.
    """

    tries: int
    had: int
    p50_s: float | None
    p90_s: float | None

    def text(self) -> str:
        """For a person."""
        if self.p50_s is None:
            return f"unknown: refused in all {self.tries} tries"
        return f"p50 {self.p50_s:.0f} s, p90 {self.p90_s:.0f} s; had in {self.had} of {self.tries} tries"


def queue_time(offer: Offer, tries: Iterable[Try]) -> QueueTime | None:
    """Over own tries of the same machine in the same place; None without an answered one.

    A zone that is known by its id only, as in AWS's catalogs, takes the tries of its whole region: tries have the names
    that zones have in one's own account.
    """
    mine = [
        one
        for one in tries
        if one.answered_at is not None and one.state not in ("asked", "failed") and _is_same(one.offer, offer)
    ]
    if not mine:
        return None
    waits = sorted(
        seconds_between(one.asked_at, one.answered_at or one.asked_at)
        for one in mine
        if one.state != "stock_out"
    )
    if not waits:
        return QueueTime(len(mine), 0, None, None)
    return QueueTime(len(mine), len(waits), _quantile(waits, 0.5), _quantile(waits, 0.9))


def _quantile(waits: list[float], share: float) -> float:
    return waits[math.ceil(share * len(waits)) - 1]


def _is_same(tried: Offer, offer: Offer) -> bool:
    place, there = place_of(offer), place_of(tried)
    if is_zone_id(offer.zone):
        there = there._replace(zone=offer.zone)
    return place == there and tried.gpus_per_node == offer.gpus_per_node
