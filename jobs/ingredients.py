"""What every trainer is built of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Ingredients:
    """One job's parts, ready for a trainer.

    Attributes:
        model: The base model, without an adapter.
        adapter: PEFT's configuration, None for a full fine-tuning.
        train: Rows to learn from, not tokenised.
        eval: Held-out rows by split, not tokenised; None if there are none.
        settings: Arguments that the configurations of all trainers share.
        processes: Processes that train together.
    """

    job: JobSpec
    model: Any
    tokenizer: Any
    adapter: Any
    train: Any
    eval: Any
    settings: dict[str, Any]
    processes: int = 1

    def of_trl(self) -> dict[str, Any]:
        """Arguments that all trainers of TRL share."""
        return {
            "model": self.model,
            "train_dataset": self.train,
            "eval_dataset": self.eval,
            "processing_class": self.tokenizer,
            "peft_config": self.adapter,
        }
