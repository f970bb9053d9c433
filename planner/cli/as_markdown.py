"""A JSON answer as Markdown tables, for a comment on a pull request or a wiki page.

Fields of objects get dotted names, as in `offer.gpu`; a list of objects becomes a table under a heading; a quantity
with p10, p50 and p90 becomes one cell. What is null in JSON, unknown or none, is `n/a`. Wide tables keep to the
columns below, and numbers to what a person reads: the others, and every digit, are in `-o json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_QUANTILES = {"p10", "p50", "p90"}
#: Money is text in JSON; this is one with more than cents.
_FINER_THAN_CENTS = re.compile(r"-?\d+\.\d{3,}")
_SHARE = re.compile(r"(.+_)?share|p_(in_time|finish_by_deadline)")
_OFFER = ("offer.cloud", "offer.region", "offer.gpu", "offer.gpus_per_node", "offer.market")
_PRICE = ("offer.price_usd_per_h", "offer.source", "offer.as_of_at", "offer.flags")
_COMPARED = (
    "name",
    "model",
    "method",
    *_OFFER,
    "nodes",
    "cost_usd",
    "wall_clock_h",
    "memory_reserved_gib",
    "p_finish_by_deadline",
    "verdict",
)
_RUN = (
    "run_id",
    "state",
    "project",
    "owner",
    "infra",
    "step",
    "max_steps",
    "cost_usd",
    "cap_usd",
    "last_checkpoint.step",
)
#: Document and list -> the columns that are shown, where all would be too many to read.
_COLUMNS: dict[tuple[str, str], tuple[str, ...]] = {
    ("compare", "plans"): _COMPARED,
    ("diff", "plans"): _COMPARED,
    ("estimate", "candidates"): (
        "rank", *_OFFER, "nodes", "wall_clock_h", "cost_usd", "p_finish_by_deadline", "verdict", *_PRICE,
    ),
    ("estimate", "rejected"): ("reason_code", "reason", "count"),
    ("reserve_offers", "offers"): (
        "offer_id", "provider", *_OFFER, "nodes", "start_at", "end_at", "usable_h", "upfront_usd",
        "usd_per_useful_gpu_h", "refundable",
    ),
    ("runs", "runs"): _RUN,
    ("status", "attempts"): (
        "attempt", *_OFFER, "started_at", "ended_at", "outcome", "first_step", "last_step", "cost_usd",
    ),
}  # fmt: skip


def markdown_text(document: Mapping[str, Any]) -> str:
    """The document as headings and tables; its head becomes the title and the last line."""
    name = str(document["schema"]).partition("/")[2]
    head = ("schema", "schema_version", "tuneplan_version", "generated_at")
    body = {key: value for key, value in document.items() if key not in head}
    parts = [f"## {name.replace('_', ' ')}", *_sections(name, "", body)]
    parts.append(f"tuneplan {document['tuneplan_version']}, {document['generated_at']}")
    return "\n\n".join(parts)


def _sections(name: str, title: str, value: Mapping[str, Any]) -> Iterator[str]:
    """The fields of an object as a table, then its lists of objects."""
    facts = dict(_flat(value))
    if facts:
        yield _table(("field", "value"), [(f"`{key}`", _cell(fact, key)) for key, fact in facts.items()])
    for path, rows in _lists(value):
        yield f"### {title}{path}"
        yield _rows(name, path, rows) if rows else "none"
        for number, row in enumerate(rows, 1):
            for inner, inner_rows in _lists(row):
                if inner_rows:
                    yield f"### {title}{path} {number}: {inner}"
                    yield _rows(name, inner, inner_rows)


def _rows(name: str, path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [dict(_flat(row)) for row in rows]
    columns: Sequence[str] = _COLUMNS.get((name, path.rpartition(".")[2]), ())
    columns = columns or list(dict.fromkeys(key for row in flat for key in row))
    return _table(columns, [[_cell(row.get(column), column) for column in columns] for row in flat])


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of everything but lists of objects."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner and set(inner) != _QUANTILES:
            yield from _flat(inner, f"{prefix}{key}.")
        elif not _is_table(inner):
            yield f"{prefix}{key}", inner


def _lists(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Dotted names and rows of the lists of objects; a list that is empty is one of them."""
    for key, inner in value.items():
        if _is_table(inner):
            yield f"{prefix}{key}", inner
        elif isinstance(inner, Mapping):
            yield from _lists(inner, f"{prefix}{key}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any, name: str = "") -> str:
    """One cell; nothing in it can end the cell or the line, or be taken for a tag.

    Args:
        value: JSON types.
        name: Of the field, dotted; text in quantiles, and in fields of dollars, is money; shares are per cent.
    """
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | int) and (percent := _percent(value, name.rpartition(".")[2])):
        return percent
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping) and set(value) == _QUANTILES:
        low, middle, high = (_cell(value[key], "usd") for key in ("p10", "p50", "p90"))
        return f"{middle} ({low} to {high})"
    if isinstance(value, (list, Mapping)):
        return ", ".join(_cell(one) for one in value) or "none"
    text = " ".join(str(value).split())
    if "usd" in name and _FINER_THAN_CENTS.fullmatch(text):
        return _cents(float(text))
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _percent(value: float, field: str) -> str:
    """A change, a share or a chance as tables show it; nothing if the field is none of them."""
    if field == "change":
        return f"{value:+.1%}"
    return f"{100 * value:.3g}%" if _SHARE.fullmatch(field) else ""


def _cents(usd: float) -> str:
    """To the cent; two digits of what is less than ten of them, as prices of seconds and toy runs are."""
    if abs(usd) >= 0.1 or usd == 0:
        return f"{usd:.2f}"
    return f"{usd:.2g}" if abs(usd) >= 1e-4 else f"{usd:.6f}"  # a ledger counts in millionths


def _number(value: float) -> str:
    return f"{round(value, 2):.6g}" if abs(value) >= 1 else f"{value:.3g}"
