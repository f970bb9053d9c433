"""What runs and tries have cost, summed over whatever one wants to know it by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from planner.ledger import cost_micro_usd
from planner.runs import Attempt, Run, seconds_between, utc_text
from planner.try_book import Try

CostKey = Literal["run", "project", "owner", "month"]
#: A cost that was counted longer ago than this is told as a bound: a monitor that is at work counts more often.
_FRESH_S = 120.0


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
    """One row a group, dearest first; an attempt counts to its end or last observation.

    By month its hours and dollars are parted at the month's end (UTC); as an attempt it counts in the month it began.
    A try counts as an attempt; one that is still open has no known cost.
    """
    rows: dict[str | None, CostRow] = {}
    for run in runs:
        for attempt in run.attempts:
            for number, part in enumerate(_parts(run, attempt)):
                key = _key(run, part.month, by)
                before = rows.get(key, CostRow(key))
                cost = _sum(before.cost_micro_usd, part.cost_micro_usd)
                began = before.attempts + (number == 0)
                rows[key] = replace(
                    before, attempts=began, hours=before.hours + part.seconds / 3600, cost_micro_usd=cost
                )
    for one in tries:
        if one.is_open or one.cost_micro_usd != 0:
            try_key = {"run": one.try_id, "project": one.project, "owner": None, "month": one.asked_at[:7]}[
                by
            ]
            rows[try_key] = _with_try(rows.get(try_key, CostRow(try_key)), one)
    return sorted(rows.values(), key=lambda row: (-(row.cost_micro_usd or 0), row.key or ""))


@dataclass(frozen=True, slots=True)
class CostNow:
    """What a run whose machines may still run has cost, as far as anybody knows.

    Attributes:
        as_of_at: Until when they are counted, RFC 3339 UTC.
        is_current: That was just now; else what is on record is the least that it has cost.
        at_most_micro_usd: By now, if they run on; None where a price is unknown.
    """

    as_of_at: str
    is_current: bool
    at_most_micro_usd: int | None


def cost_now(run: Run, now: str) -> CostNow | None:
    """How sure the run's cost on record is, None if none of its machines costs any more.

    While a backend is silent the ledger goes on being looked at and counts nothing: what was counted tells when it last
    knew. The bound grows as long as nobody says that the machines are gone.

    Args:
        run: As the ledger has it.
        now: RFC 3339 UTC.
    """
    attempt = run.current
    if run.final or attempt.started_at is None or attempt.ended_at is not None:
        return None
    price, counted = attempt.micro_usd_per_hour, attempt.cost_micro_usd
    if not price or counted is None:
        fresh = seconds_between(run.observed_at, now) <= _FRESH_S and run.state != "unknown"
        return CostNow(run.observed_at, fresh or price == 0, run.cost_micro_usd if price == 0 else None)
    until = datetime.fromisoformat(attempt.started_at) + timedelta(hours=counted / price)
    as_of_at = min(utc_text(until), now)
    whole, more_s = run.cost_micro_usd, seconds_between(as_of_at, now)
    more = cost_micro_usd(price, more_s)
    at_most = None if whole is None or more is None else whole + more
    return CostNow(as_of_at, more_s <= _FRESH_S, at_most)


def by_month(run: Run) -> dict[str, int] | None:
    """Micro-dollars of a run by the month (UTC, as in 2026-11) in which its machines ran; None is unknown.

    They sum exactly to the run's cost.
    """
    months: Counter[str] = Counter()
    for attempt in run.attempts:
        for part in _parts(run, attempt):
            if part.cost_micro_usd is None:
                return None
            months[part.month] += part.cost_micro_usd
    return dict(months)


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


@dataclass(frozen=True, slots=True)
class _Part:
    """What of an attempt lies in one month."""

    month: str
    seconds: float
    cost_micro_usd: int | None


def _parts(run: Run, attempt: Attempt) -> Iterator[_Part]:
    """An attempt, parted at the ends of months; nothing of one that never had machines."""
    if attempt.started_at is None:
        return
    whole_s = seconds_between(attempt.started_at, attempt.ended_at or run.observed_at)
    start = datetime.fromisoformat(attempt.started_at).astimezone(UTC)
    cost, left_micro_usd, done_s = attempt.cost_micro_usd, attempt.cost_micro_usd, 0.0
    at = start
    while True:
        until_s = min((_next_month(at) - start).total_seconds(), whole_s)
        is_last = until_s >= whole_s
        share = None
        if cost is not None and left_micro_usd is not None:
            share = left_micro_usd if is_last else round(cost * (until_s - done_s) / whole_s)
            left_micro_usd -= share
        yield _Part(at.strftime("%Y-%m"), until_s - done_s, share)
        if is_last:
            return
        at, done_s = _next_month(at), until_s


def _next_month(at: datetime) -> datetime:
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return datetime(year, month, 1, tzinfo=UTC)


def _key(run: Run, month: str, by: CostKey) -> str | None:
    keys = {
        "run": run.run_id,
        "project": run.terms.project,
        "owner": run.terms.owner,
        "month": month,
    }
    return keys[by]


def _with_try(row: CostRow, one: Try) -> CostRow:
    hours = seconds_between(one.asked_at, one.ended_at or one.asked_at) / 3600
    cost = _sum(row.cost_micro_usd, one.cost_micro_usd)
    return replace(row, attempts=row.attempts + 1, hours=row.hours + hours, cost_micro_usd=cost)


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
