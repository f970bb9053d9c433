"""How big the training data is: counted from a local file, or taken from the spec, or said to be unknown.

This is the edge: it reads files. What it returns is a plain value for the pure core.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from planner.lengths import Lengths, lengths_of
from planner.quantiles import Z90
from planner.token_guess import features, guess_tokens
from planner.tokenizer_files import load_counter
from providers.errors import UsageError

#: A file up to this size is read whole; of a larger one the head is read and the rest scaled by bytes.
_READ_WHOLE_BYTES = 8 * 2**20
#: Of most models today; where a spec's model is known, its own is taken.
_VOCAB = 128_000
#: Texts are sampled in groups of like length, so that long ones count as they should.
_LENGTH_GROUPS, _SAMPLED_PER_GROUP, _SAMPLED_CHARS = 4, 64, 20_000
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
    """

    samples: int | None
    lengths: Lengths | None
    source: str
    bytes: int | None = None
    tokens_log_sd: float = 0.0


def measure_dataset(path: Path, vocab: int = _VOCAB, tokenizer: Path | None = None) -> DataFacts:
    """Count the examples of a jsonl, csv or text file and their tokens.

    Tokens are counted by the model's tokenizer on a sample of all lengths if it is here, else guessed from words,
    digits and scripts (see `planner.token_guess`); `plan data inspect` looks at everything.

    Args:
        path: A local file, or a directory of them.
        vocab: Size of the model's vocabulary, for guesses.
        tokenizer: The model's tokenizer.json, None if it is not on this machine.

    Raises:
        UsageError: The file is missing, empty or not text.
    """
    files = _files(path)
    size = sum(map(_size_bytes, files))
    texts, read_bytes = _sampled_texts(files)
    if not texts:
        raise UsageError(f"{path} has no examples", path="data.train", hint="write one example a line")
    scale = size / max(read_bytes, 1) if size > read_bytes else 1.0
    tokens = _tokens(texts, vocab, None if tokenizer is None else load_counter(tokenizer))
    counted = "counted" if scale == 1 else "head counted, rest scaled by bytes"
    return DataFacts(
        samples=round(len(texts) * scale),
        lengths=lengths_of(tokens.lengths),
        source=f"{path.name}: {counted}, {tokens.source}",
        bytes=size,
        tokens_log_sd=tokens.log_sd,
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    from jobs.data_files import files_of  # the worker's own reading, which only a directory needs here

    return files_of(path)


def _sampled_texts(files: Sequence[Path]) -> tuple[list[str], int]:
    """Texts of as many files as may be read, and the bytes that they are."""
    texts: list[str] = []
    read_bytes = 0
    for path in files:
        left = _READ_WHOLE_BYTES - read_bytes
        if left <= 0:
            break
        try:
            with path.open("rb") as file:
                head = file.read(left)
            text = _whole_lines(head, _size_bytes(path)).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read {path}: {error}", hint="data files are UTF-8 text", path="data.train"
            ) from None
        texts += _example_texts(path, text)
        read_bytes += len(head)
    return texts, read_bytes


class _Tokens(NamedTuple):
    lengths: list[float]
    source: str
    log_sd: float


def _tokens(texts: list[str], vocab: int, counter: Callable[[Sequence[str]], list[int]] | None) -> _Tokens:
    """Tokens of each text: its characters times the tokens per character of sampled texts about as long."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    lengths = [0.0] * len(texts)
    counts: Counter[str] = Counter()
    for group in _cut(order, _LENGTH_GROUPS):
        sampled = [texts[index][:_SAMPLED_CHARS] for index in group[:: -(-len(group) // _SAMPLED_PER_GROUP)]]
        found = [features(text) for text in sampled]
        for one in found:
            counts.update(one)
        tokens = [guess_tokens(one, vocab).tokens for one in found] if counter is None else counter(sampled)
        ratio = sum(tokens) / max(sum(map(len, sampled)), 1)
        for index in group:
            lengths[index] = len(texts[index]) * ratio + _END_MARK
    chars = max(sum(map(len, texts)), 1) / sum(lengths)
    if counter is not None:
        return _Tokens(
            lengths, f"the model's tokenizer on a sample, {chars:.2g} characters a token", _SAMPLED_SD
        )
    log_sd = guess_tokens(counts, vocab).log_sd
    doubt = math.exp(Z90 * log_sd) - 1
    return _Tokens(lengths, f"about {chars:.2g} characters a token +-{doubt:.0%}, guessed", log_sd)


def _cut(order: list[int], parts: int) -> Iterator[list[int]]:
    size = -(-len(order) // parts)
    yield from (order[start : start + size] for start in range(0, len(order), size))


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", path="data.train") from None


def _whole_lines(head: bytes, size: int) -> bytes:
    """Without the torn last line of a file that is longer than its head, which may cut a character too."""
    if size <= len(head):
        return head
    return head[: head.rfind(b"\n") + 1]


def _example_texts(path: Path, text: str) -> Iterator[str]:
    """All that is learned from of each example."""
    if path.suffix == ".csv":
        rows: Iterable[Any] = csv.DictReader(text.splitlines())
        yield from (_joined(_texts(row)) for row in rows)
    elif path.suffix in (".jsonl", ".json", ".ndjson"):
        yield from (
            _json_text(path, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()
        )
    else:
        yield from (line for line in text.splitlines() if line.strip())


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        return _joined(_texts(json.loads(line)))
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path}:{number}: not a JSON object", path="data.train", hint="each line is one JSON object"
        ) from None


def _joined(texts: Iterable[str]) -> str:
    """Texts after each other; a line end keeps words of two texts apart, as it does in a conversation."""
    whole = ""
    for text in texts:
        whole += f"\n{text}" if whole[-1:].isalnum() else text
    return whole


def _texts(value: Any) -> Iterator[str]:
    """All texts in a record, however nested; keys and numbers are not learned from."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
