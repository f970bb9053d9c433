"""Whether a model has a place for every token of a row. Learned positions end; rotary ones go on, but worse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jobs.spec_rules import PROMPT_LEARNING
from planner.architecture import ModelArchitecture, load_architecture
from planner.errors import Finding
from planner.spec import FineTuneSpec
from providers.errors import TuneplanError

#: Families whose first token has row 2 of the table: RoBERTa's kin count from the padding's index, others add two.
_FROM_ROW_2 = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "esm", "opt", "bart", "mbart"}
)
#: Families that look rotary positions up in a table, which ends.
_ROTARY_TABLES = frozenset({"gptj"})


def most_tokens(arch: ModelArchitecture) -> int | None:
    """Tokens that a row may have by the model's table of positions, None if it has none or its size is unknown."""
    if arch.model_type in _ROTARY_TABLES:
        return arch.context_tokens or None
    if not arch.position_rows:
        return None
    rows = arch.position_rows // (2 if arch.decoder_layers else 1)  # each stack has a table of its own
    return rows - (2 if arch.model_type in _FROM_ROW_2 else 0)


def within_positions(spec: FineTuneSpec, arch: ModelArchitecture) -> FineTuneSpec:
    """The spec whose sequence length, where it is the default, is no longer than the model has positions."""
    most = most_tokens(arch)
    if most is None or "sequence_length" in spec.train.model_fields_set:
        return spec
    room = max(most - _tokens_before(spec), 1)
    if room >= spec.train.sequence_length:
        return spec
    return spec.model_copy(update={"train": spec.train.model_copy(update={"sequence_length": room})})


def _tokens_before(spec: FineTuneSpec) -> int:
    """Learned tokens that take positions too."""
    return spec.method.virtual_tokens if spec.method.kind in PROMPT_LEARNING else 0


def unplaced(spec: FineTuneSpec, arch: ModelArchitecture) -> Iterator[Finding]:
    """An error where rows may be longer than learned positions go: the first such row would end the training."""
    most = most_tokens(arch)
    key, tokens = "train.sequence_length", spec.train.sequence_length
    if spec.task == "grpo":  # its rows are never cut
        key, tokens = "rollout.completion_tokens", spec.rollout.completion_tokens
    before = _tokens_before(spec)
    if most is None or tokens + before <= most:
        return
    learned = f" and {before:,} learned ones before them" if before else ""
    message = f"{tokens:,} tokens{learned} are more than the {most:,} positions of {arch.id}"
    hint = f"{key}: {most - before}" if most > before else "choose a model with more positions"
    yield Finding(message, path=key, code="too_few_positions", hint=hint)


def beyond_context(arch: ModelArchitecture, row_tokens: int) -> Iterator[tuple[str, str]]:
    """A warning where rows are longer than what a model with other positions was made for, if that is known."""
    if most_tokens(arch) is None and 0 < arch.context_tokens < row_tokens:
        message = f"rows have up to {row_tokens:,} tokens, but {arch.id} was made for {arch.context_tokens:,}"
        yield "beyond_context", f"{message}: what stands beyond them is learned badly"


def position_blockers(spec: FineTuneSpec, base_dir: Path) -> Iterator[Finding]:
    """`unplaced` of a model that is known here without the Hub."""
    try:
        arch = load_architecture(spec.model.id, base_dir)
    except TuneplanError:
        return
    yield from unplaced(within_positions(spec, arch), arch)
