"""A bill against the ledger, for a person and for a script."""

from __future__ import annotations

from typing import Any

from planner.bills import BillRow, Reconciliation, RunOnBill
from planner.run_document import micro_text

_MOST_ROWS = 20


def bill_document(found: Reconciliation) -> dict[str, Any]:
    """The payload of `tuneplan/costs_reconcile`."""
    return {
        "runs": [_run(row) | {"explained": row not in found.unexplained} for row in found.runs],
        "strangers": [_stranger(row) for row in found.strangers],
        "untagged": {"rows": found.untagged_rows, "billed_usd": micro_text(found.untagged_micro_usd)},
    }


def render_bill(found: Reconciliation) -> str:
    """What does not agree; one line if everything does."""
    agree = len(found.runs) - len(found.unexplained)
    lines = [f"{agree} of {len(found.runs)} runs agree with the bill"]
    if found.unexplained:
        lines += ["", f"{'run':<32}  {'ledger $':>12}  {'billed $':>12}  {'difference $':>12}"]
        lines += [_line(row) for row in found.unexplained]
    if found.strangers:
        lines += ["", "billed under a tag that names no run of this ledger (`plan reap` looks for strays):"]
        lines += [_stranger_line(row) for row in found.strangers[:_MOST_ROWS]]
        if len(found.strangers) > _MOST_ROWS:
            lines.append(f"  and {len(found.strangers) - _MOST_ROWS} more rows; `-o json` has them all")
    if found.untagged_rows:
        amount = micro_text(found.untagged_micro_usd)
        lines += ["", f"{found.untagged_rows} rows for ${amount} without our tag: not compared"]
    return "\n".join(lines)


def _line(row: RunOnBill) -> str:
    ledger = micro_text(row.ledger_micro_usd) or "unknown"
    difference = micro_text(row.difference_micro_usd) or "unknown"
    return f"{row.run_id:<32}  {ledger:>12}  {micro_text(row.billed_micro_usd):>12}  {difference:>12}"


def _stranger_line(row: BillRow) -> str:
    return f"  line {row.line}: {row.day} {row.run} ${micro_text(row.micro_usd)} {row.what}".rstrip()


def _run(row: RunOnBill) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "ledger_usd": micro_text(row.ledger_micro_usd),
        "billed_usd": micro_text(row.billed_micro_usd),
        "difference_usd": micro_text(row.difference_micro_usd),
    }


def _stranger(row: BillRow) -> dict[str, Any]:
    return {
        "line": row.line,
        "run": row.run,
        "day": row.day,
        "description": row.what,
        "billed_usd": micro_text(row.micro_usd),
    }
