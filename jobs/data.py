"""Reads the examples to learn from and checks each one: a bad line is named before GPU time is spent."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

from jobs.formats import CHECKS, Row, format_of, is_talk, truth
from jobs.spec import DataFormat, DataJob, GuardJob, Task
from providers.errors import UsageError

Located = tuple[Path, int, Row]

_FIELD_LIMIT_BYTES = 1 << 30
_HASHED_BYTES = 1 << 20
_FORMATS: dict[Task, tuple[DataFormat, ...]] = {
    "sft": ("prompt_completion", "messages", "text"),
    "classification": ("label",),
    "dpo": ("preference",),
    "reward": ("preference",),
    "kto": ("unpaired", "preference"),
    "grpo": ("prompt",),
}
# Data made for one task that another can learn from: a completion is the answer that rewards compare with.
_READ_AS: dict[tuple[Task, DataFormat], DataFormat] = {
    ("grpo", "prompt_completion"): "prompt",
    ("grpo", "unpaired"): "prompt",
    ("sft", "unpaired"): "prompt_completion",
}


@dataclass(frozen=True, slots=True)
class Examples:
    """Checked examples in file order.

    Attributes:
        format: As in the job, never auto. Conversations that each end in their only answer
            come as prompt_completion, both lists of messages: then only the answer is learned.
        train: Rows with the keys of the format only; labels are class indices.
        eval: Held-out rows, empty if the job has none.
        label_names: Class names by index, for classification.
        guard: Rows of the general hold-out, empty if the job has none.
    """

    format: DataFormat
    train: list[Row]
    eval: list[Row]
    label_names: tuple[str, ...] = ()
    guard: list[Row] = field(default_factory=list)

    @property
    def held_out(self) -> dict[str, list[Row]]:
        """Rows to measure on, by split; without splits that have none."""
        return {name: rows for name, rows in (("eval", self.eval), ("guard", self.guard)) if rows}


def load_examples(
    data: DataJob,
    task: Task,
    base: Path,
    *,
    eval_samples: int | None = None,
    guard: GuardJob | None = None,
) -> Examples:
    """Read and check the training and the held-out files.

    Args:
        data: Files and format.
        task: Decides which formats it can learn from.
        base: Directory that relative paths start from.
        eval_samples: At most this many held-out rows, the first ones.
        guard: The general hold-out.

    Raises:
        UsageError: A file is missing, empty or unreadable, or a row is wrong (named as file:line).
    """
    train_path = base / data.train
    train = list(_read_all(train_path))
    if not train:
        raise UsageError(f"{train_path} holds no example", code="bad_data", path=str(train_path))
    found = _format_of(train[0][2], train_path) if data.format == "auto" else data.format
    found = _READ_AS.get((task, found), found)
    if found not in _FORMATS[task]:
        hint = f"it learns from {' or '.join(_FORMATS[task])}"
        raise UsageError(f"task {task} cannot learn from data of format {found}", hint=hint, code="bad_data")
    names: tuple[str, ...] = ()
    if found == "label":
        names = data.label_names or _label_names([row for *_, row in train], data.labels, train_path)
    rows = _checked(train, found, names)
    held_out = _held_out(data.eval, eval_samples, found, names, base)
    guarded = [] if guard is None else _held_out(guard.data, guard.samples, found, names, base)
    if found == "messages" and all(_is_one_answer(row) for row in (*rows, *held_out, *guarded)):
        rows, held_out, guarded = (_split_answers(part) for part in (rows, held_out, guarded))
        found = "prompt_completion"
    return Examples(found, rows, held_out, names, guarded)


def _held_out(
    name: str | None, samples: int | None, kind: DataFormat, names: tuple[str, ...], base: Path
) -> list[Row]:
    """The first rows of a file or directory, in the format of the training data."""
    if name is None:
        return []
    rows = list(islice(_read_all(base / name), samples))
    if not rows:
        raise UsageError(f"{base / name} holds no example", code="bad_data", path=str(base / name))
    return _checked(rows, kind, names)


def data_hashes(data: DataJob, base: Path) -> dict[str, str]:
    """Hexadecimal sha256 of the data by use: train, eval."""
    named = {"train": data.train, "eval": data.eval}
    return {use: data_sha256(base / name) for use, name in named.items() if name is not None}


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
        file for file in path.rglob("*") if file.suffix.lower() in _READERS and _counts(file, path)
    )
    kinds = sorted({file.suffix.lower() for file in found})
    if len(kinds) != 1:
        problem = f"files of several kinds: {', '.join(kinds)}" if kinds else "no data file"
        hint = f"it must hold files of one of {', '.join(_READERS)}"
        raise UsageError(f"the directory {path} holds {problem}", hint=hint, code="bad_data", path=str(path))
    return found


def _counts(file: Path, root: Path) -> bool:
    return file.is_file() and not any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _read_all(path: Path) -> Iterator[Located]:
    """Rows with their file and line (or row) number, 1-based."""
    for file in files_of(path):
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            hint = f"use one of {', '.join(_READERS)}"
            raise UsageError(f"{file}: unknown kind of data file", hint=hint, code="bad_data")
        try:
            yield from ((file, number, row) for number, row in reader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"cannot read {file}: {error}", code="bad_data", path=str(file)) from error


def _read_jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _bad_row(path, number, f"no JSON: {error}") from error
            if not isinstance(row, dict):
                raise _bad_row(path, number, "expected an object")
            yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_FIELD_LIMIT_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        for row in reader:
            if None in row or None in row.values():
                raise _bad_row(path, reader.line_num, "number of columns differs from the header")
            yield reader.line_num, dict(row)


def _read_text(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, {"text": line.rstrip("\n")}


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise UsageError(f"cannot read {path}: {error}", code="bad_data", path=str(path)) from error
    yield from enumerate(table.to_pylist(), 1)


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_text,
    ".parquet": _read_parquet,
}


def _format_of(row: Row, path: Path) -> DataFormat:
    found = format_of(row)
    if found is not None:
        return cast(DataFormat, found)
    keys = ", ".join(sorted(map(str, row))) or "none"
    hint = "use prompt and completion, messages, text, text and label, chosen and rejected, or prompt"
    raise UsageError(
        f"{path}: no known format has the keys {keys}", hint=hint, code="bad_data", path=str(path)
    )


def _is_one_answer(row: Row) -> bool:
    roles = [message["role"] for message in row["messages"]]
    return len(roles) > 1 and roles[-1] == "assistant" and "assistant" not in roles[:-1]


def _split_answers(rows: list[Row]) -> list[Row]:
    return [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]


def _checked(rows: list[Located], kind: DataFormat, names: tuple[str, ...]) -> list[Row]:
    check, keys = CHECKS[kind]
    shape = _shape(rows[0][2]) if rows else None
    result = []
    for path, number, row in rows:
        problem = check(row)
        if problem is None and kind == "label" and str(row.get("label")) not in names:
            problem = f"label {row.get('label')!r} is none of {', '.join(names[:10])}"
        if problem is None and kind in ("preference", "unpaired", "prompt") and _shape(row) != shape:
            problem = "its keys, or texts against messages, differ from the first example"
        if problem is not None:
            raise _bad_row(path, number, problem)
        result.append(_kept(row, kind, keys, names))
    return result


def _shape(row: Row) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted((str(key), is_talk(value)) for key, value in row.items()))


def _kept(row: Row, kind: DataFormat, keys: tuple[str, ...], names: tuple[str, ...]) -> Row:
    if kind == "prompt":
        return _with_answer(row)
    kept = {key: row[key] for key in keys if key in row}
    if kind == "label":
        kept["label"] = names.index(str(row["label"]))
    if kind == "unpaired":
        kept["label"] = truth(row["label"])
    return kept


def _with_answer(row: Row) -> Row:
    """All keys; a completion is called answer, since the trainer calls its own samples completions."""
    kept = {key: value for key, value in row.items() if key != "completion"}
    return {"answer": row["completion"], **kept} if "completion" in row else kept


def _label_names(rows: list[Row], labels: int, path: Path) -> tuple[str, ...]:
    """Class names by index: 0..n-1 for numbers, else the names in alphabetical order."""
    found = {str(row.get("label")) for row in rows}
    numbers = tuple(str(index) for index in range(labels))
    if found <= set(numbers):
        return numbers
    if all(name.lstrip("-").isdigit() for name in found) or len(found) > labels:
        shown = ", ".join(sorted(found)[:10])
        message = f"{path}: labels {shown} do not fit {labels} classes"
        raise UsageError(message, hint="set data.labels, or count labels from 0", code="bad_data")
    return tuple(sorted(found))


def _bad_row(path: Path, number: int, problem: str) -> UsageError:
    return UsageError(f"{path}:{number}: {problem}", code="bad_data", path=f"{path}:{number}")
