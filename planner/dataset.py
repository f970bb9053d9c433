"""How big the training data is: counted from a local file, or taken from the spec, or said to be unknown.

This is the edge: it reads files. What it returns is a plain value for the pure core.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from jobs.data_files import files_of
from planner.examples import Examples, read_examples, size_bytes
from planner.lengths import Lengths, lengths_of_counts
from planner.quantiles import Z90
from planner.token_guess import features, guess_tokens
from planner.tokenizer_files import load_counter
from providers.errors import UsageError

#: Of most models today; where a spec's model is known, its own is taken.
_VOCAB = 128_000
#: Texts are sampled in groups of like size, so that long ones count as they should; fewer of those.
_LEAST_PER_GROUP, _MOST_PER_GROUP, _GROUP_SIZE, _SAMPLED_CHARS = 8, 64, 400_000, 20_000
#: Every example ends with a mark.
_END_MARK = 1.0
#: Error of the mean of such a sample, with the marks that a chat template adds.
_SAMPLED_SD = 0.03


class DataFacts(NamedTuple):
    """Size of one data set.

    Attributes:
        samples: Number of examples, None if unknown.
        lengths: Tokens of the examples, None if unknown.
        source: Where the two come from, for the list of assumptions.
        bytes: Size of the file, None if it is not here.
        tokens_log_sd: Standard deviation of the logarithm of the tokens' common error.
        is_partial: Not all of it was looked at: the number is scaled, and longer examples may be in the rest.
    """

    samples: int | None
    lengths: Lengths | None
    source: str
    bytes: int | None = None
    tokens_log_sd: float = 0.0
    is_partial: bool = False


def measure_dataset(path: Path, vocab: int = _VOCAB, tokenizer: Path | None = None) -> DataFacts:
    """Count the examples of a jsonl, csv, Parquet or text file and their tokens.

    Tokens are counted by the model's tokenizer on a sample of all lengths if it is here, else guessed from words,
    digits and scripts (see `planner.token_guess`); `plan data inspect` looks at everything.

    Args:
        path: A local file, or a directory of them.
        vocab: Size of the model's vocabulary, for guesses.
        tokenizer: The model's tokenizer.json, None if it is not on this machine.

    Raises:
        UsageError: The file is missing, empty or not text.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    files = _files(path)
    size = sum(map(size_bytes, files))
    examples = read_examples(files)
    if not examples.parsed:
        hint = f"write one example a {'row' if files[0].suffix.lower() == '.parquet' else 'line'}"
        raise UsageError(f"{path} has no examples", path="data.train", hint=hint)
    tokens = _tokens(examples, vocab, None if tokenizer is None else load_counter(tokenizer))
    scaled = f"counted in places spread over it, the rest scaled (+-{examples.doubt:.1%})"
    counted = "counted" if examples.is_complete else scaled
    return DataFacts(
        samples=examples.total,
        lengths=tokens.lengths,
        source=f"{path.name}: {counted}, {tokens.source}",
        bytes=size,
        tokens_log_sd=tokens.log_sd,
        is_partial=not examples.is_complete,
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return files_of(path)


class _Tokens(NamedTuple):
    lengths: Lengths
    source: str
    log_sd: float


def _tokens(examples: Examples, vocab: int, counter: Callable[[Sequence[str]], list[int]] | None) -> _Tokens:
    """Tokens of each example: its size times the tokens per size of parsed ones about as large."""
    counts: Counter[str] = Counter()
    ratios: dict[int, float] = {}
    for group, members in _by_size(examples.parsed).items():
        sampled = [text[:_SAMPLED_CHARS] for _, text in members]
        found = [features(text) for text in sampled]
        for one in found:
            counts.update(one)
        tokens = [guess_tokens(one, vocab).tokens for one in found] if counter is None else counter(sampled)
        per_char = sum(tokens) / max(sum(map(len, sampled)), 1)
        ratios[group] = per_char * _characters(members) / max(sum(size for size, _ in members), 1)

    def tokens_of(size: int) -> float:
        nearest = min(ratios, key=lambda group: abs(group - size.bit_length()))
        return size * ratios[nearest] + _END_MARK

    lengths = lengths_of_counts([(tokens_of(size), count) for size, count in examples.sizes.items()])
    chars = max(_characters(examples.parsed), 1) / sum(tokens_of(size) for size, _ in examples.parsed)
    if counter is not None:
        said = f"the model's tokenizer on a sample, {chars:.2g} characters a token"
        return _Tokens(lengths, said, _SAMPLED_SD)
    log_sd = guess_tokens(counts, vocab).log_sd
    doubt = math.exp(Z90 * log_sd) - 1
    return _Tokens(lengths, f"about {chars:.2g} characters a token +-{doubt:.0%}, guessed", log_sd)


def _by_size(parsed: list[tuple[int, str]]) -> dict[int, list[tuple[int, str]]]:
    """A sample of each doubling of sizes, evenly over the sizes in it."""
    groups: dict[int, list[tuple[int, str]]] = {}
    for one in sorted(parsed, key=itemgetter(0)):
        groups.setdefault(one[0].bit_length(), []).append(one)
    return {group: members[:: -(-len(members) // _sample_size(group))] for group, members in groups.items()}


def _sample_size(group: int) -> int:
    return min(max(_GROUP_SIZE >> group, _LEAST_PER_GROUP), _MOST_PER_GROUP)


def _characters(members: list[tuple[int, str]]) -> int:
    return sum(len(text) for _, text in members)
