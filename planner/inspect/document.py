"""An inspection as the JSON of `plan data inspect`. Pure."""

from __future__ import annotations

import math
from typing import Any

from planner.inspect.inspection import Inspection
from planner.inspect.packing import row_use
from planner.lengths import Lengths

_SHOWN_LABELS = 50


def inspection_document(found: Inspection, *, model: str | None, sequence_tokens: int) -> dict[str, Any]:
    """The `tuneplan/data_inspect` document below its common first keys.

    Args:
        found: The inspection.
        model: Whose tokenizer or vocabulary was taken, None for a guess without one.
        sequence_tokens: Length of a row.
    """
    use = row_use(found.tokens.lengths, sequence_tokens)
    total = found.tokens.total
    return {
        "files": list(found.files),
        "model": model,
        "records": found.records,
        "tokens_source": found.tokens.how,
        "tokens_counted_records": found.tokens.counted_records,
        "tokens_total": {"p10": total.p10, "p50": total.p50, "p90": total.p90},
        "tokens_per_record": _lengths(found.tokens.lengths, total.p50 / found.records),
        "answer_share": found.answer_share,
        "histogram": _histogram(found.tokens.lengths, found.records),
        "sequence_length": sequence_tokens,
        "truncated_share": use.truncated_share,
        "lost_token_share": use.lost_token_share,
        "packing_efficiency": {"best_fit": use.best_fit, "wrapped": use.wrapped},
        "padding": [{"micro_batch": rows, "share": share} for rows, share in use.padding.items()],
        "findings": [
            {
                "kind": kind,
                "records": finding.records,
                "share": min(finding.records / (found.records + _broken(found)), 1.0),
                "tokens": finding.tokens,
                "lines": finding.lines,
                "examples": finding.examples,
            }
            for kind, finding in sorted(found.findings.items())
        ],
        "near_duplicates_compared": found.near_compared,
        "labels": [
            {"label": label, "records": count, "share": count / found.records}
            for label, count in list(found.labels.items())[:_SHOWN_LABELS]
        ],
    }


def _broken(found: Inspection) -> int:
    broken = found.findings.get("broken")
    return 0 if broken is None else broken.records


def _lengths(lengths: Lengths, mean: float) -> dict[str, float]:
    def at(share: float) -> float:
        return lengths.quantiles[min(int(share * len(lengths.quantiles)), len(lengths.quantiles) - 1)]

    return {
        "mean": mean,
        "p10": at(0.1),
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "longest": lengths.longest,
    }


def _histogram(lengths: Lengths, records: int) -> list[dict[str, float]]:
    """Records by length, in steps of a factor of the square root of two."""
    low = math.floor(2 * math.log2(max(lengths.quantiles[0], 1.0)))
    high = math.floor(2 * math.log2(max(lengths.longest, 1.0)))
    each = records / len(lengths.quantiles)
    counts = [0] * (high - low + 1)
    for value in lengths.quantiles:
        counts[math.floor(2 * math.log2(max(value, 1.0))) - low] += 1
    return [
        {"from_tokens": 2 ** ((low + n) / 2), "to_tokens": 2 ** ((low + n + 1) / 2), "records": count * each}
        for n, count in enumerate(counts)
    ]
