"""A trainer with what goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from jobs.evaluate import Measure
from jobs.tokens import TokenCounter


class Counter(Protocol):
    """Counts what was trained on."""

    @property
    def real(self) -> int:
        """Tokens, padding not counted."""

    @property
    def padded(self) -> int:
        """Tokens with padding."""


@dataclass(frozen=True, slots=True)
class Training:
    """A trainer with what goes with it.

    Attributes:
        trainer: TRL's or transformers' trainer.
        held_out: Held-out rows by split (eval, guard) as `collate` takes them.
        tokens: Counts the tokens trained on.
        measure: Scores held-out rows.
        collate: Makes a batch of held-out rows.
    """

    trainer: Any
    held_out: dict[str, Any]
    tokens: Counter
    measure: Measure
    collate: Any


def counted(trainer: Any, measure: Measure) -> Training:
    """A trainer whose collator counts tokens, and collates held-out rows as well."""
    collate = trainer.data_collator
    trainer.data_collator = tokens = TokenCounter(collate)
    return Training(trainer, trainer.eval_dataset or {}, tokens, measure, collate)
