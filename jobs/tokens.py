"""Counts what is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class TokenCounter:
    """A collator that counts the tokens of every training batch, real and with padding."""

    collate: Any
    real: int = 0
    padded: int = 0

    def __call__(self, rows: list[Any]) -> Any:
        """The batch of the wrapped collator."""
        batch = self.collate(rows)
        mask = batch.get("attention_mask")
        self.padded += batch["input_ids"].numel()
        self.real += int(mask.sum()) if mask is not None else batch["input_ids"].numel()
        return batch
