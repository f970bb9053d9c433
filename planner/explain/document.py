"""An explanation as JSON types: the key `explanation` of a `tuneplan/estimate` document."""

from __future__ import annotations

from typing import Any

from planner.candidate_document import quantiles_document, usd_quantiles_document
from planner.explain.explanation import Explanation
from planner.explain.terms import Section, Term
from planner.money import usd_text


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """Sections in order; amounts of money are decimal strings, everything else is unrounded."""
    return {
        "candidate": explanation.candidate.candidate_id,
        "rank": explanation.candidate.rank,
        "sections": [_section(section) for section in explanation.sections],
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "source": section.source,
        "terms": [_term(term, section) for term in section.terms],
        "total": None if section.total is None else _term(section.total, section),
        "notes": [_term(term, section) for term in section.notes],
    }


def _term(term: Term, section: Section) -> dict[str, Any]:
    money = term.unit.startswith("USD")
    interval = term.interval
    return {
        "name": term.name,
        "value": usd_text(term.value) if money and isinstance(term.value, float) else term.value,
        "unit": term.unit,
        "formula": term.formula,
        "inputs": dict(term.inputs),
        "source": term.source or section.source,
        "error": term.error or None,
        "interval": None
        if interval is None
        else usd_quantiles_document(interval)
        if money
        else quantiles_document(interval),
    }
