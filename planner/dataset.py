"""How big the training data is: counted from a local file, or taken from the spec, or said to be unknown.

This is the edge: it reads files. What it returns is a plain value for the pure core.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from jobs.data_files import JSON_HINT, files_of, not_text, parquet_row_count, read_rows, table_rows
from jobs.formats import CHECKS, Row, as_known, format_of
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
    size = sum(map(_size_bytes, files))
    texts, share = _sampled_texts(files)
    if not texts:
        raise UsageError(f"{path} has no examples", path="data.train", hint="write one example a line")
    scale = 1 / share if share < 1 else 1.0
    tokens = _tokens(texts, vocab, None if tokenizer is None else load_counter(tokenizer))
    by = "rows" if _is_parquet(files[0]) else "bytes"
    counted = "counted" if scale == 1 else f"head counted, rest scaled by {by}"
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
    return files_of(path)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _sampled_texts(files: Sequence[Path]) -> tuple[list[str], float]:
    """Texts of as many files as may be read, and the share of the data that they are."""
    if _is_parquet(files[0]):
        return _parquet_texts(files)
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
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", path="data.train") from None
        except UnicodeDecodeError:
            raise _not_text(path) from None
        texts += _example_texts(path, text)
        read_bytes += len(head)
    return texts, read_bytes / max(sum(map(_size_bytes, files)), 1)


def _not_text(path: Path) -> UsageError:
    """What a file is that is no text in UTF-8: compressed, a picture, or in another encoding."""
    from planner.inspect.file_kinds import check_text_file

    try:
        check_text_file(path)
    except UsageError as error:
        return error
    return not_text(path)


def _parquet_texts(files: Sequence[Path]) -> tuple[list[str], float]:
    """The same of Parquet files, whose number of rows is known without reading them."""
    texts: list[str] = []
    left = _READ_WHOLE_BYTES
    for _, _, row in chain.from_iterable(map(read_rows, files)):
        texts.append(_row_text(row))
        left -= len(texts[-1])
        if left <= 0:
            break
    return texts, len(texts) / max(sum(map(parquet_row_count, files)), 1)


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
    """The text of each example."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        yield from (_row_text(row) for row in table_rows(path, io.StringIO(text, newline="")))
    elif suffix in (".jsonl", ".json", ".ndjson"):
        yield from (
            _json_text(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        )
    else:
        yield from (line for line in text.split("\n") if line.strip())


def _json_text(path: Path, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        message = f"{path}:{number}: not a JSON object"
        raise UsageError(message, path="data.train", hint=JSON_HINT)
    return _row_text(row)


def _row_text(row: Row) -> str:
    """What is tokenised of an example: of one in a known format, the keys that the worker keeps."""
    row = as_known(row)
    kind = format_of(row)
    keys = row if kind is None else CHECKS[kind][1]
    return _joined(_texts({key: row[key] for key in keys if key in row}))


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
