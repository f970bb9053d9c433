"""A spec for a model alone: a task and sizes that such a model is commonly tuned with."""

from __future__ import annotations

from pathlib import Path

from planner.convert.conversion import Conversion
from planner.model_facts import ModelSource, local_facts

_SAMPLES = 10_000


def from_model(model: str, models: ModelSource = local_facts) -> Conversion:
    """LoRA on conversations for a decoder, a classifier for an encoder.

    Args:
        model: Hugging Face id, alias or directory.
        models: Who knows it.

    Raises:
        UsageError: It is not known.
    """
    facts = models(model, Path(), None)
    arch = facts.arch
    conversion = Conversion("model", {})
    encoder = arch.kind == "encoder"
    conversion.put("model.id", arch.id)
    if facts.publication is not None:
        conversion.put("model.revision", facts.publication.commit)
    conversion.put("method.kind", "full" if encoder else "lora")
    conversion.put("task", "classification" if encoder else "sft")
    conversion.put("data.format", "label" if encoder else "messages")
    conversion.put("data.samples", _SAMPLES)
    conversion.put("data.tokens_per_sample", 128 if encoder else 500)
    conversion.put("train.epochs", 3 if encoder else 1)
    conversion.put("train.sequence_length", 256 if encoder else 2048)
    conversion.put("train.packing", not encoder)
    conversion.put("train.global_batch", 32 if encoder else 16)
    conversion.put("train.learning_rate", 2e-5 if encoder else 2e-4)
    conversion.notes.append(
        f"data.samples and data.tokens_per_sample are {_SAMPLES:,} and a guess: put in your own"
    )
    return conversion
