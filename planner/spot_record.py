"""From the ledger's attempts on spot machines to what they say of the places' hazards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator

from planner.hazards import OwnSpell
from planner.runs import Attempt, Run, seconds_between

_LOST, _KEPT = "preempted", ("done", "failed", "capped", "cancelled")


def own_spells_of(runs: Iterable[Run]) -> tuple[OwnSpell, ...]:
    """How long each attempt on spot kept its machines, newest first; attempts under way say nothing yet.

    Args:
        runs: Of the ledger, newest first, in any state.
    """
    return tuple(_spells(runs))


def _spells(runs: Iterable[Run]) -> Iterator[OwnSpell]:
    for run in runs:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # another version wrote it
            nodes = int(json.loads(run.terms.candidate_json)["nodes"])
            yield from (
                spell for attempt in reversed(run.attempts) if (spell := _spell(attempt, nodes)) is not None
            )


def _spell(attempt: Attempt, nodes: int) -> OwnSpell | None:
    offer = json.loads(attempt.offer_json)
    if offer["market"] != "spot" or attempt.started_at is None or attempt.ended_at is None:
        return None
    if attempt.outcome not in (_LOST, *_KEPT):
        return None
    hours = seconds_between(attempt.started_at, attempt.ended_at) / 3600
    place = offer["zone"] or offer["region"]
    lost = attempt.outcome == _LOST
    return OwnSpell(offer["cloud"], place, offer["gpu"], nodes, hours, lost, int(offer["gpus_per_node"]))
