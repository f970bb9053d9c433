"""Plans side by side as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from planner.candidates import Candidate
from planner.cli.estimate_table import duration, span
from planner.cli.price_text import table_text
from planner.comparison import Side, differences, figures, middle, same_prices
from planner.quantiles import Quantiles
from planner.units import written_duration

_LABELS = {
    "cost_usd": "total $",
    "wall_clock_h": "billed hours",
    "gpu_hours": "GPU-hours",
    "step_time_s": "s a step",
    "tokens_per_s_total": "tokens/s",
    "memory_reserved_gib": "GiB a GPU",
}
_OTHER_PRICES = "note: these were not planned with the same prices: part of what differs is theirs"
#: A change below this is said to be none.
_LEAST_SHOWN = 0.0005


def render_comparison(sides: Sequence[Side]) -> str:
    """A line for each plan, then what their specs do not have in common."""
    head = ("plan", "model", "method", "best on", "time", "total $", "GiB a GPU", "P(in time)", "fits")
    names = _short(sides)
    rows = [(name, *_row(side)) for name, side in zip(names, sides, strict=True)]
    parts = [
        table_text(head, rows, ("time", "total $", "GiB a GPU", "P(in time)"), ("plan", "model", "best on"))
    ]
    parts += _keys(("key", *names), sides)
    parts.append("time and total are p50 (p10-p90), billed time and US dollars before tax")
    if not same_prices(sides):
        parts.append(_OTHER_PRICES)
    return "\n\n".join(parts)


def _short(sides: Sequence[Side]) -> list[str]:
    """Names of the files without their directories, if that tells them apart."""
    bare = [PurePath(side.name).name for side in sides]
    return bare if len(set(bare)) == len(bare) else [side.name for side in sides]


def _row(side: Side) -> Iterator[str]:
    spec, best = side.plan.spec, side.best
    yield from (spec.model.id, spec.method.kind)
    if best is None:
        yield from ("nowhere", "-", "-", "-", "-", "oom")
        return
    yield where(best)
    yield duration(best.wall_clock_h, interval=True)
    yield span(best.cost_usd, 2)
    yield f"{best.memory.reserved_gib:.1f}"
    yield "-" if best.p_finish_by_deadline is None else f"{best.p_finish_by_deadline:.0%}"
    yield best.fit_in_a_word


def where(candidate: Candidate) -> str:
    """Machines, market and place of a candidate."""
    offer = candidate.offer
    market = offer.market.replace("_", "-")
    return (
        f"{candidate.nodes} x {offer.gpu}:{offer.gpus_per_node} {market}, "
        f"{offer.cloud} {offer.zone or offer.region}"
    )


def render_diff(before: Side, after: Side) -> str:
    """Both best candidates, their figures with the change, and the keys of the spec that changed."""
    names = _short((before, after))
    width = max(len(name) for name in names)
    told = zip(names, (before, after), strict=True)
    parts = ["\n".join(f"{name:<{width}}  {_on(side)}" for name, side in told)]
    rows = [
        (_LABELS[row.quantity], _value(row.before), _value(row.after), _change(row.change))
        for row in figures(before, after)
    ]
    head = ("best candidate", "before", "after", "change")
    parts.append(table_text(head, rows, head[1:]))
    parts += _keys(("key", "before", "after"), (before, after))
    if not same_prices((before, after)):
        parts.append(_OTHER_PRICES)
    return "\n\n".join(parts)


def _on(side: Side) -> str:
    return "fits nowhere" if side.best is None else where(side.best)


def _value(value: Quantiles | float | None) -> str:
    if value is None:
        return "-"
    digits = 1 if middle(value) >= 100 else 2
    return span(value, digits) if isinstance(value, Quantiles) else f"{value:,.{digits}f}"


def _change(change: float | None) -> str:
    if change is None:
        return "unknown"
    return "none" if abs(change) < _LEAST_SHOWN else f"{change:+.1%}"


def _keys(head: Sequence[str], sides: Sequence[Side]) -> Iterator[str]:
    rows = [(row.path, *(_text(value) for value in row.values)) for row in differences(sides)]
    yield table_text(head, rows, (), head[1:]) if rows else "the specs say the same"


def _text(value: Any) -> str:
    """A value of the spec as it may be written there."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return written_duration(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
