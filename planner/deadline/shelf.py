"""Value tables made lately: jobs that are alike, and the hours of one job, share them."""

from __future__ import annotations

from threading import Lock

from planner.deadline.models import SpotModels
from planner.deadline.problem import Problem
from planner.deadline.tables import USUAL_BYTES, ValueTable

#: Kept in all, in bytes, unless a single one is larger.
_ROOM = 250_000_000

_Key = tuple[Problem, SpotModels, int]
_shelf: dict[_Key, ValueTable] = {}
_lock = Lock()


def table_for(problem: Problem, models: SpotModels, most_bytes: int) -> ValueTable:
    """The table, made if need be; those asked for least lately make room for it.

    Where tables may be large, as in simulations of many jobs, that of a larger problem serves as well. Elsewhere it
    does not, so that the last digits of a value never depend on what else was asked.

    Args:
        problem: What it solves.
        models: Of the spot market.
        most_bytes: As of `ValueTable`.
    """
    with _lock:  # a monitor looks at several runs at once
        shares = most_bytes > USUAL_BYTES
        key = _covering(problem, models, most_bytes) if shares else (problem, models, most_bytes)
        table = _shelf.pop(key, None)
        if table is None:
            table = ValueTable(problem, models, most_bytes)
            room = _ROOM - table.nbytes
            while _shelf and sum(kept.nbytes for kept in _shelf.values()) > room:
                del _shelf[next(iter(_shelf))]
        _shelf[key] = table
        return table


def _covering(problem: Problem, models: SpotModels, most_bytes: int) -> _Key:
    for key in _shelf:
        if key[1:] == (models, most_bytes) and key[0].covers(problem):
            return key
    return problem, models, most_bytes
