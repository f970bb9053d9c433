"""What must be computed, whatever the machine: rows, tokens and optimizer steps of a spec on its data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.dataset import DataFacts
from planner.errors import Finding, SpecError
from planner.spec import FineTuneSpec
from planner.workload import rows_of


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number that was not measured: what it is and where it comes from."""

    name: str
    value: float | str
    unit: str
    source: str


@dataclass(frozen=True, slots=True)
class Job:
    """Size of one training.

    Attributes:
        steps: Optimizer steps.
        global_batch: Examples between two optimizer steps, over all GPUs.
        sequence_tokens: Longest row in tokens.
        row_tokens: Mean tokens of a row without padding.
        rows_per_example: Rows that one example makes: preference pairs are two.
        packed: Rows are filled with several examples.
        eval_rows: Held-out rows, evaluated on the base and on the tuned model.
        data_bytes: Size of the data, None if unknown.
        assumptions: What was assumed.
        warnings: (code, message) of what a person should know.
    """

    steps: int
    global_batch: int
    sequence_tokens: int
    row_tokens: float
    rows_per_example: int
    packed: bool
    eval_rows: int
    data_bytes: int | None
    assumptions: tuple[Assumption, ...]
    warnings: tuple[tuple[str, str], ...]

    @property
    def tokens_total(self) -> float:
        """Tokens that are learned from over the whole training, without padding."""
        return self.steps * self.tokens_per_step

    @property
    def tokens_per_step(self) -> float:
        """Tokens between two optimizer steps, without padding."""
        return self.global_batch * self.rows_per_example * self.row_tokens

    def padded_row_tokens(self, micro_batch: int) -> float:
        """Mean tokens of a row as the GPU sees it.

        Unpacked rows are padded to the longest of their micro-batch. For lengths that spread like an exponential the
        longest of m is about mean x (1 + 0.6 ln m), cut at the longest row; real chat data lies between that and no
        growth at all. Expected error: 15 %.
        """
        if self.packed:
            return float(self.sequence_tokens)
        return min(self.row_tokens * (1 + 0.6 * math.log(micro_batch)), float(self.sequence_tokens))


def size_job(spec: FineTuneSpec, train: DataFacts, held_out: DataFacts) -> Job:
    """Rows, tokens and steps from the spec and what is known of its data.

    Args:
        spec: The whole spec; `train.steps` wins over the number of samples.
        train: Counted training data, with None for what is unknown.
        held_out: The same of the held-out data.

    Raises:
        SpecError: Neither the data nor the spec tells how much there is to train.
    """
    longest = spec.train.sequence_length
    assumptions: list[Assumption] = []
    warnings: list[tuple[str, str]] = []
    tokens = _tokens_per_sample(spec, train, assumptions, warnings)
    per_example = rows_of(spec.task)
    row_tokens = float(longest) if spec.train.packing else min(tokens / per_example, float(longest))
    steps = _steps(spec, train, tokens, assumptions)
    return Job(
        steps=steps,
        global_batch=spec.train.global_batch,
        sequence_tokens=longest,
        row_tokens=row_tokens,
        rows_per_example=per_example,
        packed=spec.train.packing,
        eval_rows=_eval_rows(spec, held_out),
        data_bytes=train.bytes,
        assumptions=tuple(assumptions),
        warnings=tuple(warnings),
    )


def _tokens_per_sample(
    spec: FineTuneSpec, train: DataFacts, assumptions: list[Assumption], warnings: list[tuple[str, str]]
) -> float:
    if spec.data.tokens_per_sample is not None:
        assumptions.append(Assumption("tokens per example", spec.data.tokens_per_sample, "tokens", "spec"))
        return spec.data.tokens_per_sample
    if train.tokens_per_sample is not None:
        assumptions.append(Assumption("tokens per example", train.tokens_per_sample, "tokens", train.source))
        return train.tokens_per_sample
    if not spec.train.packing:
        warnings.append(
            (
                "tokens_per_sample_unknown",
                "the length of the examples is unknown: every one is counted at the full sequence length, "
                "an upper bound; set data.tokens_per_sample",
            )
        )
    assumptions.append(
        Assumption("tokens per example", spec.train.sequence_length, "tokens", "upper bound: the sequence length")
    )
    return float(spec.train.sequence_length)


def _steps(spec: FineTuneSpec, train: DataFacts, tokens: float, assumptions: list[Assumption]) -> int:
    if spec.train.steps is not None:
        return spec.train.steps
    samples = spec.data.samples if spec.data.samples is not None else train.samples
    if samples is None:
        raise SpecError(
            [
                Finding(
                    "the amount of training data is unknown",
                    path="data.samples",
                    code="data_size_unknown",
                    hint="give data.samples (and data.tokens_per_sample), train.steps, or a local data.train file",
                )
            ]
        )
    source = "spec" if spec.data.samples is not None else train.source
    assumptions.append(Assumption("examples", samples, "examples", source))
    rows = samples
    if spec.train.packing:
        rows = math.ceil(samples * min(tokens, spec.train.sequence_length) / spec.train.sequence_length)
    per_epoch = math.ceil(rows / spec.train.global_batch)
    return max(math.ceil(per_epoch * (spec.train.epochs or 1.0)), 1)


def _eval_rows(spec: FineTuneSpec, held_out: DataFacts) -> int:
    rows = spec.data.eval_samples if spec.data.eval_samples is not None else (held_out.samples or 0)
    return min(rows, spec.evaluate.samples) if spec.evaluate.samples else rows
