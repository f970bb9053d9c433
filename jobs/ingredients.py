"""What every trainer is built of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Ingredients:
    """One job's parts, ready for a trainer.

    Attributes:
        model: The base model, without an adapter.
        again: Loads the base model once more.
        adapter: PEFT's configuration, None for a full fine-tuning.
        train: Rows to learn from, not tokenised.
        eval: Held-out rows by split, not tokenised; None if there are none.
        settings: Arguments that the configurations of all trainers share.
        processes: Processes that train together.
    """

    job: JobSpec
    model: Any
    again: Callable[[], Any]
    tokenizer: Any
    adapter: Any
    train: Any
    eval: Any
    settings: dict[str, Any]
    processes: int = 1

    def reference(self) -> Any:
        """The base as it stays, in a model of its own; None where it is the trained one without its adapter.

        TRL would load it by the model's name alone, so another revision than the job's.
        """
        return self.again() if self.adapter is None else None

    def of_trl(self) -> dict[str, Any]:
        """Arguments that all trainers of TRL share."""
        return {
            "model": self.model,
            "train_dataset": self.train,
            "eval_dataset": self.eval,
            "processing_class": self.tokenizer,
            "peft_config": self.adapter,
        }
