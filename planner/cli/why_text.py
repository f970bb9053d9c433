"""`plan estimate --why` for a person: why offers were dropped, and what single changes would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.candidate_document import candidate_document
from planner.estimate import Rejection
from planner.money import usd_text
from planner.whatif import WhatIf


def render_rejected(rejected: Sequence[Rejection]) -> str:
    """Every reason with its number of offers and one example."""
    if not rejected:
        return "no offer was dropped"
    lines = ["dropped offers, by reason:"]
    for row in rejected:
        offer = row.example_offer
        example = (
            f"{offer.cloud} {offer.instance_type or ''} {offer.gpu}:{offer.gpus_per_node} in {offer.region}"
        )
        lines.append(f"{row.count:>8,}  {row.reason_code:<12}  {row.reason}")
        lines.append(f"{'':>24}as {' '.join(example.split())}")
    return "\n".join(lines)


def render_changes(title: str, rows: Sequence[WhatIf]) -> str:
    """A line a change: what it does to the best candidate."""
    if not rows:
        return f"{title}: none that matters"
    cells = [("change", "total $", "hours", "GiB a GPU", "then best on", ""), *map(_cells, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [f"{title}:"]
    for row in cells:
        shown = (
            cell.rjust(width) if column in (1, 2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join(shown).rstrip())
    return "\n".join(lines)


def _cells(row: WhatIf) -> tuple[str, ...]:
    offer = row.candidate.offer
    return (
        ", ".join(f"{key}: {_yaml(value)}" for key, value in row.changes.items() if _told(row, key)),
        f"{row.cost_usd:+,.2f}",
        f"{row.wall_clock_h:+,.2f}",
        f"{row.memory_gib:+,.1f}",
        f"{row.candidate.nodes} x {offer.cloud} {offer.gpu}:{offer.gpus_per_node}",
        row.caveat,
    )


def _told(row: WhatIf, key: str) -> bool:
    """`quantization: null` only makes room for a method that implies it."""
    return len(row.changes) == 1 or row.changes[key] is not None


def _yaml(value: Any) -> str:
    if value is None:
        return "any"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def what_if_document(row: WhatIf) -> dict[str, Any]:
    """One change as JSON types."""
    candidate = candidate_document(row.candidate)
    return {
        "set": row.changes,
        "candidate": {
            key: candidate[key] for key in ("id", "offer", "nodes", "verdict", "cost_usd", "wall_clock_h")
        },
        "saves_usd": usd_text(-row.cost_usd),
        "saves_h": -row.wall_clock_h,
        "saves_gib_per_gpu": -row.memory_gib,
        "caveat": row.caveat or None,
    }
