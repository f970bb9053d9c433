"""What runs and tries have cost, summed over whatever one wants to know it by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from planner.runs import Attempt, Run, seconds_between
from planner.try_book import Try

CostKey = Literal["run", "project", "owner", "month"]


@dataclass(frozen=True, slots=True)
class CostRow:
    """One group of attempts.

    Attributes:
        key: Run id, project, owner or month (UTC, as in 2026-11); None is an owner that nobody named.
        cost_micro_usd: None as soon as the price of one attempt is unknown.
    """

    key: str | None
    attempts: int = 0
    hours: float = 0.0
    cost_micro_usd: int | None = 0


def sum_costs(runs: Iterable[Run], by: CostKey, tries: Iterable[Try] = ()) -> list[CostRow]:
    """One row a group, dearest first; an attempt counts in the month it began, to its end or last observation.

    A try counts as an attempt; one that is still open has no known cost.
    """
    rows: dict[str | None, CostRow] = {}
    for run in runs:
        for attempt in run.attempts:
            if attempt.started_at is not None:
                key = _key(run, attempt.started_at, by)
                rows[key] = _added(rows.get(key, CostRow(key)), run, attempt)
    for one in tries:
        if one.is_open or one.cost_micro_usd != 0:
            try_key = {"run": one.try_id, "project": one.project, "owner": None, "month": one.asked_at[:7]}[
                by
            ]
            rows[try_key] = _with_try(rows.get(try_key, CostRow(try_key)), one)
    return sorted(rows.values(), key=lambda row: (-(row.cost_micro_usd or 0), row.key or ""))


def total(rows: Iterable[CostRow]) -> CostRow:
    """The sum of all rows."""
    whole = CostRow("total")
    for row in rows:
        whole = CostRow(
            "total",
            whole.attempts + row.attempts,
            whole.hours + row.hours,
            _sum(whole.cost_micro_usd, row.cost_micro_usd),
        )
    return whole


def _key(run: Run, started_at: str, by: CostKey) -> str | None:
    keys = {
        "run": run.run_id,
        "project": run.terms.project,
        "owner": run.terms.owner,
        "month": started_at[:7],
    }
    return keys[by]


def _added(row: CostRow, run: Run, attempt: Attempt) -> CostRow:
    seconds = seconds_between(attempt.started_at or run.created_at, attempt.ended_at or run.observed_at)
    cost = _sum(row.cost_micro_usd, attempt.cost_micro_usd)
    return replace(row, attempts=row.attempts + 1, hours=row.hours + seconds / 3600, cost_micro_usd=cost)


def _with_try(row: CostRow, one: Try) -> CostRow:
    hours = seconds_between(one.asked_at, one.ended_at or one.asked_at) / 3600
    cost = _sum(row.cost_micro_usd, one.cost_micro_usd)
    return replace(row, attempts=row.attempts + 1, hours=row.hours + hours, cost_micro_usd=cost)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
