"""Tries of machines in the ledger: each is on record before it is asked for, and until it is known to be gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from planner.database import Book
from planner.offer_document import offer_document, offer_from_document
from providers.offers import Offer

#: asked: somebody may be renting it; had: it is ours and costs; released, stock_out, failed: nothing of it is left.
TryState = Literal["asked", "had", "released", "stock_out", "failed"]
OPEN: frozenset[TryState] = frozenset({"asked", "had"})


@dataclass(frozen=True, slots=True)
class Try:
    """One machine, or group of machines, asked for to see whether it can be had.

    Attributes:
        project: Whose money it is.
        nodes: Machines.
        micro_usd_per_hour: Of all of them when they were asked for, None if unknown.
        limit_s: How long the answer was waited for.
        reason: What the seller said.
        asked_at: RFC 3339 UTC, before the seller was asked.
        answered_at: When it was had or refused, None if nobody knows.
        ended_at: When nothing of it was left.
        cost_micro_usd: From `asked_at` to `ended_at` where it was had: more than a seller bills. None if unknown.
    """

    try_id: str
    project: str
    offer: Offer
    nodes: int
    micro_usd_per_hour: int | None
    limit_s: float
    state: TryState
    reason: str
    asked_at: str
    answered_at: str | None = None
    ended_at: str | None = None
    cost_micro_usd: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether something of it may be left."""
        return self.state in OPEN


class TryBook(Book):
    """The tries of one ledger."""

    def record(self, one: Try) -> None:
        """Write a try down, before anybody is asked for it."""
        row = {
            "try_id": one.try_id,
            "project": one.project,
            "offer_json": json.dumps(offer_document(one.offer)),
            "nodes": one.nodes,
            "micro_usd_per_hour": one.micro_usd_per_hour,
            "limit_s": one.limit_s,
            "state": one.state,
            "reason": one.reason,
            "asked_at": one.asked_at,
        }
        with self._db.writing():
            self._db.insert("tries", row)

    def update(self, one: Try) -> bool:
        """Write down what became of it; False if it is over on record already."""
        with self._db.writing():
            changed = self._db.execute(
                "UPDATE tries SET state = ?, reason = ?, answered_at = ?, ended_at = ?, cost_micro_usd = ?"
                " WHERE try_id = ? AND state IN ('asked', 'had')",
                (one.state, one.reason, one.answered_at, one.ended_at, one.cost_micro_usd, one.try_id),
            )
            return changed.rowcount == 1

    def all_tries(self) -> list[Try]:
        """Oldest first."""
        with self._db.reading():
            found = self._db.execute("SELECT * FROM tries ORDER BY asked_at, try_id")
            names = [column[0] for column in found.description]
            return [_try(dict(zip(names, row, strict=True))) for row in found]

    def open_tries(self) -> Iterator[Try]:
        """Those of which something may be left."""
        return (one for one in self.all_tries() if one.is_open)


def _try(row: dict[str, Any]) -> Try:
    offer = offer_from_document(json.loads(row.pop("offer_json")))
    return Try(offer=offer, **row)
