"""What an explanation is made of: sections of terms, most of which add up to a total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.calibration import UNCORRECTED, Correction
from planner.pricing import Priced
from planner.quantiles import Quantiles

Value = float | int | str | None


@dataclass(frozen=True, slots=True)
class Term:
    """One quantity.

    Attributes:
        name: What it is.
        value: As the estimate used it; None is unknown.
        unit: Of the value; money is USD.
        formula: How it comes about, in words or symbols that `inputs` explain.
        inputs: What went in.
        source: Where it comes from, empty if that is the section's source.
        error: How far off it may be, empty if only the total's error is known.
        interval: 80 % interval, where there is one of this term alone.
    """

    name: str
    value: Value
    unit: str
    formula: str
    inputs: Mapping[str, Value] = field(default_factory=dict)
    source: str = ""
    error: str = ""
    interval: Quantiles | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Terms of one kind.

    Attributes:
        key: Name in JSON.
        title: For a person.
        source: Where terms come from that name no source of their own.
        terms: If there is a total, the known ones add up to it.
        total: The sum, None if the terms are no parts of a whole.
        notes: Further quantities, which are no parts of the total.
    """

    key: str
    title: str
    source: str
    terms: tuple[Term, ...]
    total: Term | None = None
    notes: tuple[Term, ...] = ()


def correction_of(priced: Priced, quantity: str) -> Correction:
    """What finished runs taught about a quantity of `planner.calibration.SHARES`."""
    learned = priced.solved.learned
    return UNCORRECTED if learned is None else learned.corrections.get(quantity, UNCORRECTED)


def corrected_by(correction: Correction) -> str:
    """The runs behind a correction as a source, empty if there are none."""
    return f"your runs {', '.join(correction.runs)}" if correction.runs else ""
