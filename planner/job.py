"""What must be computed, whatever the machine: rows, tokens and optimizer steps of a spec on its data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from planner.dataset import DataFacts
from planner.errors import Finding, SpecError
from planner.lengths import ASSUMED_LOG_SIGMA, Lengths, assumed_lengths
from planner.spec import FineTuneSpec
from planner.workload import rows_of

#: Of the tokens; less is the tail that most data has.
_LOST_SHARE = 0.05
_SAMPLED = (
    "the data is too large to be read whole here: its examples are scaled from a part of it, and rows taken to be as "
    "long as train.sequence_length allows; `plan data inspect` reads all of it"
)


class Assumption(NamedTuple):
    """A number that was not measured: what it is and where it comes from."""

    name: str
    value: float | str
    unit: str
    source: str


class Job(NamedTuple):
    """Size of one training.

    Attributes:
        steps: Optimizer steps.
        global_batch: Examples between two optimizer steps, over all GPUs.
        sequence_tokens: Longest row in tokens.
        lengths: Tokens of the rows, after packing and cutting.
        rows_per_example: Rows that one example makes: preference pairs are two.
        packed: Rows are filled with several examples.
        eval_rows: Held-out rows, evaluated on the base and on the tuned model.
        data_bytes: Size of the data, None if unknown.
        tokens_log_sd: Standard deviation of the logarithm of the error of all lengths together.
        data_tokens: Tokens to tokenise, once, whatever the number of epochs.
        assumptions: What was assumed.
        warnings: (code, message) of what a person should know.
        steps_stated: The spec states the steps, whatever a step's size.
        epoch_rows: What one pass over the data counts in batches, None if unknown.
        attended_tokens: Mean length, over tokens, of the examples of packed rows that do not see each other; None where
            a token sees its whole row.
    """

    steps: int
    global_batch: int
    sequence_tokens: int
    lengths: Lengths
    rows_per_example: int
    packed: bool
    eval_rows: int
    data_bytes: int | None
    data_tokens: float
    tokens_log_sd: float
    assumptions: tuple[Assumption, ...]
    warnings: tuple[tuple[str, str], ...]
    steps_stated: bool = False
    epoch_rows: int | None = None
    attended_tokens: float | None = None

    def rebatched(self, global_batch: int) -> Job:
        """The same with other batches: as many passes over the data, unless the steps are stated."""
        steps = self.steps if self.steps_stated else -(-self.steps * self.global_batch // global_batch)
        return self._replace(global_batch=global_batch, steps=steps)

    @property
    def full_steps(self) -> float:
        """Steps of as many rows as there are, if all had a whole batch: the last one of each pass has what is left."""
        if not self.epoch_rows:
            return float(self.steps)
        passes, left = divmod(self.steps, -(-self.epoch_rows // self.global_batch))
        rows = passes * self.epoch_rows + min(left * self.global_batch, self.epoch_rows)
        return rows / self.global_batch

    @property
    def tokens_total(self) -> float:
        """Tokens that are learned from over the whole training, without padding."""
        return self.full_steps * self.tokens_per_full_step

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens between two optimizer steps, without padding."""
        return self.tokens_total / self.steps

    @property
    def tokens_per_full_step(self) -> float:
        """Tokens of a step that has a whole batch, without padding."""
        return self.global_batch * self.rows_per_example * self.row_tokens

    def padded_row_tokens(self, micro_batch: int) -> float:
        """Mean tokens of a row as the GPU sees it: unpacked rows are padded to the longest of their micro-batch."""
        return self.lengths.mean_of_longest(micro_batch * self.rows_per_example)

    @property
    def row_tokens(self) -> float:
        """Mean tokens of a row without padding."""
        return self.lengths.mean


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
    if spec.train.fused_loss:
        told = "train.fused_loss changes nothing: what is launched never holds a batch's logits whole"
        warnings.append(("without_effect", told))
    lengths = _lengths(spec, train, assumptions, warnings)
    per_example = rows_of(spec.task)
    whole = lengths.scaled(1 / per_example)
    rows = Lengths((float(longest),)) if spec.train.packing else whole.cut(longest)
    warnings += _lost(spec, whole)
    if spec.task == "grpo":
        is_known = train.lengths is not None or spec.data.tokens_per_sample is not None
        rows = _with_answers(spec, lengths, assumptions, is_known=is_known)
    samples = _samples(spec, train)
    epoch_rows = None if samples is None else _epoch_rows(spec, samples, lengths)
    steps = _steps(spec, train, epoch_rows, assumptions)
    warnings += _below_batch(spec, epoch_rows)
    job = Job(
        steps=steps,
        global_batch=spec.train.global_batch,
        sequence_tokens=_sequence_tokens(spec, train, rows),
        lengths=rows,
        rows_per_example=per_example,
        packed=spec.train.packing,
        eval_rows=_eval_rows(spec, held_out),
        data_bytes=train.bytes,
        tokens_log_sd=train.tokens_log_sd if spec.data.tokens_per_sample is None else 0.0,
        data_tokens=0.0 if samples is None else samples * lengths.mean,
        assumptions=tuple(assumptions),
        warnings=tuple(warnings),
        steps_stated=spec.train.steps is not None,
        epoch_rows=None if spec.task == "grpo" else epoch_rows,  # which leaves out what fills no batch
        attended_tokens=whole.cut(longest).mean_of_tokens if _keeps_apart(spec) else None,
    )
    return job if samples is not None else job._replace(data_tokens=job.tokens_total)


def _keeps_apart(spec: FineTuneSpec) -> bool:
    """Whether examples of a packed row do not see each other: TRL's best-fit packing hands FlashAttention where each
    begins (`padding_free`, SFTTrainer since 0.20).
    """
    return spec.train.packing and spec.train.attention == "flash"


def _is_cut(spec: FineTuneSpec) -> bool:
    """Whether what lies beyond the sequence length is lost.

    Packed rows without flash attention hold all tokens one after another; prompts of grpo are never cut.
    """
    return spec.task != "grpo" and (not spec.train.packing or _keeps_apart(spec))


def _lost(spec: FineTuneSpec, whole: Lengths) -> Iterator[tuple[str, str]]:
    """A warning where a good part of the data is thrown away."""
    longest = spec.train.sequence_length
    share = 1 - whole.cut(longest).mean / whole.mean
    if _is_cut(spec) and share > _LOST_SHARE:
        message = (
            f"about {share:.0%} of the tokens lie beyond train.sequence_length ({longest:,}) and are cut"
        )
        yield "tokens_cut", message


def _with_answers(
    spec: FineTuneSpec, prompts: Lengths, assumptions: list[Assumption], *, is_known: bool
) -> Lengths:
    """Rows of grpo: a prompt and an answer, which is sampled and learned from at full length.

    A batch is as long as its longest answer, and few batches have none that comes to the limit.
    """
    answer = float(spec.rollout.completion_tokens)
    assumptions.append(
        Assumption("tokens per answer", answer, "tokens", "the limit: rollout.completion_tokens")
    )
    if is_known:
        return prompts.plus(answer)
    return Lengths((max(prompts.longest, answer + 1),))  # the sequence length has room for both


def _samples(spec: FineTuneSpec, train: DataFacts) -> int | None:
    return spec.data.samples if spec.data.samples is not None else train.samples


def _sequence_tokens(spec: FineTuneSpec, train: DataFacts, rows: Lengths) -> int:
    """The longest row, which is the stated one even where few are assumed to come near it."""
    longest, stated = rows.longest, spec.data.max_tokens_per_sample
    answer = spec.rollout.completion_tokens if spec.task == "grpo" else 0
    if stated is not None and not spec.train.packing:
        longest = max(longest, stated / rows_of(spec.task) + answer)
    if spec.task == "grpo":  # no prompt is cut
        return math.ceil(longest)
    most = spec.train.sequence_length
    return max(round(min(most, longest)), 1) if _known(spec, train) else most


def _known(spec: FineTuneSpec, train: DataFacts) -> bool:
    """Whether the longest example is known, so that no row is longer."""
    counted = train.lengths is not None and not train.is_partial
    return counted or spec.data.max_tokens_per_sample is not None


def _lengths(
    spec: FineTuneSpec, train: DataFacts, assumptions: list[Assumption], warnings: list[tuple[str, str]]
) -> Lengths:
    mean, longest = spec.data.tokens_per_sample, spec.data.max_tokens_per_sample
    if mean is not None:
        assumptions.append(Assumption("tokens per example", mean, "tokens", "spec"))
        if longest is None and not spec.train.packing:
            spread = "lengths spread as a lognormal of sigma"
            assumptions.append(Assumption(spread, ASSUMED_LOG_SIGMA, "", "set data.max_tokens_per_sample"))
        return assumed_lengths(mean, longest)
    if train.lengths is not None:
        assumptions.append(Assumption("tokens per example", train.lengths.mean, "tokens", train.source))
        if train.is_partial:
            warnings.append(("data_sampled", _SAMPLED))
        return train.lengths
    return _unknown_lengths(spec, assumptions, warnings)


def _unknown_lengths(
    spec: FineTuneSpec, assumptions: list[Assumption], warnings: list[tuple[str, str]]
) -> Lengths:
    full = float(spec.train.sequence_length * rows_of(spec.task))
    if not spec.train.packing:
        said = "the length of the examples is unknown: every one is counted at the full sequence length, an upper bound"
        warnings.append(("tokens_per_sample_unknown", f"{said}; set data.tokens_per_sample"))
    assumptions.append(Assumption("tokens per example", full, "tokens", "upper bound: the sequence length"))
    return Lengths((full,))


def _below_batch(spec: FineTuneSpec, epoch_rows: int | None) -> Iterator[tuple[str, str]]:
    """A warning where no step has a whole batch."""
    batch = spec.train.global_batch
    if epoch_rows is not None and epoch_rows < batch:
        rows = f"{epoch_rows:,} row{'' if epoch_rows == 1 else 's'}"
        message = f"all of the data makes {rows}{' when packed' if spec.train.packing else ''}"
        yield (
            "data_below_batch",
            f"{message}, fewer than train.global_batch ({batch:,}): each pass is one step of what there is",
        )


def _epoch_rows(spec: FineTuneSpec, samples: int, lengths: Lengths) -> int:
    """What one pass over the data counts in batches."""
    rows = samples
    if spec.train.packing:
        longest = spec.train.sequence_length
        kept = lengths.cut(longest) if _is_cut(spec) else lengths
        rows = math.ceil(samples * kept.mean / longest)
    return rows * _batch_items(spec)


def _steps(
    spec: FineTuneSpec, train: DataFacts, epoch_rows: int | None, assumptions: list[Assumption]
) -> int:
    if spec.train.steps is not None:
        return spec.train.steps
    samples = _samples(spec, train)
    if samples is None or epoch_rows is None:
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
    per_epoch = math.ceil(epoch_rows / spec.train.global_batch)
    return max(math.ceil(per_epoch * (spec.train.epochs or 1.0)), 1)


def _batch_items(spec: FineTuneSpec) -> int:
    """What one example counts in a batch: grpo learns from each of its answers, kto takes a pair apart."""
    if spec.task == "grpo":
        return spec.rollout.generations
    return 2 if spec.task == "kto" and spec.data.format == "preference" else 1


def _eval_rows(spec: FineTuneSpec, held_out: DataFacts) -> int:
    rows = spec.data.eval_samples if spec.data.eval_samples is not None else (held_out.samples or 0)
    return min(rows, spec.evaluate.samples) if spec.evaluate.samples else rows
