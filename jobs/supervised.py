"""Trainers that learn from given answers: supervised fine-tuning and classification."""

from __future__ import annotations

from typing import Any

from jobs.ingredients import Ingredients
from jobs.measures import class_measure, token_measure
from jobs.training import Training, counted


def build_sft(of: Ingredients) -> Training:
    """TRL's trainer for prompts with completions, conversations and plain text, packed or not."""
    from trl import SFTConfig, SFTTrainer

    train = of.job.train
    settings = SFTConfig(
        max_length=train.sequence_length,
        packing=train.packing,
        # without flash attention, rows packed with document boundaries would see each other all the same
        packing_strategy="bfd" if train.attention == "flash" else "wrapped",
        eval_packing=False,
        **of.settings,
    )
    return counted(SFTTrainer(args=settings, **of.of_trl()), token_measure())


def build_classification(of: Ingredients) -> Training:
    """The trainer of transformers, with a new head on the model."""
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, Any]:
        rows = of.tokenizer(batch["text"], truncation=True, max_length=of.job.train.sequence_length)
        return {**rows, "labels": batch["label"]}

    def tokenized(rows: Any) -> Any:
        return rows.map(tokenize, batched=True, remove_columns=["text", "label"])

    trainer = Trainer(
        model=of.model if of.adapter is None else get_peft_model(of.model, of.adapter),
        args=TrainingArguments(**of.settings),
        train_dataset=tokenized(of.train),
        eval_dataset={name: tokenized(rows) for name, rows in of.eval.items()} if of.eval else None,
        processing_class=of.tokenizer,
        data_collator=DataCollatorWithPadding(of.tokenizer),
    )
    return counted(trainer, class_measure())
