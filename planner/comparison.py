"""Plans side by side: what their best candidates take, and where their specs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from planner.candidate_document import quantiles_document, usd_quantiles_document
from planner.candidates import Candidate
from planner.offer_document import offer_document
from planner.plan import Plan
from planner.quantiles import Quantiles

#: Keys of a spec that name it and say nothing of the work.
_NAMES = ("name", "spec_version")


class Side(NamedTuple):
    """One of the plans.

    Attributes:
        name: The file it comes from.
        plan: The plan.
    """

    name: str
    plan: Plan

    @property
    def best(self) -> Candidate | None:
        """The recommended candidate, None if nothing fits."""
        recommended = self.plan.recommended
        return None if recommended is None else self.plan.candidate(recommended)


class Difference(NamedTuple):
    """A key of the spec that is not the same everywhere.

    Attributes:
        path: Dotted, as in `train.epochs`.
        values: Of each side, JSON types.
    """

    path: str
    values: tuple[Any, ...]


class Figure(NamedTuple):
    """A quantity of the best candidates of two sides.

    Attributes:
        quantity: Name with its unit, as in the estimate's JSON.
        before: Of the first, None if nothing fits there.
        after: Of the second.
    """

    quantity: str
    before: Quantiles | float | None
    after: Quantiles | float | None

    @property
    def change(self) -> float | None:
        """After / before - 1, of p50 where there are quantiles; None where one is missing, or the first is nothing."""
        if self.before is None or self.after is None or middle(self.before) == 0:
            return None
        return middle(self.after) / middle(self.before) - 1


def middle(value: Quantiles | float) -> float:
    """The p50, or the value itself."""
    return value.p50 if isinstance(value, Quantiles) else value


FIGURES: Mapping[str, Callable[[Candidate], Quantiles | float]] = {
    "cost_usd": lambda c: c.cost_usd,
    "wall_clock_h": lambda c: c.wall_clock_h,
    "gpu_hours": lambda c: c.gpu_hours,
    "step_time_s": lambda c: c.step_time_s,
    "tokens_per_s_total": lambda c: c.tokens_per_s_total,
    "memory_reserved_gib": lambda c: c.memory.reserved_gib,
}


def figures(before: Side, after: Side) -> tuple[Figure, ...]:
    """Each quantity of both best candidates."""
    one, other = before.best, after.best
    return tuple(
        Figure(name, None if one is None else of(one), None if other is None else of(other))
        for name, of in FIGURES.items()
    )


def differences(sides: Sequence[Side]) -> tuple[Difference, ...]:
    """Keys of the specs that are not the same in all of them, defaults filled in, in the order of the spec."""
    flat = [dict(_flat(side.plan.spec.canonical())) for side in sides]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = (Difference(key, tuple(one.get(key) for one in flat)) for key in keys if key not in _NAMES)
    return tuple(row for row in rows if any(value != row.values[0] for value in row.values))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):  # one without keys says nothing
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def same_prices(sides: Sequence[Side]) -> bool:
    """Whether all were planned with one price snapshot."""
    return len({side.plan.snapshot_id for side in sides}) == 1


def side_document(side: Side) -> dict[str, Any]:
    """A plan and its best candidate as JSON types."""
    plan, best = side.plan, side.best
    spec = plan.spec
    known: dict[str, Any] = {
        "offer": None if best is None else offer_document(best.offer),
        "nodes": None if best is None else best.nodes,
        "gpus_total": None if best is None else best.gpus_total,
        "verdict": "oom" if best is None else best.verdict,
        "p_finish_by_deadline": None if best is None else best.p_finish_by_deadline,
    }
    measured = {name: None if best is None else _document(name, of(best)) for name, of in FIGURES.items()}
    return {
        "name": side.name,
        "spec_hash": plan.spec_hash,
        "snapshot_id": plan.snapshot_id,
        "planned_at": plan.created_at,
        "model": spec.model.id,
        "task": spec.task,
        "method": spec.method.kind,
        "candidate_id": plan.recommended,
        **known,
        **measured,
    }


def compare_document(sides: Sequence[Side]) -> dict[str, Any]:
    """The `tuneplan/compare` document below its common first keys."""
    return {
        "same_prices": same_prices(sides),
        "plans": [side_document(side) for side in sides],
        "differences": [{"path": row.path, "values": list(row.values)} for row in differences(sides)],
    }


def diff_document(before: Side, after: Side) -> dict[str, Any]:
    """The `tuneplan/diff` document below its common first keys."""
    return {
        "same_prices": same_prices((before, after)),
        "plans": [side_document(before), side_document(after)],
        "figures": [
            {
                "quantity": row.quantity,
                "before": _document(row.quantity, row.before),
                "after": _document(row.quantity, row.after),
                "change": row.change,
            }
            for row in figures(before, after)
        ],
        "differences": [
            {"path": row.path, "before": row.values[0], "after": row.values[1]}
            for row in differences((before, after))
        ],
    }


def _document(name: str, value: Quantiles | float | None) -> dict[str, Any] | float | None:
    if not isinstance(value, Quantiles):
        return value
    return usd_quantiles_document(value) if name.endswith("_usd") else quantiles_document(value)
