"""Rows of the ledger as runs and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any

from planner.offer_document import offer_from_document
from planner.runs import Attempt, Run, RunTerms
from providers.offers import Offer


def offers_of(text: str) -> tuple[Offer, ...]:
    """Offers as `record_asking` keeps them."""
    return tuple(offer_from_document(row) for row in json.loads(text))


def runs_of(rows: list[dict[str, Any]], attempts: Iterable[tuple[Any, ...]]) -> list[Run]:
    """Runs of their rows; those of attempts begin with the run's id."""
    by_run: dict[str, list[Attempt]] = {}
    for run_id, *values in attempts:
        by_run.setdefault(run_id, []).append(Attempt(*values))
    return [_run(row, tuple(by_run[row["run_id"]])) for row in rows]


def _run(row: dict[str, Any], attempts: tuple[Attempt, ...]) -> Run:
    terms = {field.name: row[field.name] for field in fields(RunTerms)}
    terms |= {"labels": json.loads(row["labels"]), "env": json.loads(row["env"])}
    terms |= {name: tuple(json.loads(row[name])) for name in ("secrets", "notify")}
    own = {field.name: row[field.name] for field in fields(Run) if field.name not in ("terms", "attempts")}
    return Run(terms=RunTerms(**terms), attempts=attempts, **own)


def terms_row(terms: RunTerms) -> dict[str, Any]:
    """Columns of a run's terms."""
    row = asdict(terms)
    return {**row, **{name: json.dumps(row[name]) for name in ("labels", "env", "secrets", "notify")}}
