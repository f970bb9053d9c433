"""From a job and its examples to a model in its trainer, the same for training and for measuring alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.chat_template import as_template_takes
from jobs.console import say
from jobs.data import Examples
from jobs.model import load_model, load_tokenizer
from jobs.sharded import loaded_once
from jobs.spec import JobSpec
from jobs.spec_rules import PROMPT_LEARNING
from jobs.trainer import build_training
from jobs.training import Training
from providers.errors import UsageError

Stage = Callable[[str], AbstractContextManager[None]]

_TINY_PARAMETERS = 20_000_000
#: What transformers calls embeddings of positions: BERT's kin, GPT-2's kin, OPT's.
_POSITION_TABLES = frozenset({"position_embeddings", "wpe", "embed_positions"})


def built(
    job: JobSpec,
    base: Path,
    examples: Examples,
    output: Path,
    processes: int,
    stage: Stage = lambda _: nullcontext(),
) -> Training:
    """Load the base model, put the adapter on and build the trainer; random only by the job's seed.

    Args:
        job: What is trained or measured.
        base: Directory that relative paths in the job start from.
        examples: Read before.
        output: Directory that the trainer saves in.
        processes: That train together.
        stage: Names and times the stages load and tokenise.

    Raises:
        UsageError: The job does not go with this model or these examples.
        TuneplanError: The model cannot be loaded.
    """
    from transformers import set_seed

    with stage("load"):
        set_seed(job.train.seed)
        tokenizer = load_tokenizer(job, base)
        examples = as_template_takes(tokenizer, examples)

        def load() -> Any:
            with loaded_once(job, processes):
                return load_model(job, base, tokenizer, examples.label_names)

        model = load()
        job = within_positions(job, most_positions(model))
        _choose_threads(sum(weight.numel() for weight in model.parameters()))
    with stage("tokenise"):
        training = build_training(job, model, load, tokenizer, examples, output, processes)
    weights = list(training.trainer.model.parameters())
    trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
    total = sum(weight.numel() for weight in weights)
    say(f"{job.method.kind}: {trainable:,} of {total:,} parameters are trained")
    return training


def _choose_threads(parameters: int) -> None:
    """One thread for a tiny model on a CPU: several would wait for each other more than they compute."""
    import torch

    tiny = parameters < _TINY_PARAMETERS and not torch.cuda.is_available()
    if tiny and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def most_positions(model: Any) -> int | None:
    """Tokens that the model's table of learned positions has room for, None if it has no such table.

    RoBERTa's kin have no positions for padding, and OPT leaves out the first two.
    """
    for name, table in model.named_modules():
        if name.rpartition(".")[2] in _POSITION_TABLES and hasattr(table, "num_embeddings"):
            unused = getattr(table, "offset", 0) if table.padding_idx is None else table.padding_idx + 1
            return int(table.num_embeddings - unused)
    return None


def within_positions(job: JobSpec, most: int | None) -> JobSpec:
    """The job with rows no longer than the model's positions: longer ones would end it in the midst of training.

    Args:
        job: What is trained or measured.
        most: Positions of the model, None without a limit.

    Raises:
        UsageError: Answers that it samples, which are never cut, may be longer.
    """
    if most is None:
        return job
    if job.method.kind in PROMPT_LEARNING:
        most -= job.method.virtual_tokens
    if job.task == "grpo" and job.rollout.completion_tokens > most:
        message = f"answers of {job.rollout.completion_tokens:,} tokens are more than the model's positions"
        raise UsageError(message, hint=f"rollout.completion_tokens: {most}", code="bad_job")
    if job.train.sequence_length <= most:
        return job
    say(f"rows are cut at {most:,} tokens, the positions of the model")
    return replace(job, train=replace(job.train, sequence_length=max(most, 1)))
