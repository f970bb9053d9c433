"""Files of examples, read row by row: whoever reads them, worker or planner, reads the same."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jobs.formats import Row, as_known
from providers.errors import MissingExtraError, UsageError

Located = tuple[Path, int, Row]

_FIELD_LIMIT_BYTES = 1 << 30
_HASHED_BYTES = 1 << 20
_PARQUET_ROWS = 1024
JSON_HINT = "each line is one JSON object; `jq -c '.[]' FILE > NEW` makes them of an array"
TEXT_HINT = "data files are UTF-8 text; convert it: `iconv -f LATIN1 -t UTF-8 FILE > NEW`"


def data_sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file, or of a directory's files one after the other.

    Raises:
        UsageError: There is nothing.
    """
    total = hashlib.sha256()
    for file in files_of(path):
        with file.open("rb") as stream:
            while part := stream.read(_HASHED_BYTES):
                total.update(part)
    return total.hexdigest()


def files_of(path: Path) -> list[Path]:
    """The files of a data set: the file itself, or those of a directory and the ones below it, in order of names.

    Files that start with a dot or an underscore are nobody's data, nor are those of other kinds.

    Raises:
        UsageError: There is nothing, or files of several kinds, whose rows would differ.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"data file {path} does not exist", code="bad_data", path=str(path))
    found = sorted(
        file for file in path.rglob("*") if file.suffix.lower() in _IN_DIRECTORIES and _counts(file, path)
    )
    kinds = sorted({file.suffix.lower() for file in found})
    if len(kinds) != 1:
        problem = f"files of several kinds: {', '.join(kinds)}" if kinds else "no data file"
        hint = f"it must hold files of one of {', '.join(_IN_DIRECTORIES)}"
        raise UsageError(f"the directory {path} holds {problem}", hint=hint, code="bad_data", path=str(path))
    return found


def _counts(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def read_rows(path: Path) -> Iterator[Located]:
    """Rows as `as_known` gives them, with their file and line (or row) number, 1-based.

    Raises:
        UsageError: A file is missing, unreadable or of an unknown kind, or a line is none.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    for file in files_of(path):
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            hint = f"use one of {', '.join(_READERS)}"
            raise UsageError(f"{file}: unknown kind of data file", hint=hint, code="bad_data")
        try:
            yield from ((file, number, as_known(row)) for number, row in reader(file))
        except UnicodeDecodeError:
            raise not_text(file) from None
        except (OSError, csv.Error) as error:
            raise UsageError(f"cannot read {file}: {error}", code="bad_data", path=str(file)) from error


def bad_row(path: Path, number: int, problem: str, hint: str | None = None) -> UsageError:
    """The error of a row that nothing can be learned from."""
    return UsageError(f"{path}:{number}: {problem}", hint=hint, code="bad_data", path=f"{path}:{number}")


def not_text(path: Path) -> UsageError:
    """The error of a file that is not UTF-8, with the first such line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return bad_row(path, number, "not UTF-8 text", TEXT_HINT)
    return UsageError(f"cannot read {path}: not UTF-8 text", hint=TEXT_HINT, code="bad_data", path=str(path))


def table_rows(path: Path, file: Iterable[str]) -> csv.DictReader[str]:
    """Rows of a table with a header; what separates its columns follows from the name of the file."""
    csv.field_size_limit(_FIELD_LIMIT_BYTES)
    return csv.DictReader(file, delimiter=separator_of(path))


def separator_of(path: Path) -> str:
    """What separates the columns of a table."""
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise bad_row(path, number, f"no JSON: {error}", JSON_HINT) from error
            if not isinstance(row, dict):
                raise bad_row(path, number, "expected an object", JSON_HINT)
            yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = table_rows(path, file)
        before = 1
        for row in reader:
            number, before = before + 1, reader.line_num
            if None in row or None in row.values():
                raise bad_row(path, number, "number of columns differs from the header")
            yield number, dict(row)


def _read_text(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, {"text": line.rstrip("\n")}


def parquet_rows(path: Path, first_group: int = 0) -> Iterator[tuple[int, Row]]:
    """Rows of a Parquet file, from one of its groups on, with their number, from 1.

    Raises:
        UsageError: It is damaged.
        MissingExtraError: pyarrow is not installed.
    """
    number = 0
    with _parquet_file(path) as file:
        groups = range(first_group, file.num_row_groups)
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, row_groups=groups):
            for row in batch.to_pylist():
                number += 1
                yield number, row


class RowGroup(NamedTuple):
    """A group of rows of a Parquet file, by the file's footer; `bytes` are what they take unpacked."""

    rows: int
    bytes: int


def parquet_groups(path: Path) -> list[RowGroup]:
    """Groups of rows of a Parquet file.

    Raises:
        UsageError: It is damaged.
        MissingExtraError: pyarrow is not installed.
    """
    with _parquet_file(path) as file:
        found = (file.metadata.row_group(index) for index in range(file.num_row_groups))
        return [RowGroup(int(group.num_rows), int(group.total_byte_size)) for group in found]


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("data", "reading Parquet files") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise UsageError(f"cannot read {path}: {error}", code="bad_data", path=str(path)) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
    ".parquet": parquet_rows,
}
#: Of a directory: a .json file in it is more often about the data than data.
_IN_DIRECTORIES = tuple(suffix for suffix in _READERS if suffix != ".json")
