"""An explanation for a person: one line a term, with what went in and where it comes from below it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from planner.explain import Explanation, Section, Term

_NAME, _LEAST_VALUE = 26, 16
_LEAST_WIDTH, _MOST_WIDTH = 80, 140


def render_explanation(explanation: Explanation, width: int) -> str:
    """Every section as text.

    Args:
        explanation: Of one candidate.
        width: Columns to keep to.
    """
    candidate = explanation.candidate
    offer = candidate.offer
    head = (
        f"candidate {candidate.rank} ({candidate.candidate_id}): {candidate.nodes} x {offer.cloud} "
        f"{offer.instance_type or ''} {offer.gpu}:{offer.gpus_per_node}, {offer.market.replace('_', '-')}, "
        f"{offer.zone or offer.region}"
    )
    sections = (
        _section(section, min(max(width, _LEAST_WIDTH), _MOST_WIDTH)) for section in explanation.sections
    )
    return "\n\n".join([head, *sections])


def _section(section: Section, width: int) -> str:
    lines = [f"{section.title}  [{section.source}]"]
    total = () if section.total is None else (section.total,)
    every = (*section.terms, *total, *section.notes)
    values = max([_LEAST_VALUE, *(len(_value(term)) for term in every)])
    for term in every:
        mark = "= " if term is section.total else "  "
        first = f"{mark}{term.name:<{_NAME - 2}}  {_value(term):>{values}}  "
        lines += _term(first, term.formula, "; ".join(_remarks(term, section)), width)
    return "\n".join(lines)


def _term(first: str, formula: str, said: str, width: int) -> Iterator[str]:
    """The formula beside the value, remarks below the formula."""
    indent = " " * len(first)
    yield from textwrap.wrap(
        formula, width, initial_indent=first, subsequent_indent=indent, break_long_words=False
    ) or [first.rstrip()]
    yield from textwrap.wrap(said, width, initial_indent=indent, subsequent_indent=indent)


def _remarks(term: Term, section: Section) -> Iterator[str]:
    if term.interval is not None and term.interval.p10 < term.interval.p90:
        yield f"p10-p90 {_number(term.interval.p10)}-{_number(term.interval.p90)}"
    if term.inputs:
        yield ", ".join(f"{name} {_input(value)}" for name, value in term.inputs.items())
    if term.error:
        yield f"expected error: {term.error}"
    if term.source and term.source != section.source:
        yield f"[{term.source}]"


def _value(term: Term) -> str:
    if term.value is None:
        return "unknown"
    if isinstance(term.value, str):
        return term.value
    if term.unit.startswith("USD"):
        return f"${term.value:,.4f}{term.unit.removeprefix('USD')}"
    return f"{_number(term.value)} {term.unit}".rstrip()


def _input(value: float | int | str | None) -> str:
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    """Whole numbers in full, others to four digits."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e12 else f"{value:.4g}"
