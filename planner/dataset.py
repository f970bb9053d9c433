"""How big the training data is: counted from a local file, or taken from the spec, or said to be unknown.

This is the edge: it reads files. What it returns is a plain value for the pure core.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.lengths import Lengths, lengths_of
from providers.errors import UsageError

#: A file up to this size is read whole; of a larger one the head is read and the rest scaled by bytes.
_READ_WHOLE_BYTES = 8 * 2**20
#: Characters a token: English prose through a 32k-128k BPE vocabulary runs at 3.8-4.6, code and digits lower.
_CHARS_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Size of one data set.

    Attributes:
        samples: Number of examples, None if unknown.
        lengths: Tokens of the examples, None if unknown.
        source: Where the two come from, for the list of assumptions.
        bytes: Size of the file, None if it is not here.
    """

    samples: int | None
    lengths: Lengths | None
    source: str
    bytes: int | None = None


def measure_dataset(path: Path, chars_per_token: float = _CHARS_PER_TOKEN) -> DataFacts:
    """Count the examples of a jsonl, csv or text file and guess their tokens from their characters.

    The token count is a guess until a tokenizer is at hand: +-25 % on English, worse on other scripts.

    Args:
        path: A local file.
        chars_per_token: 1 for a character-level vocabulary.

    Raises:
        UsageError: The file is missing, empty or not text.
    """
    size = _size_bytes(path)
    try:
        with path.open("rb") as file:
            head = file.read(_READ_WHOLE_BYTES)
        text = _whole_lines(head, size).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {error}", hint="data files are UTF-8 text", path="data.train"
        ) from None
    lengths = list(_example_chars(path, text))
    if not lengths:
        raise UsageError(f"{path} has no examples", path="data.train", hint="write one example a line")
    scale = size / max(len(head), 1) if size > len(head) else 1.0
    return DataFacts(
        samples=round(len(lengths) * scale),
        lengths=lengths_of([max(length / chars_per_token, 1.0) for length in lengths]),
        source=f"{path.name}: {'counted' if scale == 1 else 'head counted, rest scaled by bytes'}, "
        f"{chars_per_token:g} characters a token",
        bytes=size,
    )


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


def _example_chars(path: Path, text: str) -> Iterator[int]:
    """Characters of each example."""
    if path.suffix == ".csv":
        rows: Iterable[Any] = csv.DictReader(text.splitlines())
        yield from (_chars(row) for row in rows)
    elif path.suffix in (".jsonl", ".json", ".ndjson"):
        yield from (
            _json_chars(path, number, line)
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        )
    else:
        yield from (len(line) for line in text.splitlines() if line.strip())


def _json_chars(path: Path, number: int, line: str) -> int:
    try:
        return _chars(json.loads(line))
    except (ValueError, RecursionError):
        raise UsageError(
            f"{path}:{number}: not a JSON object", path="data.train", hint="each line is one JSON object"
        ) from None


def _chars(value: Any) -> int:
    """Characters of all texts in a record, however nested; keys and numbers are not learned from."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(_chars(part) for part in value.values())
    if isinstance(value, list):
        return sum(_chars(part) for part in value)
    return 0
