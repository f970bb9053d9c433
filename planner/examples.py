"""Examples of local data: every one sized and a sample parsed; of huge data only those at places spread over it."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from jobs.data_files import (
    JSON_HINT,
    RowGroup,
    not_text,
    parquet_groups,
    parquet_rows,
    separator_of,
    table_rows,
)
from jobs.formats import CHECKS, Row, as_known, format_of, is_talk
from jobs.tool_calls import call_texts, calls_of, check_calls, check_tools, tool_texts
from planner.quantiles import Z90
from planner.table_places import row_start
from providers.errors import UsageError

T = TypeVar("T")

#: Data up to this size is parsed whole, of larger data about so much, evenly over it.
_SMALL_BYTES, _PARSED_BYTES = 8 * 2**20, 2 * 2**20
#: About so much is looked at, in so many places of what is larger: it takes about half a second.
_SIZED_BYTES = 256 * 2**20
_PLACES = 64
#: A row of a Parquet file takes about twice as long as a line.
_PARQUET_BYTES = 128 * 2**20
#: Of each doubling of sizes so many are parsed in any case, as few as there may be of it.
_OF_EACH_DOUBLING = 4
#: What most chat templates say of tools that are offered, in other words of about as many tokens (see
#: `planner.inspect.records`).
_OFFER = (
    "# Tools\n\nYou can use the functions below to help with what is asked. What each of them is called and takes "
    "stands in JSON, one a line, between these two marks:\n<tools>\n</tools>\n\nTo use one of them, answer with a "
    "JSON object that names the function and its arguments, and put it between these marks, as it is shown here:\n"
    '<call>\n{"name": <function>, "arguments": <object>}\n</call>\n'
)
#: Of a message: most chat templates leave out which call a result answers.
_UNWRITTEN = frozenset({"tool_call_id"})
#: So much is read at once to find where a row of a table begins.
_SOUGHT_BYTES = 2**20


class Examples(NamedTuple):
    """What was seen of a data set.

    Attributes:
        sizes: Size -> examples of it: characters, or bytes of a line where not all were parsed.
        parsed: (size, text) of those that were parsed, some of each doubling of sizes among them.
        total: All examples, also those that were not looked at.
        is_complete: Every example was looked at, not only those in places spread over the data.
        doubt: Of the total: in four cases of five it is off by no larger share. Of Parquet files it is exact.
    """

    sizes: Counter[int]
    parsed: list[tuple[int, str]]
    total: int
    is_complete: bool = True
    doubt: float = 0.0


class _Place(NamedTuple):
    """Where reading a text file begins, in bytes."""

    path: Path
    start: int


def read_examples(files: Sequence[Path]) -> Examples:
    """Examples of files of one kind.

    Raises:
        UsageError: A file cannot be read, or a line that was parsed is no example.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    if files[0].suffix.lower() == ".parquet":
        return _parquet_examples(files)
    sizes = [size_bytes(path) for path in files]
    try:
        return _small(files) if sum(sizes) <= _SMALL_BYTES else _large(files, sizes)
    except csv.Error as error:
        raise UsageError(f"cannot read {files[0]}: {error}", path="data.train") from None
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}", path="data.train") from None


def size_bytes(path: Path) -> int:
    """Size of a file.

    Raises:
        UsageError: It is not there, or has no size: a pipe or a device may never end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", path="data.train") from None
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is no file", hint="write its rows to a file", path="data.train")
    return found.st_size


def _small(files: Sequence[Path]) -> Examples:
    texts = [text for path in files for text in _example_texts(path, _decoded(path, path.read_bytes()))]
    return Examples(Counter(map(len, texts)), [(len(text), text) for text in texts], len(texts))


class _Sample:
    """Sizes of all examples seen, and the texts of about one in `every`, some of each doubling of sizes among them.

    The distances between them are random: where kinds of examples alternate, even ones would meet one kind alone.
    """

    def __init__(self, every: int) -> None:
        self.sizes: Counter[int] = Counter()
        self.parsed: list[tuple[int, str]] = []
        self._every = max(every, 1)
        self._random = random.Random(0)  # noqa: S311
        self._doublings: Counter[int] = Counter()
        self._left = 0

    def wants(self, size: int) -> bool:
        """Count an example; whether its text is to be kept."""
        self.sizes[size] += 1
        if self._left and self._doublings[size.bit_length()] >= _OF_EACH_DOUBLING:
            self._left -= 1
            return False
        if not self._left:
            self._left = self._random.randrange(2 * self._every - 1)
        self._doublings[size.bit_length()] += 1
        return True


def _large(files: Sequence[Path], sizes: Sequence[int]) -> Examples:
    total = sum(sizes)
    is_complete = total <= _SIZED_BYTES
    places = [_Place(path, 0) for path in files] if is_complete else _places(files, sizes)
    sample = _Sample(min(total, _SIZED_BYTES) // _PARSED_BYTES)
    seen: list[tuple[int, int]] = []
    for place in places:
        most = total if is_complete else _SIZED_BYTES // len(places)
        rows = size = 0
        with place.path.open("rb") as file:
            header = file.readline() if _is_table(place.path) else b""
            if place.start:
                _seek_row(place, file)
            for number, line in enumerate(_within(most, _lines(place.path, file)), 1):
                if line.isspace():
                    continue
                rows, size = rows + 1, size + len(line)
                if sample.wants(len(line)):
                    where = f"{place.path}:{number}" if place.start == 0 else str(place.path)
                    sample.parsed.append((len(line), _text_of(place.path, where, header, line)))
        seen.append((rows, size))
    count = sample.sizes.total()
    if is_complete:
        return Examples(sample.sizes, sample.parsed, count)
    scaled = round(count * total / max(sum(size for _, size in seen), 1))
    return Examples(sample.sizes, sample.parsed, scaled, is_complete=False, doubt=_doubt(seen))


def _doubt(seen: Sequence[tuple[int, int]]) -> float:
    """Half width of the p10-p90 interval of the examples' number, as a share: that of a ratio estimated from clusters.

    Cochran, Sampling Techniques (1977), 6.3: the variance of rows less those expected of as many bytes, between places.
    Places lie at equal distances, which is no worse than drawing them.

    >>> _doubt([(10, 1000), (10, 1000)]), round(_doubt([(10, 1000), (30, 1000)] * 32), 3)
    (0.0, 0.081)
    """
    rows, size = sum(one for one, _ in seen), sum(one for _, one in seen)
    if len(seen) < 2 or rows == 0:
        return 0.0
    squares = sum((found - of * rows / size) ** 2 for found, of in seen)
    return Z90 * math.sqrt(len(seen) * squares / (len(seen) - 1)) / rows


def _places(files: Sequence[Path], sizes: Sequence[int]) -> list[_Place]:
    """Places at equal distances in the data."""
    distance, before = sum(sizes) / _PLACES, 0
    found = []
    for path, size in zip(files, sizes, strict=True):
        first, last = (math.ceil(place / distance) for place in (before, before + size))
        found += [_Place(path, int(turn * distance) - before) for turn in range(first, last)]
        before += size
    return found


def _seek_row(place: _Place, file: BinaryIO) -> None:
    """Go to the first row that begins after a place."""
    start = place.start
    file.seek(start)
    if not _is_table(place.path):
        file.readline()
        return
    while text := file.read(_SOUGHT_BYTES):
        offset = row_start(text, separator_of(place.path).encode())
        if offset is not None:
            file.seek(start + offset)
            return
        start += len(text)


def _spread(places: list[T]) -> list[T]:
    count = min(len(places), _PLACES)
    return [places[turn * len(places) // count] for turn in range(count)]


def _within(most: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of about so many bytes, one at least; no more where they are long, or those would count too much."""
    left = most
    for line in lines:
        if left < most and left < len(line) / 2:
            return
        yield line
        left -= len(line)


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """Lines, or the rows of a table, which may have several."""
    if not _is_table(path):
        yield from file
        return
    for line in file:
        yield _whole_row(path, line, file) if line.count(b'"') % 2 else line


def _whole_row(path: Path, line: bytes, rest: Iterable[bytes]) -> bytes:
    """A row whose first line has a lone quote: with as many more lines as the csv module takes for it."""
    taken: list[bytes] = []

    def lines() -> Iterator[str]:
        for one in chain([line], rest):
            taken.append(one)
            yield one.decode(errors="surrogateescape")

    _ = table_rows(path, lines()).fieldnames  # the first row, as which it takes this one
    return b"".join(taken)


def _text_of(path: Path, where: str, header: bytes, line: bytes) -> str:
    if _is_table(path):
        return next(_example_texts(path, _decoded(path, header + line)), "")
    if _is_json(path):
        return _json_text(where, _decoded(path, line))
    return _decoded(path, line)


def _parquet_examples(files: Sequence[Path]) -> Examples:
    """The same of Parquet files, whose number of rows is known without reading them."""
    found = {path: parquet_groups(path) for path in files}
    total = sum(group.bytes for groups in found.values() for group in groups)
    is_complete = total <= _PARQUET_BYTES
    sample = _Sample(1 if total <= _SMALL_BYTES else min(total, _PARQUET_BYTES) // _PARSED_BYTES)
    for path, first_group, count in _runs_of_rows(found, None if is_complete else _PARQUET_BYTES / total):
        for _, row in islice(parquet_rows(path, first_group), count):
            size = sum(map(len, _texts(row)))
            if sample.wants(size):
                sample.parsed.append((size, _row_text(row)))
    rows = sum(group.rows for groups in found.values() for group in groups)
    return Examples(sample.sizes, sample.parsed, rows, is_complete)


def _runs_of_rows(
    files: dict[Path, list[RowGroup]], share: float | None
) -> Iterator[tuple[Path, int, int | None]]:
    """File, group and number of rows to read from there on: all, or a share of them from groups spread evenly."""
    if share is None:
        yield from ((path, 0, None) for path in files)
        return
    groups = [(path, index, group.rows) for path, found in files.items() for index, group in enumerate(found)]
    chosen = _spread(groups)
    of_each = min(share * len(groups) / len(chosen), 1.0)
    yield from ((path, index, math.ceil(rows * of_each)) for path, index, rows in chosen)


def _decoded(path: Path, text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _not_text(path) from None


def _not_text(path: Path) -> UsageError:
    """What a file is that is no text in UTF-8: compressed, a picture, or in another encoding."""
    from planner.inspect.file_kinds import check_text_file

    try:
        check_text_file(path)
    except UsageError as error:
        return error
    return not_text(path)


def _example_texts(path: Path, text: str) -> Iterator[str]:
    """The text of each example."""
    if _is_table(path):
        yield from (_row_text(row) for row in table_rows(path, io.StringIO(text, newline="")))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _json_text(f"{path}:{number}", line) if _is_json(path) else line


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in (".jsonl", ".json", ".ndjson")


def _json_text(where: str, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{where}: not a JSON object", path="data.train", hint=JSON_HINT)
    return _row_text(row)


def _row_text(row: Row) -> str:
    """What is tokenised of an example: of one in a known format, the keys that the worker keeps."""
    row = as_known(row)
    kind = format_of(row)
    keys = row if kind is None else CHECKS[kind][1]
    kept = {key: row[key] for key in keys if key in row}
    may_offer = any(map(is_talk, kept.values())) and "tools" in row and check_tools(row) is None
    tools = list(tool_texts(row)) if may_offer else []
    return _joined(chain([_OFFER] if tools else (), tools, _texts(kept)))


def _joined(texts: Iterable[str]) -> str:
    """Texts after each other; a line end keeps words of two texts apart, as it does in a conversation."""
    whole = ""
    for text in texts:
        whole += f"\n{text}" if whole[-1:].isalnum() else text
    return whole


def _texts(value: Any) -> Iterator[str]:
    """All texts in a record, however nested; keys and numbers are learned from in calls of tools alone."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and calls_of(value) and check_calls(value) is None:
        yield from _texts({key: part for key, part in value.items() if key != "tool_calls"})
        yield from call_texts(value)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key not in _UNWRITTEN:
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
