"""A cloud's bill against the ledger: what of it our runs explain, and what nobody can explain. Pure.

Reads FOCUS (1.0 and later) and AWS Cost and Usage Reports (CUR 1 and 2). A row is ours by its tag
`tuneplan-run`, which every machine that we rent carries.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from planner.money import micro_usd
from planner.runs import Run
from planner.try_book import Try
from providers.errors import UsageError
from providers.tags import tag_value

RUN_TAG = "tuneplan-run"
_COST = ("BilledCost", "lineItem/UnblendedCost", "line_item_unblended_cost")
_START = ("ChargePeriodStart", "lineItem/UsageStartDate", "line_item_usage_start_date")
_WHAT = ("ChargeDescription", "lineItem/LineItemDescription", "line_item_line_item_description")
_CURRENCY = ("BillingCurrency", "lineItem/CurrencyCode", "line_item_currency_code")
_TAGS = ("Tags", "resource_tags", "tags")
_TAG_COLUMNS = (f"resourceTags/user:{RUN_TAG}", "resource_tags_user_tuneplan_run")


@dataclass(frozen=True, slots=True)
class BillRow:
    """One line of a bill.

    Attributes:
        line: 1-based line of the file.
        run: What its tag names, None without the tag.
        day: YYYY-MM-DD it was charged for.
    """

    line: int
    run: str | None
    day: str
    what: str
    micro_usd: int


@dataclass(frozen=True, slots=True)
class RunOnBill:
    """One run or try: what the ledger says and what was billed under its tag; of a try the ledger says the most."""

    run_id: str
    ledger_micro_usd: int | None
    billed_micro_usd: int
    at_most: bool = False

    @property
    def difference_micro_usd(self) -> int | None:
        """Billed beyond the ledger (storage, network, set-up, a machine that lived on), negative if below."""
        return None if self.ledger_micro_usd is None else self.billed_micro_usd - self.ledger_micro_usd


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a bill and the ledger say of each other.

    Attributes:
        runs: Runs with a price that the bill's days cover, dearest difference first.
        strangers: Rows whose tag names no run of this ledger.
        untagged_rows: Rows without our tag, which may be anybody's.
    """

    runs: tuple[RunOnBill, ...]
    strangers: tuple[BillRow, ...]
    untagged_rows: int
    untagged_micro_usd: int
    unexplained: tuple[RunOnBill, ...] = field(default=())


def read_bill(lines: Iterable[str], name: str) -> Iterator[BillRow]:
    """Rows of a bill that cost something.

    Args:
        lines: Of the CSV file.
        name: Of the file, for errors.

    Raises:
        UsageError: It is no bill of a known form, a row is broken, or it is not in US dollars.
    """
    reader = csv.DictReader(lines)
    header = reader.fieldnames or ()
    cost, start = _column(header, _COST), _column(header, _START)
    if cost is None or start is None:
        hint = f"it needs the columns {_COST[0]} and {_START[0]} (FOCUS), or those of an AWS CUR"
        raise UsageError(f"{name} is no bill that is known here", hint=hint, code="bill_unknown")
    what, currency = _column(header, _WHAT), _column(header, _CURRENCY)
    for row in reader:
        place = f"{name}:{reader.line_num}"
        if currency is not None and row[currency] not in ("USD", "", None):
            raise UsageError(f"{place}: the bill is in {row[currency]}, the ledger in US dollars")
        amount = _micro(row[cost], place)
        if amount:
            text = row[what] or "" if what is not None else ""
            yield BillRow(reader.line_num, _run_of(row, place), (row[start] or "")[:10], text, amount)


def reconcile(
    runs: Iterable[Run], bill: Iterable[BillRow], *, tolerance: float = 0.05, tries: Iterable[Try] = ()
) -> Reconciliation:
    """Compare them, run by run and try by try.

    Args:
        runs: All of the ledger.
        bill: Rows of one or more bills.
        tolerance: Share of the ledger's figure by which a bill may differ without being listed; a cent always may.
        tries: All of the ledger. What a try cost is reckoned from asking to its end, which is more than is billed.
    """
    rows = list(bill)
    known = {_label(run.run_id): _Known.of_run(run) for run in runs if run.terms.infra != "local"}
    known |= {_label(one.try_id): _Known.of_try(one) for one in tries}
    billed: dict[str, int] = {}
    strangers = []
    for row in rows:
        if row.run is not None and _label(row.run) in known:
            billed[_label(row.run)] = billed.get(_label(row.run), 0) + row.micro_usd
        elif row.run is not None:
            strangers.append(row)
    days = {row.day for row in rows}
    compared = [
        RunOnBill(one.name, one.cost_micro_usd, billed.get(label, 0), one.at_most)
        for label, one in known.items()
        if label in billed or (one.cost_micro_usd != 0 and _within(one.starts, days))
    ]
    compared.sort(key=lambda row: -abs(row.difference_micro_usd or row.billed_micro_usd))
    untagged = [row for row in rows if row.run is None]
    return Reconciliation(
        tuple(compared),
        tuple(strangers),
        len(untagged),
        sum(row.micro_usd for row in untagged),
        tuple(row for row in compared if not _agrees(row, tolerance)),
    )


def _agrees(row: RunOnBill, tolerance: float) -> bool:
    difference = row.difference_micro_usd
    if difference is None or row.ledger_micro_usd is None:
        return False
    over = difference if row.at_most else abs(difference)
    return over <= max(10_000, tolerance * row.ledger_micro_usd)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the ledger has of a run or a try; `starts` are the days on which machines began to be paid for."""

    name: str
    cost_micro_usd: int | None
    starts: tuple[str, ...]
    at_most: bool = False

    @classmethod
    def of_run(cls, run: Run) -> _Known:
        starts = (attempt.started_at[:10] for attempt in run.attempts if attempt.started_at is not None)
        return cls(run.run_id, run.cost_micro_usd, tuple(starts))

    @classmethod
    def of_try(cls, one: Try) -> _Known:
        return cls(one.try_id, None if one.is_open else one.cost_micro_usd, (one.asked_at[:10],), True)


def _within(starts: Iterable[str], days: set[str]) -> bool:
    """Whether the bill covers a day on which machines were paid for."""
    return bool(days) and any(min(days) <= start <= max(days) for start in starts)


def _column(header: Iterable[str], names: tuple[str, ...]) -> str | None:
    present = set(header)
    return next((name for name in names if name in present), None)


def _micro(text: str | None, place: str) -> int:
    if text is None:
        raise UsageError(f"{place}: the line ends before its cost", hint="was the file fetched to its end?")
    try:
        return micro_usd(Decimal(text.strip() or "0"))
    except (InvalidOperation, ValueError, OverflowError):
        raise UsageError(f"{place}: {text!r} is not an amount") from None


def _run_of(row: Mapping[str, str], place: str) -> str | None:
    for column in _TAG_COLUMNS:
        if row.get(column):
            return row[column]
    for column in _TAGS:
        if row.get(column):
            return _run_in(row[column], place)
    return None


def _run_in(text: str, place: str) -> str | None:
    """Our tag in a JSON object of tags; AWS puts `user_` or `user:` before the names of a user's own."""
    try:
        tags = json.loads(text)
    except ValueError:
        raise UsageError(f"{place}: the tags are no JSON: {text[:60]!r}") from None
    if not isinstance(tags, dict):
        return None
    for name in (RUN_TAG, f"user:{RUN_TAG}", "user_tuneplan_run"):
        if tags.get(name):
            return str(tags[name])
    return None


def _label(run_id: str) -> str:
    """As clouds keep it: their tags are lower case, short, and know no dots."""
    return tag_value(run_id)
